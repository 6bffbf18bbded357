"""The figures of an evaluation, made of its cases. Pure; the values are JSON, shares between 0 and 1, seconds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any, Final

from mailmill.app.threat_evaluation.cases import Case, Folder, Kind, Opinion, Trouble
from mailmill.app.threat_evaluation.statistics import auc, mean, quantile, share

JsonObject = dict[str, Any]

NUMBERED_VARIANT: Final = re.compile(r"(.+?)[-_. ]\d{1,3}(?:\.\w{1,5})?$")
"""``receipt-2.eml`` is a variant of ``receipt``. Longer numbers are names of messages, not of variants."""

MAX_COMMON: Final = 40

THRESHOLDS: Final = tuple(range(10, 101, 10))
"""Where ``suspicious`` might begin: what each would find."""

Choose = Callable[[Case], Opinion]


def figures(
    folders: Sequence[Folder],
    cases: Sequence[Case],
    troubles: Sequence[Trouble] = (),
    *,
    template: re.Pattern[str] | None = None,
) -> JsonObject:
    """Everything that ``mailmill threat evaluate`` prints.

    ``template``: ham is counted by template too, whose name is the first group (or all) of what the pattern matches at
    the start of a message's place below its folder; a template counts as flagged if any of its messages is.
    """
    of_kind = {kind: [case for case in cases if case.folder.kind is kind] for kind in Kind}
    families = sorted({one.family for case in cases for one in case.findings})
    return {
        "phish": _part(of_kind[Kind.PHISH], by_opinion),
        "ham": _part(of_kind[Kind.HAM], by_opinion),
        "auc": _auc(of_kind[Kind.PHISH], of_kind[Kind.HAM], by_opinion),
        "folders": [
            _of_folder(folder, [case for case in cases if case.folder == folder], of_kind[Kind.PHISH], template)
            for folder in folders
        ],
        "thresholds": [
            {
                "from": points,
                **{
                    kind.value: asdict(share(sum(case.opinion.score >= points for case in some), len(some)))
                    for kind, some in of_kind.items()
                },
            }
            for points in THRESHOLDS
        ],
        "time": {
            "all": _times(cases),
            "withoutFiles": _times([case for case in cases if not case.has_files]),
        },
        "without": [
            {"left": "Authentication-Results", **_both(of_kind, lambda case: case.unproven)},
            *({"left": family, **_both(of_kind, _leaving_out(family))} for family in families),
        ],
        "findings": _common(of_kind[Kind.PHISH], of_kind[Kind.HAM]),
        "peers": [
            _of_peer(name, folders, [case for case in cases if name in case.peers])
            for name in sorted({name for case in cases for name in case.peers})
        ],
        "errors": {
            "falsePositives": [_shown(case) for case in of_kind[Kind.HAM] if case.opinion.suspicious],
            "missed": [_shown(case) for case in of_kind[Kind.PHISH] if not case.opinion.suspicious],
        },
        "failed": [_trouble(one) for one in troubles if one.failed],
        "skipped": sum(not one.failed for one in troubles),
    }


def by_opinion(case: Case) -> Opinion:
    return case.opinion


def _leaving_out(family: str) -> Choose:
    return lambda case: case.without.get(family, case.opinion)


def _part(cases: Sequence[Case], choose: Choose) -> JsonObject:
    """How many of these are suspicious or worse, and malicious."""
    opinions = [choose(case) for case in cases]
    return {
        "messages": len(cases),
        "suspicious": asdict(share(sum(one.suspicious for one in opinions), len(opinions))),
        "malicious": asdict(share(sum(one.malicious for one in opinions), len(opinions))),
    }


def _both(of_kind: dict[Kind, list[Case]], choose: Choose) -> JsonObject:
    return {
        **{kind.value: _part(of_kind[kind], choose) for kind in Kind},
        "auc": _auc(of_kind[Kind.PHISH], of_kind[Kind.HAM], choose),
    }


def _auc(phish: Iterable[Case], ham: Iterable[Case], choose: Choose) -> float | None:
    return auc([choose(case).score for case in phish], [choose(case).score for case in ham])


def _of_folder(
    folder: Folder, cases: Sequence[Case], phish: Sequence[Case], template: re.Pattern[str] | None
) -> JsonObject:
    found: JsonObject = {"folder": folder.name, "kind": folder.kind.value, **_part(cases, by_opinion)}
    if folder.kind is Kind.HAM:
        found["auc"] = _auc(phish, cases, by_opinion)
        if template is not None:
            found["byTemplate"] = by_template(cases, template)
    return found


def by_template(cases: Sequence[Case], pattern: re.Pattern[str]) -> JsonObject:
    """The same figures, counted by template."""
    worst: dict[str, tuple[bool, bool]] = {}
    for case in cases:
        name = template_of(case.place, pattern)
        suspicious, malicious = worst.get(name, (False, False))
        worst[name] = (suspicious or case.opinion.suspicious, malicious or case.opinion.malicious)
    return {
        "templates": len(worst),
        "suspicious": asdict(share(sum(one for one, _ in worst.values()), len(worst))),
        "malicious": asdict(share(sum(one for _, one in worst.values()), len(worst))),
        "flagged": sorted(name for name, (suspicious, _) in worst.items() if suspicious),
    }


def template_of(place: str, pattern: re.Pattern[str]) -> str:
    """The template that a message is made of; what the pattern does not match is one of its own."""
    match = pattern.match(place)
    if match is None:
        return place
    return match[1] if pattern.groups else match[0]


def _times(cases: Sequence[Case]) -> JsonObject:
    seconds = [case.seconds for case in cases]
    slowest = max(cases, key=lambda case: case.seconds, default=None)
    return {
        "messages": len(seconds),
        "mean": mean(seconds),
        "p95": quantile(seconds, 0.95),
        "max": max(seconds, default=None),
        "cpuMean": mean([case.cpu_seconds for case in cases]),
        "slowest": str(PurePath(slowest.folder.name, slowest.place)) if slowest else None,
    }


def _common(phish: Sequence[Case], ham: Sequence[Case]) -> list[JsonObject]:
    """The findings that count most often, with how many messages of either kind have them."""
    on_phish, on_ham = (Counter(one.id for case in cases for one in case.findings) for cases in (phish, ham))
    return [
        {"id": finding_id, "phish": on_phish[finding_id], "ham": on_ham[finding_id]}
        for finding_id, _ in (on_phish + on_ham).most_common(MAX_COMMON)
    ]


def _of_peer(name: str, folders: Sequence[Folder], cases: Sequence[Case]) -> JsonObject:
    """The same figures for another filter, over what it answered."""

    def part(some: Sequence[Case]) -> JsonObject:
        said = [case.peers[name] for case in some]
        graded = [one.malicious for one in said if one.malicious is not None]
        return {
            "messages": len(said),
            "suspicious": asdict(share(sum(one.suspicious for one in said), len(said))),
            "malicious": asdict(share(sum(graded), len(graded))),
        }

    of_kind = {kind: [case for case in cases if case.folder.kind is kind] for kind in Kind}
    scores = {kind: [case.peers[name].score for case in some] for kind, some in of_kind.items()}
    seconds = [case.peers[name].seconds for case in cases]
    return {
        "name": name,
        **{kind.value: part(some) for kind, some in of_kind.items()},
        "auc": auc(scores[Kind.PHISH], scores[Kind.HAM]),
        "folders": [
            {
                "folder": folder.name,
                "kind": folder.kind.value,
                **part([case for case in cases if case.folder == folder]),
            }
            for folder in folders
        ],
        "time": {"mean": mean(seconds), "p95": quantile(seconds, 0.95), "max": max(seconds, default=None)},
    }


def _shown(case: Case) -> JsonObject:
    return {
        "folder": case.folder.name,
        "place": case.place,
        "verdict": case.opinion.verdict.value,
        "score": case.opinion.score,
        "findings": [{"id": one.id, "score": round(one.score, 1), "evidence": one.evidence} for one in case.findings],
    }


def _trouble(trouble: Trouble) -> JsonObject:
    return {"folder": trouble.folder.name, "place": trouble.place, "reason": trouble.reason}
