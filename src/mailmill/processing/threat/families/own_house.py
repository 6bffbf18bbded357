"""Family ``sender``, the part on the account's own house: its address, its domain, the people it knows by name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.hosts import mail_domain, organisation_of
from mailmill.processing.threat.evidence.names import person_of
from mailmill.processing.threat.evidence.near_domains import first_like
from mailmill.processing.threat.knowledge.reference import FREE_MAIL
from mailmill.processing.threat.scoring import finding

# A name that so many addresses write under is no person's, or that of a person with many mailboxes.
_MAX_ADDRESSES_OF_ONE = 3
_MAX_NAME_CHARS = 300


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
    if context.sender.organisation in context.own_domains:
        if unproven:
            yield finding("sender.own_domain", f"From: {context.sender.address}, not authenticated")
        return
    name = context.sender.name[:_MAX_NAME_CHARS].lower()
    if any(re.search(rf"(?<!\w){re.escape(domain)}(?!\w)", name) for domain in context.own_domains):
        yield finding("sender.own_domain_in_name", f'"{context.sender.name}" <{context.sender.address}>')


def own_domain_lookalike(context: ThreatContext) -> Iterator[Finding]:
    """The sender's domain, or that of answers, passes for the account's own."""
    for party in (context.sender, *context.reply_to):
        if not party.organisation or party.organisation in context.own_domains or party.organisation in FREE_MAIL:
            continue
        own = first_like(party.organisation, sorted(context.own_domains))
        if own:
            yield finding("sender.own_domain_lookalike", f"{party.address} is not of {own}")
            return


def own_person(context: ThreatContext) -> Iterator[Finding]:
    """The display name is that of one of the account's own people, as configured; the address is none of theirs."""
    person = person_of(context.sender.name)
    if not person or context.by_list or context.sender.address == context.own or not context.sender.domain:
        return
    theirs = [one for one in context.people if person_of(one.name) == person]
    if not theirs or context.sender.organisation in context.own_domains:
        return
    if context.sender.address not in {one.address.strip().lower() for one in theirs}:
        yield finding("sender.own_person", f'"{context.sender.name}" <{context.sender.address}>')


def known_name(context: ThreatContext) -> Iterator[Finding]:
    """Somebody unknown writes under the name of somebody known.

    Said of people alone, and worse of those that the account writes to, or that are of its own house.
    """
    history, own = context.history, context.sender
    others = history.name_addresses
    if not others or len(others) > _MAX_ADDRESSES_OF_ONE or not person_of(own.name):
        return
    if context.by_list or own.address == context.own or history.received or history.sent:
        return
    houses = {organisation_of(mail_domain(other)) for other in others}
    if own.organisation in context.own_domains or (own.organisation in houses and own.organisation not in FREE_MAIL):
        return
    close = history.name_sent > 0 or not houses.isdisjoint(context.own_domains)
    evidence = f'"{own.name}" <{own.address}>, known as {others[0]}'
    yield finding("sender.correspondents_name" if close else "sender.known_name", evidence)


DETECTORS = (own_identity, own_domain_lookalike, own_person, known_name)
