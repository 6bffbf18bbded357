"""Runs every detector over one prepared message and weighs what they found. Pure and deterministic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from mailmill.message_parser import ParsedMessage
from mailmill.model import Finding, Verdict
from mailmill.processing.registry import JsonValue
from mailmill.processing.threat import attachments, authentication, domains, links, sender
from mailmill.processing.threat.context import ThreatContext, prepare
from mailmill.processing.threat.scoring import DEFAULT_TABLE, ScoringTable, judge, reasons

Detector = Callable[[ThreatContext], Iterable[Finding]]

DETECTORS: tuple[Detector, ...] = (
    *authentication.DETECTORS,
    *sender.DETECTORS,
    *domains.DETECTORS,
    *links.DETECTORS,
    *attachments.DETECTORS,
)


def scan(
    message: ParsedMessage,
    *,
    own_address: str = "",
    authserv_id: str | None = None,
    table: ScoringTable = DEFAULT_TABLE,
    detectors: Sequence[Detector] = DETECTORS,
) -> Verdict:
    """The verdict on a parsed message. ``own_address`` is the account's, ``authserv_id`` names whose results it
    trusts."""
    return assess(prepare(message, own_address=own_address, authserv_id=authserv_id), table=table, detectors=detectors)


def assess(
    context: ThreatContext, *, table: ScoringTable = DEFAULT_TABLE, detectors: Sequence[Detector] = DETECTORS
) -> Verdict:
    """The verdict on a prepared message."""
    found = chain.from_iterable(detector(context) for detector in detectors)
    return judge(found, aligned=context.authenticated, table=table)


def as_json(verdict: Verdict, table: ScoringTable = DEFAULT_TABLE) -> dict[str, JsonValue]:
    """The stored value: ``{"verdict","score","findings":[{id,family,severity,score,evidence}],"reasons":[…]}``."""
    return {
        "verdict": verdict.verdict.value,
        "score": verdict.score,
        "findings": [
            {
                "id": one.id,
                "family": one.family,
                "severity": one.severity.value,
                "score": round(one.score, 1),
                "evidence": one.evidence,
            }
            for one in verdict.findings
        ],
        "reasons": reasons(verdict, table),
    }
