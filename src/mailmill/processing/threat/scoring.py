"""From findings to a verdict. The table is data; an administrator may put another in its place.

Law of the score: within a family the worst finding counts in full and each further one half as much as the one before,
so that one trick seen five ways is not five tricks; the families add up, at most 100. ``malicious`` needs two families,
or one finding that is conclusive by itself. What authentication speaks for (``softened``) counts a fraction where the
sender is authenticated and aligned: the benign side rests on that, not on style.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from mailmill.model import Finding, Severity, Verdict, VerdictName

MAX_EVIDENCE_CHARS = 300


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
    """Weights by finding id, and where the verdicts begin."""

    weights: Mapping[str, Weight]
    suspicious_from: float = 40.0
    malicious_from: float = 80.0
    softening: float = 0.4
    repeat: float = 0.5
    unknown: Weight = field(default_factory=lambda: Weight(10.0, Severity.LOW, "A detector reported something."))

    def weight(self, finding_id: str) -> Weight:
        return self.weights.get(finding_id, self.unknown)


_INFO, _LOW, _MEDIUM, _HIGH = Severity.INFO, Severity.LOW, Severity.MEDIUM, Severity.HIGH

DEFAULT_TABLE = ScoringTable(
    MappingProxyType(
        {
            # authentication
            "authentication.dmarc_failed": Weight(35, _HIGH, "The sender's domain forbids this message: DMARC failed."),
            "authentication.spf_failed": Weight(28, _MEDIUM, "The sending server may not send for that domain (SPF)."),
            "authentication.spf_softfailed": Weight(18, _LOW, "The sending server is not known to that domain (SPF)."),
            "authentication.nothing_passed": Weight(26, _MEDIUM, "Nothing proves where this message comes from."),
            "authentication.unaligned": Weight(
                12, _LOW, "What was proven belongs to another domain than the sender's."
            ),
            "authentication.dkim_failed": Weight(6, _LOW, "The message was changed after it was signed (DKIM)."),
            "authentication.several_senders": Weight(30, _MEDIUM, "The message names several senders."),
            # sender
            "sender.address_in_name": Weight(35, _HIGH, "The sender's name shows an address that is not the sender's."),
            "sender.malformed_from": Weight(28, _MEDIUM, "The sender's address is written so that it is not seen."),
            "sender.false_reply": Weight(12, _LOW, "The message poses as a reply, but answers nothing."),
            "sender.domain_in_name": Weight(
                30, _MEDIUM, "The sender's name shows a domain that is not the sender's.", True
            ),
            "sender.brand_in_name": Weight(42, _HIGH, "The sender uses the name of a company it does not belong to."),
            "sender.brand_within_name": Weight(
                24, _MEDIUM, "The sender's name mentions a company it does not belong to."
            ),
            "sender.own_address": Weight(30, _MEDIUM, "The message claims to come from your own address, unproven."),
            "sender.own_domain": Weight(25, _MEDIUM, "The message claims to come from your own domain, unproven."),
            "sender.own_domain_in_name": Weight(30, _HIGH, "The sender's name poses as your own domain."),
            "sender.disguised_letters": Weight(40, _HIGH, "Letters are replaced by look-alikes to pass filters."),
            "sender.reply_to_free_mail": Weight(24, _MEDIUM, "Answers would go to a free mailbox, not to the sender."),
            "sender.reply_to_differs": Weight(8, _LOW, "Answers would go to another domain.", softened=True),
            "sender.role_on_free_mail": Weight(22, _MEDIUM, "A department or service writes from a free mailbox."),
            "sender.recipient_in_name_or_subject": Weight(18, _LOW, "Your own address is used to catch attention."),
            # domains
            "domains.lookalike_sender": Weight(45, _HIGH, "The sender's domain imitates a well-known one."),
            "domains.lookalike_link": Weight(40, _HIGH, "A link leads to a domain that imitates a well-known one."),
            "domains.one_letter_off": Weight(28, _MEDIUM, "A domain is one letter off a well-known one."),
            "domains.brand_in_sender": Weight(32, _HIGH, "A company's name stands in a sender's domain not its own."),
            "domains.brand_in_link": Weight(
                30, _HIGH, "A company's name stands in a link to a domain not its own.", True
            ),
            "domains.mixed_script": Weight(45, _HIGH, "A domain mixes alphabets to look like another."),
            "domains.punycode": Weight(10, _LOW, "A domain uses letters that can pass for others."),
            "domains.risky_suffix": Weight(14, _LOW, "A domain ending known for abuse."),
            # links
            "links.text_differs_from_target": Weight(32, _HIGH, "A link shows one domain and leads to another.", True),
            "links.ip_host": Weight(32, _HIGH, "A link leads to a bare address instead of a name."),
            "links.userinfo": Weight(35, _HIGH, "A link hides its target behind an @ sign."),
            "links.script_or_data": Weight(40, _HIGH, "A link carries a page or a program instead of an address."),
            "links.free_hosting": Weight(16, _LOW, "A link leads to a page that anybody can put up for nothing."),
            "links.shortener": Weight(14, _LOW, "A shortened link hides where it leads."),
            "links.recipient_in_fragment": Weight(30, _HIGH, "A link carries your address to the page behind it."),
            # attachments
            "attachments.executable": Weight(70, _HIGH, "An attachment is a program.", conclusive=True),
            "attachments.script": Weight(55, _HIGH, "An attachment is a script."),
            "attachments.shortcut": Weight(
                65, _HIGH, "An attachment is a shortcut that starts something.", False, True
            ),
            "attachments.double_extension": Weight(80, _HIGH, "An attachment hides what it is.", conclusive=True),
            "attachments.direction_override": Weight(
                80, _HIGH, "An attachment's name is written backwards.", False, True
            ),
            "attachments.html": Weight(32, _MEDIUM, "An attachment is a web page."),
            "attachments.svg": Weight(28, _MEDIUM, "An attached picture can carry a program."),
            "attachments.active_svg": Weight(60, _HIGH, "An attached picture carries a program."),
            "attachments.macros": Weight(42, _HIGH, "An attached document carries macros."),
            "attachments.disk_image": Weight(50, _HIGH, "An attachment is a disk image."),
            "attachments.archive_with_program": Weight(65, _HIGH, "An attached archive holds a program.", False, True),
            "attachments.encrypted_archive": Weight(
                25, _MEDIUM, "An attached archive is locked, so nobody can check it."
            ),
            "attachments.type_differs": Weight(22, _MEDIUM, "An attachment is something else than its name says."),
            "attachments.notebook": Weight(35, _MEDIUM, "An attached notebook can start programs."),
        }
    )
)


def finding(finding_id: str, evidence: str, table: ScoringTable = DEFAULT_TABLE) -> Finding:
    """A finding with the table's weight; the family is the part of the id before the dot. Evidence is cut and
    cleaned."""
    weight = table.weight(finding_id)
    shown = " ".join("".join(c if c.isprintable() else " " for c in evidence[: 4 * MAX_EVIDENCE_CHARS]).split())
    if len(shown) > MAX_EVIDENCE_CHARS:
        shown = shown[: MAX_EVIDENCE_CHARS - 1] + "…"
    return Finding(finding_id, finding_id.partition(".")[0], weight.severity, weight.points, shown)


def judge(findings: Iterable[Finding], *, aligned: bool, table: ScoringTable = DEFAULT_TABLE) -> Verdict:
    """The verdict on these findings; each carries what it added under this table. Findings come out worst first."""
    weighed = _weigh(findings, aligned=aligned, table=table)
    families: dict[str, list[Finding]] = {}
    for one in weighed:
        families.setdefault(one.family, []).append(one)
    score = 0.0
    for members in families.values():
        score += sum(one.score * table.repeat**rank for rank, one in enumerate(members))
    score = round(min(100.0, score), 1)
    conclusive = any(table.weight(one.id).conclusive for one in weighed)
    telling = sum(1 for members in families.values() if members[0].score >= 10.0)
    name = VerdictName.CLEAN
    if score >= table.malicious_from and (telling >= 2 or conclusive):
        name = VerdictName.MALICIOUS
    elif score >= table.suspicious_from:
        name = VerdictName.SUSPICIOUS
    return Verdict(name, score, tuple(weighed))


def reasons(verdict: Verdict, table: ScoringTable = DEFAULT_TABLE) -> list[str]:
    """The verdict's reasons in words, worst first, each once."""
    words = [table.weight(one.id).words for one in verdict.findings if one.score > 0]
    return list(dict.fromkeys(words))


def _weigh(findings: Iterable[Finding], *, aligned: bool, table: ScoringTable) -> list[Finding]:
    best: dict[str, Finding] = {}
    for one in findings:
        weight = table.weight(one.id) if one.id in table.weights else None
        points = weight.points if weight else one.score
        if weight and weight.softened and aligned:
            points *= table.softening
        severity = weight.severity if weight else one.severity
        kept = best.get(one.id)
        if kept is None or kept.score < points:
            best[one.id] = replace(one, score=points, severity=severity)
    return sorted(best.values(), key=lambda one: (-one.score, one.id))
