"""From findings to a verdict. The table is data (``scoring.toml``); an administrator's own changes entries of it.

Law of the score: within a family the worst finding counts in full and each further one half as much as the one before,
so that one trick seen five ways is not five tricks; the families add up, at most 100. ``malicious`` needs two families
(``supporting`` ones, that is what is said in words, are none of them), or one finding that is conclusive by itself.
What authentication speaks for (``softened``) counts a fraction where the sender is authenticated and aligned: the
benign side rests on that, not on style. Of a sender on the user's allow list, proven to be it, all counts a fraction
(``allowance``) but what is conclusive and what the user's own rules say.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

from mailmill.errors import ConfigurationError
from mailmill.model import Finding, Severity, Verdict, VerdictName

MAX_EVIDENCE_CHARS = 300
OWN_RULES: Final = "own_rules"


@dataclass(frozen=True, slots=True)
class Weight:
    """What one finding is worth: ``points`` of 100; ``softened``: authentication speaks against it; ``conclusive``:
    enough for malicious without a second family; ``words``: the reason as a person would say it."""

    points: float
    severity: Severity
    words: str
    softened: bool = False
    conclusive: bool = False


@dataclass(frozen=True, slots=True)
class ScoringTable:
    """Weights by finding id, and where the verdicts begin. ``supporting`` families add to the score, and are never one
    of the two that ``malicious`` needs."""

    weights: Mapping[str, Weight]
    suspicious_from: float = 40.0
    malicious_from: float = 80.0
    softening: float = 0.4
    allowance: float = 0.25
    repeat: float = 0.5
    supporting: frozenset[str] = frozenset()
    unknown: Weight = field(default_factory=lambda: Weight(10.0, Severity.LOW, "A detector reported something."))

    def weight(self, finding_id: str) -> Weight:
        return self.weights.get(finding_id, self.unknown)


def read_table(text: str, *, over: ScoringTable | None = None) -> ScoringTable:
    """The table that the TOML ``text`` holds; what it leaves out is as in ``over``.

    Raises ConfigurationError naming the entry that makes no sense.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the scoring table is not TOML: {error}") from error
    weights = dict(over.weights) if over else {}
    families = data.pop("weights", {})
    if not isinstance(families, dict):
        raise _refused("weights", "is a table of families")
    for family, entries in families.items():
        if not isinstance(entries, dict):
            raise _refused(f"weights.{family}", "is a table of findings")
        for name, entry in entries.items():
            finding_id = f"{family}.{name}"
            weights[finding_id] = _weight(f"weights.{finding_id}", entry, weights.get(finding_id))
    changes: dict[str, Any] = {"weights": MappingProxyType(weights)}
    for key, value in data.items():
        if key in _NUMBERS:
            changes[key] = _number(key, value, *_NUMBERS[key])
        elif key == "supporting" and isinstance(value, list) and all(isinstance(one, str) for one in value):
            changes[key] = frozenset(value)
        else:
            raise _refused(key, "is no entry of a scoring table, or of another type")
    table = replace(over, **changes) if over else ScoringTable(**changes)
    if table.suspicious_from > table.malicious_from:
        raise _refused("suspicious_from", "lies above malicious_from")
    return table


_NUMBERS: Final = {
    "suspicious_from": (0.0, 100.0),
    "malicious_from": (0.0, 100.0),
    "softening": (0.0, 1.0),
    "allowance": (0.0, 1.0),
    "repeat": (0.0, 1.0),
}


def _weight(key: str, entry: object, before: Weight | None) -> Weight:
    if not isinstance(entry, dict):
        raise _refused(key, "is a table with points, severity and words")
    given: dict[str, Any] = {}
    for name, value in entry.items():
        match name, value:
            case "points", _:
                given[name] = _number(f"{key}.points", value, 0.0, 100.0)
            case "severity", str() if value in Severity.__members__.values():
                given[name] = Severity(value)
            case "words", str() if value.strip():
                given[name] = value.strip()
            case "softened" | "conclusive", bool():
                given[name] = value
            case _:
                raise _refused(f"{key}.{name}", "is no entry of a weight, or of another type")
    if before is not None:
        return replace(before, **given)
    missing = {"points", "severity", "words"} - given.keys()
    if missing:
        raise _refused(key, f"is no finding of mailmill's; one of your own lacks {', '.join(sorted(missing))}")
    return Weight(**given)


