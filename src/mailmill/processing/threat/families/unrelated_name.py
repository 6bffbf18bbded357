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
from mailmill.processing.threat.evidence.name_in_address import MAX_CHARS, in_common
from mailmill.processing.threat.scoring import finding

_ADDRESS_OR_DOMAIN = re.compile(r"@|[^\W_]\.[a-z]{2,10}\b", re.IGNORECASE)


def unrelated_name(context: ThreatContext) -> Iterator[Finding]:
    """The name shares nothing with the address; worse where all links lead to others than the sender, too."""
    sender, history = context.sender, context.history
    if not sender.domain or history.received or history.sent or in_common(sender.name, sender.address) is not False:
        return
    # Members of a list write under names that their address need not carry, and end with links to their own pages.
    if context.by_list or "<mailto:" in (context.message.header("List-Post") or "")[:1_000].lower():
        return
    if _ADDRESS_OR_DOMAIN.search(sender.name[:MAX_CHARS]):  # said by others, and worse
        return
    evidence = f'"{sender.name}" writes from {sender.address}'
    led_to = {link.organisation for link in context.links if link.url.host and link.organisation}
    answers = bool(context.message.summary.in_reply_to)
    if led_to and not answers and all(context.is_foreign(organisation) for organisation in led_to):
        yield finding("sender.unrelated_to_all", f"{evidence}, and all links lead to {', '.join(sorted(led_to)[:3])}")
    else:
        yield finding("sender.unrelated_name", evidence)


DETECTORS = (unrelated_name,)
