"""Family ``own_rules``: what the user says: block and allow lists, YARA rules.

Laws: a block list needs no proof, for nobody gains by posing as one who is blocked, and it beats the allow list. An
allow list does: it counts where the account's own server proved that From's domain sent the message, for else the
forger is the first who profits from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from mailmill.message_parser import ParsedMessage
from mailmill.message_parser.addresses import parse_addresses
from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.address_list import AddressList
from mailmill.processing.threat.evidence.yara_rules import Piece, YaraRules
from mailmill.processing.threat.scoring import ScoringTable, finding

ALLOWED: Final = "own_rules.allowed_sender"
YARA: Final = "own_rules.yara"

_MAX_SENDER_CHARS: Final = 2_000


def blocked_sender(block: AddressList, context: ThreatContext) -> Iterator[Finding]:
    """From, Sender, Reply-To or Return-Path is on the block list."""
    for field, address in _senders(context):
        entry = block.entry_for(address)
        if entry:
            yield finding("own_rules.blocked_sender", f"{field}: {address} (your list: {entry})")
            return


def blocked_link(block: AddressList, context: ThreatContext) -> Iterator[Finding]:
    """A link leads to a domain on the block list."""
    for host in dict.fromkeys(link.url.host for link in context.links):
        entry = block.entry_for_host(host)
        if entry:
            yield finding("own_rules.blocked_link", f"{host} (your list: {entry})")
            return


def allowed_sender(allow: AddressList, block: AddressList, context: ThreatContext) -> Iterator[Finding]:
    """From is on the allow list; said as well where nothing proves that it is, for whoever wonders."""
    entry = allow.entry_for(context.sender.address)
    if not entry or any(block.entry_for(address) for _, address in _senders(context)):
        return
    evidence = f"{context.sender.address} (your list: {entry})"
    # What readers take for the sender must be what was proven: several From fields or addresses leave that open.
    if context.authenticated and context.from_fields == 1 and len(context.senders) == 1:
        yield finding(ALLOWED, evidence)
    else:
        yield finding("own_rules.allowed_sender_unproven", evidence)


def yara_matches(rules: YaraRules, table: ScoringTable, context: ThreatContext) -> Iterator[Finding]:
    """Every YARA rule that matches the message, its visible text, or a decoded attachment."""
    scanned = rules.scan(_pieces(context))
    for match in scanned.matches:
        where = f"attachment {match.piece.filename}" if match.piece.part == "attachment" else match.piece.part
        evidence = f"rule {match.rule} in {where}" + (f" ({match.pattern})" if match.pattern else "")
        yield finding(f"{YARA}.{match.rule}", evidence, table)
    if scanned.unfinished:
        yield finding("own_rules.yara_unfinished", scanned.unfinished)


def list_detectors(allow: AddressList, block: AddressList) -> tuple[Callable[[ThreatContext], Iterator[Finding]], ...]:
    """The detectors for these lists; none for empty ones."""
    for_block = (partial(blocked_sender, block), partial(blocked_link, block)) if block else ()
    return (*for_block, partial(allowed_sender, allow, block)) if allow else for_block


def as_text(message: ParsedMessage) -> bytes:
    """A message without its raw bytes as rules look at it: the decoded header, the plain text, the HTML as written."""
    header = "\n".join(f"{name}: {value}" for name, value in message.headers)
    return "\n\n".join(filter(None, (header, message.text_plain, message.text_html))).encode("utf-8", "replace")


def _pieces(context: ThreatContext) -> Iterator[Piece]:
    message = context.message
    yield Piece("message", "", message.raw or as_text(message))
    yield Piece("text", "", f"{context.subject}\n\n{context.text}".encode("utf-8", "replace"))
    for attachment in message.attachments:
        yield Piece("attachment", attachment.filename[:500], attachment.content)


def _senders(context: ThreatContext) -> Iterator[tuple[str, str]]:
    for party in context.senders:
        yield "From", party.address
    for address in parse_addresses((context.message.header("Sender") or "")[:_MAX_SENDER_CHARS]):
        yield "Sender", address.address.lower()
    for party in context.reply_to:
        yield "Reply-To", party.address
    if context.return_path.address:
        yield "Return-Path", context.return_path.address
