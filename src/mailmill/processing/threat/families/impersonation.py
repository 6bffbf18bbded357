"""Family ``impersonation``: the message speaks as a brand, and nothing that comes with it is the brand's.

The most general trait of phishing. It needs three things: the message poses as the brand (it does not merely talk of
it), neither its sender nor what is proven of it belongs to the brand, and it asks to act elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.hosts import split_host
from mailmill.processing.threat.evidence.impersonation import belongs_to, carries_name, is_brands_own
from mailmill.processing.threat.evidence.lures import read_lure_text
from mailmill.processing.threat.evidence.posing import Posing, posings
from mailmill.processing.threat.families.language import FAMILY as LANGUAGE
from mailmill.processing.threat.families.language import OF_SERVICES, PHONE, READ_FOR_NUMBERS_CHARS, own_words, told
from mailmill.processing.threat.families.link_services import is_anybodys_page, is_shared_page, is_shortened
from mailmill.processing.threat.knowledge.brands import Brand
from mailmill.processing.threat.knowledge.reference import FREE_MAIL
from mailmill.processing.threat.scoring import finding

MAX_BRANDS = 5
_ASKS_FOR_SECRETS = frozenset({"credential_urgency", "secrets_asked", "sign_in_to_see"})
_KNOWN_FROM = 5  # messages from an address after which a proven sender is no stranger
_PHONE = re.compile(r"(?<![\w.])\+?\(?\d[\d ().-]{8,16}\d(?![\w.])")
_PROGRAM_ADDRESS = re.compile(r"no-?_?reply|ne-?pas-?repondre|postmaster|mailer-daemon|notification", re.IGNORECASE)


def poses_as_brand(context: ThreatContext) -> Iterator[Finding]:
    """It speaks as a brand (greeting, signature, copyright, logo, subject) that it does not come from, and asks to
    act."""
    if context.by_list or not context.sender.domain or _is_known(context):
        return
    found = posings(context.sender.name[:200], context.subject, context.text, context.html.image_texts)[:MAX_BRANDS]
    # Who belongs to one of the brands that he names (a card of a bank by a card's firm) is no impostor of the other.
    if any(_comes_from(context, posing.brand) for posing in found):
        return
    for posing in found:
        if not _asks_to_act(context, posing.brand):
            continue
        if posing.is_plain:
            yield finding("impersonation.poses_as_brand", _evidence(context, posing))
            return
        if posing.is_likely:
            yield finding("impersonation.speaks_as_brand", _evidence(context, posing))
            return


def service_on_free_page(context: ThreatContext) -> Iterator[Finding]:
    """A notice as services send it, and every way out leads to others than the sender, one to a page that nobody
    stands behind. A service takes its users to its own site, so that the sender is proven explains nothing."""
    if context.by_list or context.familiar:
        return
    pages = [url for link in context.followed if not link.hidden for url in link.destinations]
    nobodys = [url for url in pages if is_anybodys_page(url) or is_shortened(url) or is_shared_page(url)]
    if not nobodys or not all(context.is_foreign(url.organisation) for url in pages):
        return
    found = told(context).keys()
    for url in nobodys:
        # Forms and files are shared for work every day; to sign in to see one, or to type a password there, is no work.
        if found & (_ASKS_FOR_SECRETS if is_shared_page(url) else OF_SERVICES | _ASKS_FOR_SECRETS):
            yield finding("impersonation.service_on_free_page", f"from {context.sender.domain}, to {url.host}")
            return


def strangers_note(context: ThreatContext) -> Iterator[Finding]:
    """A service passes on what one of its users wrote: a payment nobody made, and a number to call. The service is
    proven and well known, its user is neither; what it says of fraud at its foot explains nothing."""
    if not context.authenticated or context.by_list or context.sender.organisation in FREE_MAIL:
        return
    read = read_lure_text(LANGUAGE, context.subject, own_words(context))
    evidence = read.told.get("callback")
    if evidence is None or not read.counts.get("strangers_note"):
        return
    number = PHONE.search(context.text[:READ_FOR_NUMBERS_CHARS])
    if number and is_brands_own(context.sender.domain):
        yield finding(
            "impersonation.strangers_note", f"{evidence}, {number.group()}, sent on by {context.sender.domain}"
        )


def _evidence(context: ThreatContext, posing: Posing) -> str:
    signs = ", ".join(sorted(posing.signs))
    return f'as {posing.brand.name} ({signs}: "{posing.shown.strip()[:80]}") from {context.sender.domain}'


def _is_known(context: ThreatContext) -> bool:
    history = context.history
    return context.authenticated and (history.sent > 0 or history.received >= _KNOWN_FROM)


def _comes_from(context: ThreatContext, brand: Brand) -> bool:
    if any(belongs_to(brand, organisation) for organisation in context.relations - FREE_MAIL):
        return True
    sender = context.sender
    if context.own_organisation and belongs_to(brand, context.own_organisation):
        return True
    if sender.organisation in FREE_MAIL:
        # A mailbox there is anybody's, but for what the service itself writes from.
        own = sender.domain != sender.organisation or _PROGRAM_ADDRESS.search(sender.address)
        return bool(own) and belongs_to(brand, sender.domain)
    if belongs_to(brand, sender.domain):
        # Whether that is proven is the question of the family "authentication".
        return True
    # Companies do send from second domains of theirs; one that carries the name and is authenticated may be such.
    return context.authenticated and carries_name(brand, sender.domain)


def _asks_to_act(context: ThreatContext, brand: Brand) -> bool:
    pages = [url.host for link in context.links if not link.hidden for url in link.destinations if url.host]
    foreign = [host for host in pages if split_host(host)[2] and not belongs_to(brand, host)]
    foreign += [host for host in pages if not split_host(host)[2]]
    if foreign:
        # Who is proven and leads to the brand itself for the most part talks of it.
        return not context.authenticated or 2 * len(foreign) > len(pages)
    if context.files:
        return True
    return not pages and _PHONE.search(context.text[:5_000]) is not None


DETECTORS = (poses_as_brand, service_on_free_page, strangers_note)
