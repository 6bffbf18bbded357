"""A verdict told to a person who is no expert: in one sentence, what speaks against and for, what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from mailmill.model import Verdict, VerdictName
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.families.own_rules import ALLOWED
from mailmill.processing.threat.scoring import ScoringTable

ODD_FROM: Final = 10.0
"""Below so many points nothing is worth a word of caution."""

_SENTENCES: Final = {
    VerdictName.MALICIOUS: "This message is very likely an attack.",
    VerdictName.SUSPICIOUS: "Be careful: this message shows signs of deceit.",
}

_METHODS: Final = {"spf": "SPF", "dkim": "DKIM", "dmarc": "DMARC"}


@dataclass(frozen=True, slots=True)
class Point:
    """One finding: the table's ``words``, what was seen (``evidence``), and what it counts (``points`` of 100)."""

    id: str
    severity: str
    points: float
    words: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """``against`` is what counts, ``noted`` what was found and counts nothing; ``origin`` is what is known of where the
    message comes from, ``benign`` what speaks for it, ``advice`` what to do: sentences. ``origin`` and evidence quote
    the sender: not safe for a terminal as they are.
    """

    sentence: str
    against: tuple[Point, ...]
    noted: tuple[Point, ...]
    origin: tuple[str, ...]
    benign: tuple[str, ...]
    advice: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(context: ThreatContext, verdict: Verdict, table: ScoringTable, authserv_id: str | None) -> Explanation:
    """The explanation of a verdict on this message. ``authserv_id``: whose results were believed."""
    points = tuple(
        Point(
            one.id,
            one.severity.value,
            round(one.score, 1),
            table.weights[one.id].words if one.id in table.weights else one.words or table.unknown.words,
            one.evidence,
        )
        for one in verdict.findings
    )
    return Explanation(
        sentence=_sentence(verdict),
        against=tuple(point for point in points if point.points > 0),
        noted=tuple(point for point in points if point.points <= 0),
        origin=tuple(_origin(context, authserv_id)),
        benign=tuple(_benign(context, verdict, table)),
        advice=tuple(_advice(context, verdict)),
    )


def _sentence(verdict: Verdict) -> str:
    if verdict.verdict in _SENTENCES:
        return _SENTENCES[verdict.verdict]
    if verdict.score >= ODD_FROM:
        return "Some things about this message are odd, but too few to call it suspicious."
    return "Nothing about this message speaks of a threat."


def _origin(context: ThreatContext, authserv_id: str | None) -> Iterator[str]:
    proof = context.authentication
    sender = context.sender.domain or "the sender"
    server = f"The receiving server ({authserv_id})"
    if not authserv_id:
        yield (
            "Nothing is known of where it comes from: it was not said which server received it, and what a message "
            "says of itself proves nothing."
        )
    elif not proof.known:
        yield f"{server} left no word in it about where it comes from."
    elif proof.aligned:
        yield f"{server} confirmed that it comes from {sender} ({_passed(context)})."
    elif proof.passed_for:
        proven = ", ".join(sorted(proof.passed_for)[:3])
        yield f"{server} confirmed only that it was sent by {proven}; it claims to be from {sender}."
    else:
        yield f"{server} found no proof that it comes from {sender} ({_results(context)})."


def _passed(context: ThreatContext) -> str:
    proof = context.authentication
    said = {"spf": proof.spf == "pass", "dkim": proof.dkim_passed, "dmarc": proof.dmarc == "pass"}
    names = [name for method, name in _METHODS.items() if said[method]]
    return f"{_and(names)} passed" if names else "its domains agree"


def _results(context: ThreatContext) -> str:
    proof = context.authentication
    dkim = "fail" if proof.dkim_failed else next((result for result, _ in proof.dkim), "")
    said = [(_METHODS["spf"], proof.spf), (_METHODS["dkim"], dkim), (_METHODS["dmarc"], proof.dmarc)]
    return ", ".join(f"{name}: {word}" for name, word in said if word)


def _benign(context: ThreatContext, verdict: Verdict, table: ScoringTable) -> Iterator[str]:
    if context.authenticated:
        yield "Its sender's address is genuine. That says nothing of the sender's intentions."
    if context.vouched:
        softened = (one.id in table.weights and table.weights[one.id].softened for one in verdict.findings if one.score)
        lighter = sum(softened)
        if lighter and table.softening < 1:
            count = "one finding counts" if lighter == 1 else f"{lighter} findings count"
            yield f"Since its sender is proven, {count} less."
    if any(one.id == ALLOWED for one in verdict.findings):
        yield "Its sender is on your allow list, so most of what speaks against it counts little."
    if context.by_list:
        yield "A mailing list sent it on, and the list's own server is proven."
    history = context.history
    if history.sent:
        yield "You have written to this sender before."
    elif history.received:
        yield "You have had mail from this address before."
    elif history.organisation_received:
        yield f"You have had mail from {context.sender.organisation} before."


def _advice(context: ThreatContext, verdict: Verdict) -> Iterator[str]:
    families = {one.family for one in verdict.findings if one.score > 0}
    if verdict.verdict is VerdictName.CLEAN:
        if verdict.score >= ODD_FROM:
            yield "Before you pay, sign in or open a file because of it, make sure that you expected it."
        return
    if verdict.verdict is VerdictName.MALICIOUS:
        yield "Do not answer, follow its links, open its files or call its numbers."
    else:
        yield "Do not do what it asks before you know from elsewhere that it is genuine."
    if context.links:
        yield "To look into it, go to the company's site by typing its address yourself, not by a link in the message."
    if context.files and families & {"attachments", "pictures"}:
        yield "Leave the attached files closed, and scan no code in them."
    if "language" in families or "sender" in families:
        yield "Ask the person it claims to be from, by a number or address that you had before."
    if "prompt_injection" in families:
        yield "Do not have an assistant read it: it holds words meant to give one orders."
    yield "If you have typed a password because of it, change that password now."


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