def _number(key: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _refused(key, f"is a number from {low:g} to {high:g}")
    return float(value)


def _refused(key: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"the scoring table: {key!r} {problem}", hint="its form is that of docs/threats.md", key="threat.scoring_file"
    )


DEFAULT_TABLE: Final = read_table(resources.files(__package__).joinpath("scoring.toml").read_text("utf-8"))


def finding(finding_id: str, evidence: str, table: ScoringTable = DEFAULT_TABLE) -> Finding:
    """A finding with the table's weight; the family is the part of the id before the dot. Evidence is cut and
    cleaned."""
    weight = table.weight(finding_id)
    return Finding(finding_id, finding_id.partition(".")[0], weight.severity, weight.points, plain(evidence))


def plain(text: str) -> str:
    """At most ``MAX_EVIDENCE_CHARS`` of a text in one line, without what cannot be printed."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_EVIDENCE_CHARS]).split())
    return shown if len(shown) <= MAX_EVIDENCE_CHARS else shown[: MAX_EVIDENCE_CHARS - 1] + "…"


def judge(
    findings: Iterable[Finding],
    *,
    aligned: bool,
    allowed: bool = False,
    familiar: bool = False,
    table: ScoringTable = DEFAULT_TABLE,
) -> Verdict:
    """The verdict on these findings; each carries what it added under this table. Findings come out worst first.

    ``aligned``: the sender is authenticated; ``allowed``: and on the user's allow list; ``familiar``: and a known
    correspondent, for whom what is softened is softened twice, and the rest of what is said in words once.
    """
    weighed = _weigh(findings, aligned=aligned, allowed=allowed, familiar=familiar, table=table)
    families: dict[str, list[Finding]] = {}
    for one in weighed:
        families.setdefault(one.family, []).append(one)
    score = 0.0
    for members in families.values():
        score += sum(one.score * table.repeat**rank for rank, one in enumerate(members))
    score = round(min(100.0, score), 1)
    conclusive = any(table.weight(one.id).conclusive for one in weighed)
    telling = sum(
        1 for family, members in families.items() if members[0].score >= 10.0 and family not in table.supporting
    )
    name = VerdictName.CLEAN
    if score >= table.malicious_from and (telling >= 2 or conclusive):
        name = VerdictName.MALICIOUS
    elif score >= table.suspicious_from:
        name = VerdictName.SUSPICIOUS
    return Verdict(name, score, tuple(weighed))


def reasons(verdict: Verdict, table: ScoringTable = DEFAULT_TABLE) -> list[str]:
    """The verdict's reasons in words, worst first, each once."""
    words = [
        table.weights[one.id].words if one.id in table.weights else one.words or table.unknown.words
        for one in verdict.findings
        if one.score > 0
    ]
    return list(dict.fromkeys(words))


def _weigh(
    findings: Iterable[Finding], *, aligned: bool, allowed: bool, familiar: bool, table: ScoringTable
) -> list[Finding]:
    best: dict[str, Finding] = {}
    for one in findings:
        weight = table.weight(one.id) if one.id in table.weights else None
        points = weight.points if weight else one.score
        if weight and weight.softened and aligned:
            points *= table.softening
        if weight and familiar and (weight.softened or one.family in table.supporting):
            points *= table.softening
        if allowed and one.family != OWN_RULES and not (weight and weight.conclusive):
            points *= table.allowance
        severity = weight.severity if weight else one.severity
        kept = best.get(one.id)
        if kept is None or kept.score < points:
            best[one.id] = replace(one, score=points, severity=severity)
    return sorted(best.values(), key=lambda one: (-one.score, one.id))
