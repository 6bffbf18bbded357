"""What a reader has seen so far: collected under its bounds, each word with its first evidence."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mailmill.processing.threat.evidence.inside import (
    MAX_EVIDENCE_CHARS,
    MAX_MEMBERS,
    MAX_NAME_CHARS,
    MAX_TARGETS,
    MAX_TEXT_CHARS,
    MAX_URL_CHARS,
    Inside,
    Target,
)
from mailmill.processing.threat.evidence.readers import vba

# Links between Office's own programs are what DDE was made for.
_OFFICE_SERVICE = re.compile(
    r"^\W{0,5}(?:dde(?:auto)?)?\W{0,5}(?:excel|winword|word|powerpnt|msaccess)\b", re.IGNORECASE
)


@dataclass(slots=True)
class Findings:
    """``inside()`` is the value that they come to."""

    seen: dict[str, str] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    text: str = ""

    def see(self, word: str, evidence: str) -> None:
        if word not in self.seen:
            self.seen[word] = " ".join(evidence[: 2 * MAX_EVIDENCE_CHARS].split())[:MAX_EVIDENCE_CHARS]

    def see_macros(self, source: str) -> None:
        """A macro module, by its source; "" where it has none."""
        for word, evidence in vba.judge(source).items():
            self.see(word, evidence)
        if source:
            self.seen.pop("source_removed", None)
            self.seen["macros"] = "with their source"
        elif "macros" not in self.seen:
            self.see("source_removed", "the macros' source is not there, only what was compiled from it")
            self.see("macros", "compiled only")

    def see_dde(self, command: str) -> None:
        """A DDE field or link; one between Office's own programs is none."""
        if not _OFFICE_SERVICE.match(command):
            self.see("dde", command)

    def member(self, name: str) -> None:
        if len(self.members) < MAX_MEMBERS:
            self.members.append(name[:MAX_NAME_CHARS])

    def target(self, target: Target) -> None:
        if len(self.targets) < MAX_TARGETS and len(target.url) <= MAX_URL_CHARS and target not in self.targets:
            self.targets.append(target)

    def say(self, text: str) -> None:
        if len(self.text) < MAX_TEXT_CHARS:
            self.text = f"{self.text} {text}".strip()[:MAX_TEXT_CHARS]

    def inside(self) -> Inside:
        return Inside(self.seen, tuple(self.members), tuple(self.targets), self.text)
