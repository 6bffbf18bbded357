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
from mailmill.processing.threat.evidence.impersonation import belongs_to, carries_name
from mailmill.processing.threat.evidence.posing import Posing, posings
from mailmill.processing.threat.knowledge.brands import Brand
from mailmill.processing.threat.knowledge.reference import FREE_MAIL
from mailmill.processing.threat.scoring import finding

MAX_BRANDS = 5
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


DETECTORS = (poses_as_brand,)
