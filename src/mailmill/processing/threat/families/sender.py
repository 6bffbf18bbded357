"""Family ``sender``: who the message says it is from, against whom it is from."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.brand_index import owner_of
from mailmill.processing.threat.evidence.hosts import organisation_of, split_host, state_suffix
from mailmill.processing.threat.evidence.impersonation import belongs_to, brand_named, carries_name
from mailmill.processing.threat.evidence.lookalike import disguised_word, skeleton
from mailmill.processing.threat.evidence.names import role_in
from mailmill.processing.threat.evidence.near_domains import passes_for
from mailmill.processing.threat.families import correspondence, own_house, unrelated_name
from mailmill.processing.threat.knowledge.reference import FREE_MAIL
from mailmill.processing.threat.scoring import finding

_QUOTED = re.compile(r'"[^"]{0,500}"')
_ADDRESS = re.compile(r"[\w.+%-]{1,64}@([\w-]{1,63}(?:\.[\w-]{1,63}){1,8})")
# "Name, <a@b>", "Name,_<a@b>", "Name(<a@b>)": no mail program writes these, and readers see the name alone.
_BROKEN_FROM = re.compile(r"[,_(;]\s{0,5}[_(]?<[^<>\s]{1,320}>")
_DOMAIN_NAME = re.compile(r"(?<![\w.@-])(?:[\w-]{2,63}\.){1,4}[a-z]{2,18}(?![\w@-])", re.IGNORECASE)
_REPLY_MARK = re.compile(r"^(?:re|fw|fwd|aw|wg|sv|vs|res|enc|rv|tr|rif|antw)\s?(?:\[\d{1,3}\])?\s?:", re.IGNORECASE)
_VIA = re.compile(r"\b(?:via|on behalf of|through|bei|de la part de)\b", re.IGNORECASE)
# Exchange Online names its reports of what it could not deliver after Outlook, in every customer's domain.
_EXCHANGE_REPORT = re.compile(r"microsoftexchange[0-9a-f]{32}@")
# Right-to-left and left-to-right overrides: no name needs them, isolates and marks are for honest mixed text.
_OVERRIDES = re.compile("[\u202d\u202e]")
_PADDING = re.compile("[\\s\u00a0\u00ad\u180e\u2000-\u200f\u2028\u2029\u205f\u2060\u2800\u3000\u3164\ufeff.]{16,}")
_FORWARD_MARK = re.compile(r"^(?:fw|fwd|wg|vs|tr|rv|enc|i)\s?(?:\[\d{1,3}\])?\s?:", re.IGNORECASE)
_FORWARDED = re.compile(
    r"^[>\s*]{0,8}(?:[-_=]{5,}|(?:From|Von|De|Da|Van|Fr[aå]n?|Od)\s?:\*?\s?\S)", re.MULTILINE | re.IGNORECASE
)
_UNDISCLOSED = re.compile(r"undisclosed|unlisted|recipient list not shown", re.IGNORECASE)


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
        if organisation_of(shown) in (context.sender.organisation, context.own_organisation):
            continue
        if not _is_of_one_house(shown, context.sender.domain):
            yield finding("sender.domain_in_name", f'"{context.sender.name}" from {context.sender.domain}')
            return


def malformed_from(context: ThreatContext) -> Iterator[Finding]:
    """From without any address, or written so that the address falls off the name."""
    field = (context.message.header("From") or "")[:1_000]
    if field and (not context.sender.domain or _BROKEN_FROM.search(_QUOTED.sub("", field))):
        yield finding("sender.malformed_from", f"From: {field}")


def false_reply(context: ThreatContext) -> Iterator[Finding]:
    """ "Re:" on a message that answers nothing (RFC 5322 §3.6.4: a reply names what it replies to), "Fwd:" on one that
    forwards nothing."""
    summary = context.message.summary
    if not _REPLY_MARK.match(context.subject) or summary.in_reply_to or summary.references:
        return
    if not (_FORWARD_MARK.match(context.subject) and _forwards(context)):
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
    if context.authenticated and _EXCHANGE_REPORT.match(context.sender.address):
        return
    # Companies do send from second domains of theirs; one that carries the name and is authenticated may be such.
    second_domain = context.authenticated and carries_name(claim.brand, context.sender.domain)
    finding_id = "sender.brand_in_name" if claim.whole and not second_domain else "sender.brand_within_name"
    yield finding(finding_id, f'"{name}" ({claim.brand.name}) from {context.sender.domain}')


def disguised_letters(context: ThreatContext) -> Iterator[Finding]:
    """Display name or subject write a word in mixed alphabets, styled letters, or with invisible characters inside."""
    for where, text in (("From", context.sender.name), ("Subject", context.subject)):
        word = disguised_word(text[:300])
        if word:
            yield finding("sender.disguised_letters", f'{where}: "{word}" reads as "{skeleton(word)}"')
            return


def reply_to(context: ThreatContext) -> Iterator[Finding]:
    """Answers go elsewhere: to a domain that passes for the sender's (worst), to a free mailbox of another name, or to
    another organisation."""
    if context.by_list or not context.sender.organisation:
        return
    for party in context.reply_to:
        if not party.organisation or party.organisation == context.sender.organisation:
            continue
        evidence = f"From {context.sender.address}, Reply-To {party.address}"
        if party.address == context.own:
            continue
        if passes_for(party.organisation, context.sender.organisation):
            yield finding("sender.reply_to_lookalike", evidence)
        elif party.organisation not in FREE_MAIL:
            if party.organisation not in context.relations:
                yield finding("sender.reply_to_differs", evidence)
        elif not _same_person(context, party.address):
            yield finding("sender.reply_to_free_mail", evidence)


def role_on_free_mail(context: ThreatContext) -> Iterator[Finding]:
    """ "Support Team" or "Accounts department" writing from a free mailbox."""
    if context.sender.organisation in FREE_MAIL and not context.by_list and role_in(context.sender.name):
        yield finding("sender.role_on_free_mail", f'"{context.sender.name}" <{context.sender.address}>')


def recipient_as_bait(context: ThreatContext) -> Iterator[Finding]:
    """The account's own address stands in the subject or in the sender's display name."""
    if not context.own or context.sender.address == context.own:
        return
    for where, text in (("Subject", context.subject), ("From", context.sender.name)):
        if context.own in text.lower():
            yield finding("sender.recipient_in_name_or_subject", f"{where}: {text}")
            return


def hidden_name(context: ThreatContext) -> Iterator[Finding]:
    """The display name is written backwards, or padded so that the address falls out of sight."""
    field = (context.message.header("From") or "")[:2_000]
    if _OVERRIDES.search(field) or _OVERRIDES.search(context.subject):
        yield finding("sender.direction_override", f"From: {field}")
    if _PADDING.search(field.partition("<")[0]):
        yield finding("sender.padded_name", f"From: {field}")


def not_addressed(context: ThreatContext) -> Iterator[Finding]:
    """The account stands in neither To nor Cc, and no list or newsletter explains it; or the sender writes to himself.

    Said only where To and Cc are few enough to have been read whole.
    """
    message = context.message
    if not context.own or context.by_list or context.sender.address == context.own:
        return
    if any(message.header(field) is not None for field in ("List-Id", "List-Unsubscribe", "List-Post")):
        return
    recipients = message.summary.to + message.summary.cc
    addresses = {one.address.strip().lower() for one in recipients}
    if addresses == {context.sender.address}:
        yield finding("sender.addressed_to_itself", f"From and To: {context.sender.address}")
    elif not any("@" in address for address in addresses) and _UNDISCLOSED.search((message.header("To") or "")[:500]):
        yield finding("sender.undisclosed_recipients", f"To: {message.header('To')}")


def _forwards(context: ThreatContext) -> bool:
    """A message that is attached, or quoted under its header lines."""
    if any(file.content_type == "message/rfc822" for file in context.message.attachments):
        return True
    return _FORWARDED.search(context.text[:20_000]) is not None


def _is_of_one_house(shown: str, domain: str) -> bool:
    """Two domains of one state, or of one company that we know."""
    state = state_suffix(shown)
    if state and state == state_suffix(domain):
        return True
    brand = owner_of(shown)
    return brand is not None and belongs_to(brand, domain)


def _same_person(context: ThreatContext, address: str) -> bool:
    """Somebody who writes from work and wants answers at home, under the same local part."""
    return address.partition("@")[0] == context.sender.address.partition("@")[0]


DETECTORS = (
    malformed_from,
    false_reply,
    address_in_name,
    domain_in_name,
    brand_in_name,
    disguised_letters,
    hidden_name,
    reply_to,
    role_on_free_mail,
    recipient_as_bait,
    not_addressed,
    *own_house.DETECTORS,
    *unrelated_name.DETECTORS,
    *correspondence.DETECTORS,
)
