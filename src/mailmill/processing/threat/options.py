"""What was configured for the threat engine, as plain values: they can be compared, hashed, and sent to a child.

Files have been read by whoever makes these (:mod:`mailmill.app.threat_options`); what they hold is checked when the
engine is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Final

from mailmill.model import Address

ENTRY_POINTS: Final = "mailmill.detectors"
"""Where installed packages offer detectors."""


@dataclass(frozen=True, slots=True)
class YaraSource:
    """The text of one file of YARA rules, and its name as errors show it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class OwnWords:
    """What the user says of own people and of other people's addresses.

    ``people`` may be impersonated; one entry for each address of theirs, "" where none was told. ``domains`` are the
    user's own. ``allow`` and ``block`` are entries of :class:`~.evidence.address_list.AddressList`.
    """

    people: tuple[Address, ...] = ()
    domains: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()

    def and_those(self, more: OwnWords) -> OwnWords:
        """Both, each entry once."""

        def joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(dict.fromkeys((*first, *second)))

        return OwnWords(
            people=tuple(dict.fromkeys((*self.people, *more.people))),
            domains=joined(self.domains, more.domains),
            allow=joined(self.allow, more.allow),
            block=joined(self.block, more.block),
        )


@dataclass(frozen=True, slots=True)
class ThreatOptions:
    """``scoring`` is TOML that changes entries of the scoring table ("" for none), from ``scoring_file``.

    ``everybody`` holds for all accounts; ``accounts`` has (name, what holds for it besides). ``inspect_files``: read
    the insides of attached files, in child processes. ``verify_dkim``: check signatures again, which asks the network.
    ``entry_points``: run the detectors that installed packages offer.
    """

    scoring: str = ""
    scoring_file: str = ""
    yara: tuple[YaraSource, ...] = ()
    everybody: OwnWords = OwnWords()
    accounts: tuple[tuple[str, OwnWords], ...] = ()
    inspect_files: bool = True
    verify_dkim: bool = False
    entry_points: bool = True

    @property
    def wants_raw(self) -> bool:
        """Whether ``ParsedMessage.raw`` is looked at."""
        return bool(self.yara) or self.verify_dkim

    @property
    def has_own(self) -> bool:
        """Whether there is anything of the user's that could make no sense."""
        return self != DEFAULT_OPTIONS or (self.entry_points and bool(metadata.entry_points(group=ENTRY_POINTS)))


DEFAULT_OPTIONS = ThreatOptions()
