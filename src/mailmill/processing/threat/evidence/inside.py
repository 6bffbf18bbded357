"""What was read from the inside of an attached file, and who reads it.

The inside of archives, Office documents, PDFs and pictures is read by libraries on bytes that a stranger chose. So it
is read in a child process with limits (:mod:`.inside_reader`), and what comes back is data of this module: bounded when
it is made, and bounded again by whoever receives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mailmill.message_parser import Attachment

MAX_SEEN = 40
MAX_EVIDENCE_CHARS = 300
MAX_MEMBERS = 200
MAX_NAME_CHARS = 300
MAX_TARGETS = 50
MAX_URL_CHARS = 2_000
MAX_TEXT_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class Target:
    """An address that a file leads to. ``origin`` is how: ``qr`` (a QR code), ``pdf_link``, ``office_link``;
    ``where`` is for a person: ``page 1``."""

    origin: str
    url: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class Inside:
    """What a file holds. ``seen``: what was found (``macros``, ``auto_exec``, ``dde``, ``encrypted``, ``bomb``,
    ``traversal``, ``launch`` …, the words of the readers) with its evidence; ``members``: names of files within;
    ``targets``: addresses; ``text``: words on it, as far as read. All bounded."""

    seen: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    members: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    text: str = ""


NOTHING = Inside()

ReadInsides = Callable[[Sequence[Attachment]], Sequence[Inside]]
"""Reads the attachments of one message, within limits of time and memory: one value for each, in their order. Never
raises for what is in them."""


def read_nothing(attachments: Sequence[Attachment]) -> list[Inside]:
    """For those who want no more than names and first bytes."""
    return [NOTHING] * len(attachments)


def to_json(inside: Inside) -> dict[str, Any]:
    """For the way from the child to its parent: ``{"seen", "members", "targets": [[origin, url, where]], "text"}``."""
    return {
        "seen": {key[:MAX_NAME_CHARS]: value[:MAX_EVIDENCE_CHARS] for key, value in _first(inside.seen, MAX_SEEN)},
        "members": [name[:MAX_NAME_CHARS] for name in inside.members[:MAX_MEMBERS]],
        "targets": [
            [one.origin, one.url[:MAX_URL_CHARS], one.where[:MAX_NAME_CHARS]] for one in inside.targets[:MAX_TARGETS]
        ],
        "text": inside.text[:MAX_TEXT_CHARS],
    }


def from_json(data: Any) -> Inside:
    """The value that a child sent, cut to its bounds. Raises ValueError for what no child of ours sends."""
    match data:
        case {"seen": dict(seen), "members": list(members), "targets": list(targets), "text": str(text)}:
            return Inside(
                seen=MappingProxyType(
                    {_text(k, MAX_NAME_CHARS): _text(v, MAX_EVIDENCE_CHARS) for k, v in _first(seen, MAX_SEEN)}
                ),
                members=tuple(_text(name, MAX_NAME_CHARS) for name in members[:MAX_MEMBERS]),
                targets=tuple(_target(one) for one in targets[:MAX_TARGETS]),
                text=text[:MAX_TEXT_CHARS],
            )
    raise ValueError("not the form of an Inside")


def _target(data: Any) -> Target:
    match data:
        case [str(origin), str(url), str(where)]:
            return Target(origin[:MAX_NAME_CHARS], url[:MAX_URL_CHARS], where[:MAX_NAME_CHARS])
    raise ValueError("not the form of a Target")


def _text(data: Any, most: int) -> str:
    match data:
        case str():
            return data[:most]
    raise ValueError("not a text")


def _first(seen: Mapping[str, str], count: int) -> list[tuple[str, str]]:
    return list(seen.items())[:count]
