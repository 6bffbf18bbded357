"""Family ``authentication``: does the account's own server vouch for where the message says it comes from?"""

from __future__ import annotations

from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.hosts import is_public_suffix
from mailmill.processing.threat.scoring import finding

_SPF_REFUSED = ("fail", "hardfail")


def dmarc_failed(context: ThreatContext) -> Iterator[Finding]:
    """DMARC failed, and no list or forwarder explains it (both break alignment, RFC 7960).

    Less of a domain whose policy is to let that pass: many publish it who have not set up all their own servers.
    """
    results = context.authentication
    if results.dmarc != "fail" or _explained(context):
        return
    policy = f" (p={results.dmarc_policy})" if results.dmarc_policy else ""
    finding_id = "authentication.dmarc_unenforced" if results.dmarc_policy == "none" else "authentication.dmarc_failed"
    yield finding(finding_id, f"dmarc=fail{policy} for {context.sender.domain}")


def spf_failed(context: ThreatContext) -> Iterator[Finding]:
    """SPF refuses the sending server, and nothing aligned speaks for the message. Received-SPF is the weak fallback."""
    results = context.authentication
    if _explained(context):
        return
    spf, source = (results.spf, "") if results.spf else (results.received_spf, " (Received-SPF)")
    evidence = f"spf={spf} for {results.spf_domain or context.return_path.domain or context.sender.domain}{source}"
    if spf in _SPF_REFUSED and not source:
        yield finding("authentication.spf_failed", evidence)
    elif spf == "softfail" or spf in _SPF_REFUSED:
        yield finding("authentication.spf_softfailed", evidence)


def nothing_passed(context: ThreatContext) -> Iterator[Finding]:
    """The server checked the message and nothing at all passed: no SPF, no DKIM, no DMARC."""
    results = context.authentication
    if not results.known or results.passed_for or results.dkim_passed or results.spf == "pass" or results.forwarded:
        return
    if not results.spf and not results.dmarc:  # a signature broken on the way is not the absence of all proof
        return
    words = [f"spf={results.spf or 'none'}", f"dkim={_dkim_word(context)}", f"dmarc={results.dmarc or 'none'}"]
    yield finding("authentication.nothing_passed", ", ".join(words))


def unaligned(context: ThreatContext) -> Iterator[Finding]:
    """Something passed, for an organisation that is not From's, and no list explains it. A DMARC result says the same
    of the whole message: a failure is told by itself, and a pass is of another From than we see."""
    results = context.authentication
    if results.dmarc in ("pass", "fail"):
        return
    if results.passed_for and not _explained(context) and context.sender.organisation:
        proven = ", ".join(sorted(results.passed_for)[:3])
        yield finding("authentication.unaligned", f"From {context.sender.domain}, proven for {proven}")


def dkim_failed(context: ThreatContext) -> Iterator[Finding]:
    """Every signature is broken. Mailing lists do that to honest mail, so it is little alone."""
    results = context.authentication
    if results.dkim_failed and not _explained(context):
        yield finding("authentication.dkim_failed", f"dkim=fail for {results.dkim[0][1] or 'the signing domain'}")


def composite_failed(context: ThreatContext) -> Iterator[Finding]:
    """Exchange Online's own judgement of all it knows (``compauth``) is that the sender is spoofed."""
    results = context.authentication
    if results.compauth == "fail" and not _explained(context):
        yield finding("authentication.composite_failed", f"compauth=fail for {context.sender.domain}")


def public_suffix(context: ThreatContext) -> Iterator[Finding]:
    """From's domain is one under which others have theirs (``co.uk``): nobody's, and DMARC does not ask about it."""
    if is_public_suffix(context.sender.domain) and not context.authenticated:
        yield finding("authentication.public_suffix", f"From: {context.sender.address}")


def several_senders(context: ThreatContext) -> Iterator[Finding]:
    """More than one From field, or From addresses of several organisations without Sender (RFC 5322 §3.6.2)."""
    organisations = {party.organisation for party in context.senders if party.organisation}
    if context.from_fields > 1:
        yield finding("authentication.several_senders", f"{context.from_fields} From fields")
    elif len(organisations) > 1 and context.message.header("Sender") is None:
        shown = ", ".join(party.address for party in context.senders[:4])
        yield finding("authentication.several_senders", f"From: {shown}")


def _explained(context: ThreatContext) -> bool:
    """The sender is proven, or a list or a forwarder that we believe changed what would have proven it."""
    return context.authenticated or context.by_list or context.authentication.forwarded


def _dkim_word(context: ThreatContext) -> str:
    return context.authentication.dkim[0][0] if context.authentication.dkim else "none"


DETECTORS = (
    dmarc_failed,
    composite_failed,
    spf_failed,
    nothing_passed,
    unaligned,
    dkim_failed,
    public_suffix,
    several_senders,
)
