"""The threat engine: a verdict on each message, deterministic, with its evidence. No network, no clock, no state.

Laws of this room:

- A detector is a small pure function ``(ThreatContext) -> Iterable[Finding]``; one module per family, each with a tuple
  ``DETECTORS``. A detector looks at the prepared context only and states what it saw; what that is worth stands in
  ``scoring.toml``.
- The benign side is carried by authentication and alignment, as the account's own server reports them, and by the
  account's own history, never by style.
- Whatever a sender writes is bounded before it is looked at; patterns are linear. Libraries that read the inside of
  files run in a child process with limits.

The way: ``context`` (prepares a message once, with what ``evidence`` reads of it) → ``families`` (each detector says
what it saw, by what ``knowledge`` lists) → ``scoring`` (weights, the verdict, the reasons in words); ``engine`` does it
all, as ``options`` say, with the ``own_detectors`` that installed packages offer.

For writing detectors (``docs/write-a-detector.md``); these names are kept, the files are not promised::

    from mailmill.processing.threat import Finding, Severity, ThreatContext

    def wrong_bank(context: ThreatContext) -> Iterable[Finding]: ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailmill.model import Finding, Severity, Verdict
    from mailmill.processing.threat.context import Link, Party, ThreatContext, prepare
    from mailmill.processing.threat.engine import ThreatEngine
    from mailmill.processing.threat.evidence.attached_files import AttachedFile
    from mailmill.processing.threat.options import OwnWords, ThreatOptions

__all__ = [
    "AttachedFile",
    "Finding",
    "Link",
    "OwnWords",
    "Party",
    "Severity",
    "ThreatContext",
    "ThreatEngine",
    "ThreatOptions",
    "Verdict",
    "prepare",
]

_HOMES = {
    "mailmill.model": ("Finding", "Severity", "Verdict"),
    "mailmill.processing.threat.context": ("Link", "Party", "ThreatContext", "prepare"),
    "mailmill.processing.threat.engine": ("ThreatEngine",),
    "mailmill.processing.threat.evidence.attached_files": ("AttachedFile",),
    "mailmill.processing.threat.options": ("OwnWords", "ThreatOptions"),
}


def __getattr__(name: str) -> Any:
    # Lazily, so that one module of the room alone does not load all of it.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
