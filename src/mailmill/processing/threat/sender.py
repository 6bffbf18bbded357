"""Family ``sender``: who the message says it is from, against whom it is from."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.hosts import organisation_of, split_host
from mailmill.processing.threat.impersonation import belongs_to, brand_named, carries_name
from mailmill.processing.threat.lookalike import disguised_word, skeleton
from mailmill.processing.threat.reference import FREE_MAIL
from mailmill.processing.threat.scoring import finding

_QUOTED = re.compile(r'"[^"]{0,500}"')
_ADDRESS = re.compile(r"[\w.+%-]{1,64}@([\w-]{1,63}(?:\.[\w-]{1,63}){1,8})")
# "Name, <a@b>", "Name,_<a@b>", "Name(<a@b>)": no mail program writes these, and readers see the name alone.
_BROKEN_FROM = re.compile(r"[,_(;]\s{0,5}[_(]?<[^<>\s]{1,320}>")
_DOMAIN_NAME = re.compile(r"(?<![\w.@-])(?:[\w-]{2,63}\.){1,4}[a-z]{2,18}(?![\w@-])", re.IGNORECASE)
_REPLY_MARK = re.compile(r"^(?:re|fw|fwd|aw|wg|sv|vs|res|enc|rv|tr|rif|antw)\s?(?:\[\d{1,3}\])?\s?:", re.IGNORECASE)
_VIA = re.compile(r"\b(?:via|on behalf of|through|bei|de la part de)\b", re.IGNORECASE)
_ROLE_WORDS = """
    accounting administrator admin billing bank customer delivery department desk finance helpdesk human invoice
    invoices kundenservice kundendienst lottery manager notification notifications office payroll postmaster promo
    refund resources security service services support team treasury verification webmail winner order orders
    confirmation subscription fatura rechnung facture factura pedido shipping parcel
    """
_ROLES = frozenset(_ROLE_WORDS.split())


def address_in_name(context: ThreatContext) -> Iterator[Finding]:
    """The display name shows an address of another organisation than the one the message is from."""
    for match in _ADDRESS.finditer(context.sender.name[:300]):
        shown = organisation_of(match.group(1))
        if shown and "." in shown and shown != context.sender.organisation and not context.by_list:
            yield finding("sender.address_in_name", f'"{context.sender.name}" <{context.sender.address}>')
            return


def domain_in_name(context: ThreatContext) -> Iterator[Finding]:
    """The display name is (or holds) a domain of another organisation: ``"tax.example" <x@elsewhere.example>``."""
    if context.by_list or not context.sender.domain:
        return
    for match in _DOMAIN_NAME.finditer(_ADDRESS.sub(" ", context.sender.name[:300])):
        shown = match.group().lower()
        _, label, suffix = split_host(shown)
        if not label or not suffix or label == split_host(context.sender.domain)[1] or len(label) < 3:
            continue
        if organisation_of(shown) not in (context.sender.organisation, context.own_organisation):
            yield finding("sender.domain_in_name", f'"{context.sender.name}" from {context.sender.domain}')
            return


def malformed_from(context: ThreatContext) -> Iterator[Finding]:
    """From without any address, or written so that the address falls off the name."""
    field = (context.message.header("From") or "")[:1_000]
    if field and (not context.sender.domain or _BROKEN_FROM.search(_QUOTED.sub("", field))):
        yield finding("sender.malformed_from", f"From: {field}")


def false_reply(context: ThreatContext) -> Iterator[Finding]:
    """ "Re:" on a message that answers nothing (RFC 5322 §3.6.4: a reply names what it replies to)."""
    summary = context.message.summary
    if _REPLY_MARK.match(context.subject) and not summary.in_reply_to and not summary.references:
        yield finding("sender.false_reply", f"Subject: {context.subject}")


def brand_in_name(context: ThreatContext) -> Iterator[Finding]:
    """The display name is a brand's (or holds one), the domain is not. Not said of "Name via Brand" that a list
    writes."""
    name = context.sender.name
    if not name or not context.sender.domain or context.by_list:
        return
    claim = brand_named(_ADDRESS.sub(" ", name[:300]))
    if claim is None or belongs_to(claim.brand, context.sender.domain):
        return
    if _VIA.search(name) and context.authenticated:
        return
    # Companies do send from second domains of theirs; one that carries the name and is authenticated may be such.
    second_domain = context.authenticated and carries_name(claim.brand, context.sender.domain)
    finding_id = "sender.brand_in_name" if claim.whole and not second_domain else "sender.brand_within_name"
    yield finding(finding_id, f'"{name}" ({claim.brand.name}) from {context.sender.domain}')


def own_identity(context: ThreatContext) -> Iterator[Finding]:
    """From is the account's own address or domain without proof, or the display name poses as the domain."""
    if not context.own or context.by_list:
        return
    results = context.authentication
    # A passed DMARC of another name for From means that our own server saw another From: no spoof that we could prove.
    unproven = results.known and not context.authenticated and results.dmarc != "pass"
    if context.sender.address == context.own:
        if unproven:
            yield finding("sender.own_address", f"From: {context.sender.address}, not authenticated")
        return
    if not context.own_organisation:
        return
    if context.sender.organisation == context.own_organisation:
        if unproven:
            yield finding("sender.own_domain", f"From: {context.sender.address}, not authenticated")
        return
    if context.own_organisation in context.sender.name.lower():
        yield finding("sender.own_domain_in_name", f'"{context.sender.name}" <{context.sender.address}>')


