"""What an evaluation keeps of each message: all figures are made of these alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from mailmill.model import Finding, VerdictName


class Kind(StrEnum):
    PHISH = "phish"
    HAM = "ham"


@dataclass(frozen=True, slots=True)
class Folder:
    """A collection of one kind. ``name`` is what was given on the command line."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Opinion:
    """A verdict and its score, 0 to 100."""

    verdict: VerdictName
    score: float

    @property
    def suspicious(self) -> bool:
        """Suspicious or malicious."""
        return self.verdict is not VerdictName.CLEAN

    @property
    def malicious(self) -> bool:
        return self.verdict is VerdictName.MALICIOUS


@dataclass(frozen=True, slots=True)
class PeerOpinion:
    """What another filter said: its score, and whether that reaches its lower and its upper threshold.

    ``malicious`` is None where it has one threshold only.
    """

    score: float
    suspicious: bool
    malicious: bool | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Case:
    """One message, judged. ``place`` is its file (and number in an mbox) below the folder.

    ``opinion`` is the verdict; ``without`` the one if a family's findings were left out, for each family that found
    something; ``unproven`` the one with what the receiving server said of its origin taken away. ``seconds`` is the
    time from raw bytes to verdict, ``cpu_seconds`` what this process itself computed of it; ``has_files``: it carries
    attachments. ``peers``: by name, of those that answered.
    """

    folder: Folder
    place: str
    opinion: Opinion
    findings: tuple[Finding, ...]
    unproven: Opinion
    seconds: float
    cpu_seconds: float
    has_files: bool
    without: Mapping[str, Opinion] = field(default_factory=lambda: MappingProxyType({}))
    peers: Mapping[str, PeerOpinion] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Trouble:
    """A file or message that gave no case. ``failed`` is False for what merely lies among the mail."""

    folder: Folder
    place: str
    reason: str
    failed: bool
