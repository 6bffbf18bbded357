"""What lures are made of: groups of phrases, and which groups make a lure. Data (``*.toml``), and its reader.

``[groups.NAME]`` holds phrases by language (form: :mod:`~mailmill.processing.threat.evidence.phrases`).
``[lures.NAME]`` says which groups must stand near one another:

- ``needs``: rows of groups; of each row one group is needed;
- ``within``: all in so many words (``DEFAULT_WITHIN`` if left out);
- ``unless``: not told where one of these lures is told;
- ``of_known``: told of people the account knows as well, for this is what stolen mailboxes send.

Law: no lure has fewer than two rows, for one phrase alone stands in honest mail.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

DEFAULT_WITHIN: Final = 120
_FILES: Final = {
    "language": ("accounts.toml", "payments.toml", "people.toml", "junk.toml"),
    "prompt_injection": ("assistants.toml",),
}
_LURE_ENTRIES = frozenset({"needs", "within", "unless", "of_known"})


@dataclass(frozen=True, slots=True)
class Lure:
    """One kind of lure; the fields are those of the module's docstring."""

    name: str
    needs: tuple[frozenset[str], ...]
    within: int
    unless: frozenset[str]
    of_known: bool


@dataclass(frozen=True, slots=True)
class Lures:
    """The lures of a family, and the phrases of each group in all languages."""

    lures: tuple[Lure, ...]
    groups: Mapping[str, tuple[str, ...]]


def read_lures(family: str) -> Lures:
    """The lures of ``language`` or ``prompt_injection``. Raises ValueError where a file breaks the form or the law."""
    lures: list[Lure] = []
    groups: dict[str, tuple[str, ...]] = {}
    for name in _FILES[family]:
        data = tomllib.loads(resources.files(__package__).joinpath(name).read_text("utf-8"))
        lures.extend(_lure(lure, entries) for lure, entries in data["lures"].items())
        for group, languages in data["groups"].items():
            if group in groups:
                raise ValueError(f"{name}: the group {group!r} is there twice")
            groups[group] = tuple(phrase for phrases in languages.values() for phrase in phrases)
    for lure in lures:
        unknown = frozenset().union(*lure.needs) - groups.keys()
        if unknown or len(lure.needs) < 2:
            raise ValueError(f"the lure {lure.name!r} needs two rows of known groups at least, not {sorted(unknown)}")
    return Lures(tuple(lures), groups)


def _lure(name: str, entries: Mapping[str, Any]) -> Lure:
    if not entries.keys() <= _LURE_ENTRIES:
        raise ValueError(f"the lure {name!r} has entries of no meaning: {sorted(entries.keys() - _LURE_ENTRIES)}")
    return Lure(
        name,
        tuple(frozenset(row) for row in entries["needs"]),
        int(entries.get("within", DEFAULT_WITHIN)),
        frozenset(entries.get("unless", ())),
        bool(entries.get("of_known", False)),
    )
