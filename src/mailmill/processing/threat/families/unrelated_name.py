"""Family ``sender``, the part on strangers whose name has nothing to do with their address.

People and companies write from addresses that carry something of their name; whoever sends from what is at hand, a
mailbox that was taken over or a domain of this week, puts a name of his choice before it. Authentication does not speak
against it: the domain is proven, the name is not. Acquaintance does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailmill.model import Finding
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.hosts import parse_url, split_host
from mailmill.processing.threat.evidence.name_in_address import MAX_CHARS, in_common
from mailmill.processing.threat.evidence.names import is_kin
from mailmill.processing.threat.knowledge.reference import FREE_MAIL
from mailmill.processing.threat.scoring import finding

MAX_READ_CHARS = 20_000
MAX_PICTURES = 50

_SHORTEST_LABEL = 5
_LETTERS_AND_DIGITS = re.compile(r"[^\W_]+")
_ADDRESS_OR_DOMAIN = re.compile(r"@|[^\W_]\.[a-z]{2,10}\b", re.IGNORECASE)


def unrelated_name(context: ThreatContext) -> Iterator[Finding]:
    """The name shares nothing with the address; worse where all links lead to others than the sender, too, and nothing
    in the message is the sender's own."""
    sender, history = context.sender, context.history
    if not sender.domain or history.received or history.sent or in_common(sender.name, sender.address) is not False:
        return
    # Members of a list write under names that their address need not carry, and end with links to their own pages.
    if context.by_list or "<mailto:" in (context.message.header("List-Post") or "")[:1_000].lower():
        return
    if context.relays_members or is_kin(sender.name):
        return
    if _ADDRESS_OR_DOMAIN.search(sender.name[:MAX_CHARS]):  # said by others, and worse
        return
    evidence = f'"{sender.name}" writes from {sender.address}'
    led_to = {link.organisation for link in context.links if link.url.host and link.organisation}
    answers = bool(context.message.summary.in_reply_to)
    elsewhere = bool(led_to) and all(context.is_foreign(organisation) for organisation in led_to)
    if elsewhere and not answers and not _bears_its_senders_name(context):
        yield finding("sender.unrelated_to_all", f"{evidence}, and all links lead to {', '.join(sorted(led_to)[:3])}")
    else:
        yield finding("sender.unrelated_name", evidence)


def _bears_its_senders_name(context: ThreatContext) -> bool:
    """The sender's domain is named in the text, or its pictures are shown: mailing services put their own address
    behind every link of honest newsletters, and strangers in a mailbox that they took over do not speak of its
    owner."""
    organisation = context.sender.organisation
    if organisation in FREE_MAIL or organisation in context.own_domains:
        return False
    label = "".join(_LETTERS_AND_DIGITS.findall(split_host(organisation)[1]))
    read = f"{context.text[:MAX_READ_CHARS]} {context.message.text_plain[:MAX_READ_CHARS]}".lower()
    if len(label) >= _SHORTEST_LABEL and label in "".join(_LETTERS_AND_DIGITS.findall(read)):
        return True
    shown = (parse_url(source) for source in context.html.image_sources[:MAX_PICTURES])
    return any(url is not None and url.organisation == organisation for url in shown)


DETECTORS = (unrelated_name,)