def disguised_letters(context: ThreatContext) -> Iterator[Finding]:
    """Display name or subject write a word in mixed alphabets, styled letters, or with invisible characters inside."""
    for where, text in (("From", context.sender.name), ("Subject", context.subject)):
        word = disguised_word(text[:300])
        if word:
            yield finding("sender.disguised_letters", f'{where}: "{word}" reads as "{skeleton(word)}"')
            return


def reply_to(context: ThreatContext) -> Iterator[Finding]:
    """Answers go elsewhere: to a free mailbox of another name (worse), or to another organisation."""
    if context.by_list or not context.sender.organisation:
        return
    for party in context.reply_to:
        if not party.organisation or party.organisation == context.sender.organisation:
            continue
        evidence = f"From {context.sender.address}, Reply-To {party.address}"
        if party.address == context.own:
            continue
        if party.organisation not in FREE_MAIL:
            if party.organisation not in context.relations:
                yield finding("sender.reply_to_differs", evidence)
        elif not _same_person(context, party.address):
            yield finding("sender.reply_to_free_mail", evidence)


def role_on_free_mail(context: ThreatContext) -> Iterator[Finding]:
    """ "Support Team" or "Accounts department" writing from a free mailbox."""
    if context.sender.organisation not in FREE_MAIL or context.by_list:
        return
    words = set(re.split(r"[\W_]+", skeleton(context.sender.name[:200])))
    if words & _ROLES:
        yield finding("sender.role_on_free_mail", f'"{context.sender.name}" <{context.sender.address}>')


def recipient_as_bait(context: ThreatContext) -> Iterator[Finding]:
    """The account's own address stands in the subject or in the sender's display name."""
    if not context.own or context.sender.address == context.own:
        return
    for where, text in (("Subject", context.subject), ("From", context.sender.name)):
        if context.own in text.lower():
            yield finding("sender.recipient_in_name_or_subject", f"{where}: {text}")
            return


def _same_person(context: ThreatContext, address: str) -> bool:
    """Somebody who writes from work and wants answers at home, under the same local part."""
    return address.partition("@")[0] == context.sender.address.partition("@")[0]


DETECTORS = (
    malformed_from,
    false_reply,
    address_in_name,
    domain_in_name,
    brand_in_name,
    own_identity,
    disguised_letters,
    reply_to,
    role_on_free_mail,
    recipient_as_bait,
)
