"""What forwarders before our own server saw of a message: the Authenticated Received Chain (RFC 8617).

Law: only a chain that our own server found whole (``arc=pass``) is looked at, from its last seal back, and only as long
as the sealers are ones we know; who forwards can also change what it forwards. So ARC may explain why DMARC failed
behind a forwarder, and never proves a message.
"""

from __future__ import annotations

import re

from mailmill.message_parser import ParsedMessage
from mailmill.processing.threat.evidence.hosts import clean_host, organisation_of

MAX_INSTANCES = 50
"""RFC 8617 §4.2.1."""

KNOWN_SEALERS = frozenset({
    "google.com", "gmail.com", "microsoft.com", "outlook.com", "office365.com", "yahoo.com", "yahoodns.net",
    "icloud.com", "apple.com", "fastmail.com", "messagingengine.com", "proton.me", "protonmail.ch", "zoho.com",
    "zohomail.com", "forwardemail.net", "simplelogin.co", "improvmx.com", "cloudflare-email.net", "mailgun.org",
    "amazonses.com", "mimecast.com", "pphosted.com", "ietf.org", "kernel.org", "debian.org", "python.org",
    "googlegroups.com", "groups.io", "gandi.net", "mailbox.org", "posteo.de",
})  # fmt: skip
"""Organisational domains of services that forward mail of others, and do not let their users forge what they saw."""

_TAG = re.compile(r"(?:^|;)\s{0,100}([a-z]{1,3})\s{0,10}=\s{0,10}([^;]{0,300})", re.IGNORECASE)
_INSTANCE = re.compile(r"^\s{0,100}i\s{0,10}=\s{0,10}(\d{1,2})\s{0,10};")


def sealed_results(message: ParsedMessage) -> tuple[str, ...]:
    """The ARC-Authentication-Results of the known sealers at the end of the chain, the last first, without ``i=``."""
    sealers = _by_instance(message.header_all("ARC-Seal"))
    seen = _by_instance(message.header_all("ARC-Authentication-Results"))
    if not sealers or sorted(sealers) != list(range(1, len(sealers) + 1)):
        return ()
    believed = []
    for instance in range(len(sealers), 0, -1):
        tags = {name.lower(): value.strip() for name, value in _TAG.findall(sealers[instance])}
        if organisation_of(clean_host(tags.get("d", ""))) not in KNOWN_SEALERS or instance not in seen:
            break
        believed.append(_INSTANCE.sub("", seen[instance]))
    return tuple(believed)


def _by_instance(fields: tuple[str, ...]) -> dict[int, str]:
    """Instance → field; none where two have the same (RFC 8617 §5.2)."""
    found: dict[int, str] = {}
    for field in fields[: MAX_INSTANCES + 1]:
        text = field[:8_000]
        tags = {name.lower(): value.strip() for name, value in _TAG.findall(text)}
        number = tags.get("i", "")
        if not number.isascii() or not number.isdigit() or int(number[:3]) in found:
            return {}
        found[int(number[:3])] = text
    return found if len(found) <= MAX_INSTANCES else {}
