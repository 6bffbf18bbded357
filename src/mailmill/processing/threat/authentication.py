"""Family ``authentication``: does the account's own server vouch for where the message says it comes from?"""

from __future__ import annotations

from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.scoring import finding

_SPF_REFUSED = ("fail", "hardfail")


def dmarc_failed(context: ThreatContext) -> Iterator[Finding]:
    """DMARC failed, and no aligned signature or list explains it (a list breaks alignment, RFC 7960)."""
    results = context.authentication
    if results.dmarc == "fail" and not context.authenticated and not context.by_list:
        yield finding("authentication.dmarc_failed", f"dmarc=fail for {context.sender.domain}")


def spf_failed(context: ThreatContext) -> Iterator[Finding]:
    """SPF refuses the sending server, and nothing aligned speaks for the message. Received-SPF is the weak fallback."""
    results = context.authentication
    if context.authenticated or context.by_list:
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
    if not results.known or results.passed_for or results.dkim_passed or results.spf == "pass":
        return
    if not results.spf and not results.dmarc:  # a signature broken on the way is not the absence of all proof
        return
    words = [f"spf={results.spf or 'none'}", f"dkim={_dkim_word(context)}", f"dmarc={results.dmarc or 'none'}"]
    yield finding("authentication.nothing_passed", ", ".join(words))


def unaligned(context: ThreatContext) -> Iterator[Finding]:
    """Something passed, for an organisation that is not From's, and no list explains it."""
    results = context.authentication
    if results.dmarc == "pass":  # for another name: the server saw another From than we do, so we cannot judge
        return
    if results.passed_for and not context.authenticated and not context.by_list and context.sender.organisation:
        proven = ", ".join(sorted(results.passed_for)[:3])
        yield finding("authentication.unaligned", f"From {context.sender.domain}, proven for {proven}")


def dkim_failed(context: ThreatContext) -> Iterator[Finding]:
    """Every signature is broken. Mailing lists do that to honest mail, so it is little alone."""
    results = context.authentication
    if results.dkim_failed and not context.authenticated and not context.by_list:
        yield finding("authentication.dkim_failed", f"dkim=fail for {results.dkim[0][1] or 'the signing domain'}")


def several_senders(context: ThreatContext) -> Iterator[Finding]:
    """More than one From field, or From addresses of several organisations without Sender (RFC 5322 §3.6.2)."""
    organisations = {party.organisation for party in context.senders if party.organisation}
    if context.from_fields > 1:
        yield finding("authentication.several_senders", f"{context.from_fields} From fields")
    elif len(organisations) > 1 and context.message.header("Sender") is None:
        shown = ", ".join(party.address for party in context.senders[:4])
        yield finding("authentication.several_senders", f"From: {shown}")


def _dkim_word(context: ThreatContext) -> str:
    return context.authentication.dkim[0][0] if context.authentication.dkim else "none"


DETECTORS = (dmarc_failed, spf_failed, nothing_passed, unaligned, dkim_failed, several_senders)
