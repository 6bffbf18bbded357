"""Family ``sender``, the part on the account's correspondence: strangers, and those who pose as its correspondents.

What is said of absence ("has never written") is said only where the account's history is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import Party, ThreatContext
from mailmill.processing.threat.evidence.hosts import clean_host, mail_domain, organisation_of
from mailmill.processing.threat.evidence.impersonation import imitates
from mailmill.processing.threat.evidence.names import person_of
from mailmill.processing.threat.evidence.near_domains import first_like
from mailmill.processing.threat.knowledge.reference import FREE_MAIL
from mailmill.processing.threat.scoring import finding

MIN_ACCOUNT_MESSAGES = 50
"""Mail that an account must have had before a stranger is worth a word: to a new one everybody is."""

MAX_CORRESPONDENTS = 2_000

_TAKEN_OVER = "sender.thread_taken_over"
_BULK_FIELDS = ("List-Id", "List-Unsubscribe", "Auto-Submitted", "Precedence")


def first_time(context: ThreatContext) -> Iterator[Finding]:
    """Nobody of this address or organisation ever wrote or was written to. Little by itself."""
    history = context.history
    if not history.known or history.account_messages < MIN_ACCOUNT_MESSAGES or not context.sender.domain:
        return
    if _is_stranger(context) and not history.organisation_received and not _is_party(context):
        yield finding("sender.first_time", f"{context.sender.address} has not written before")


def taken_over(context: ThreatContext) -> Iterator[Finding]:
    """The message answers a thread that is here, and comes from nobody who was in it.

    Worst where the address passes for one that was; bad where the name is that of a party. That a stranger joins is
    told only of mail that a person could have written: help desks and auto-responders do it for good reasons.
    """
    parties = context.history.thread
    if not parties or not context.sender.domain or not _is_stranger(context) or context.by_list:
        return
    if _is_party(context):
        return
    sender = context.sender
    like = _like(sender, {organisation_of(mail_domain(party.address)) for party in parties} - FREE_MAIL)
    if like:
        yield finding(_TAKEN_OVER, f"{sender.address} answers a thread with {like}")
        return
    person = person_of(sender.name)
    if person and any(person_of(party.name) == person for party in parties):
        yield finding("sender.thread_other_address", f'"{sender.name}" answers from {sender.address}')
    elif not any(context.message.header(field) for field in _BULK_FIELDS):
        yield finding("sender.thread_joined", f"{sender.address} was not in the thread it answers")


def correspondent_lookalike(context: ThreatContext) -> Iterator[Finding]:
    """The sender's domain, or that of answers, passes for one that the account has written to, or knows of the name;
    not where a thread taken over tells it."""
    history = context.history
    written = [*history.correspondents[:MAX_CORRESPONDENTS], *map(mail_domain, history.name_addresses)]
    written += [mail_domain(party.address) for party in history.thread]
    known = {organisation_of(clean_host(domain)) for domain in written} - FREE_MAIL
    if not known:
        return
    told = any(one.id == _TAKEN_OVER for one in taken_over(context))
    for party in (context.sender, *context.reply_to):
        if not party.organisation or party.organisation in known or party.organisation in FREE_MAIL:
            continue
        if party is context.sender and (told or not _is_stranger(context) or history.organisation_received):
            continue
        like = _like(party, known - context.own_domains)
        if like:
            yield finding("sender.correspondent_lookalike", f"{party.address} is not of {like}")
            return


def _like(party: Party, organisations: Iterable[str]) -> str:
    """The organisation that the domain of a party passes for, or imitates; ""."""
    known = sorted(filter(None, organisations))
    return first_like(party.organisation, known) or next((one for one in known if imitates(party.domain, one)), "")


def _is_stranger(context: ThreatContext) -> bool:
    history = context.history
    own = context.sender.address == context.own or context.sender.organisation in context.own_domains
    return not own and not history.received and not history.sent


def _is_party(context: ThreatContext) -> bool:
    """Whether the sender, or at work a colleague, is in the thread."""
    sender = context.sender
    for party in context.history.thread:
        if party.address.strip().lower() == sender.address:
            return True
        organisation = organisation_of(mail_domain(party.address))
        if organisation and organisation == sender.organisation and organisation not in FREE_MAIL:
            return True
    return False


DETECTORS = (first_time, taken_over, correspondent_lookalike)
