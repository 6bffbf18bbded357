"""Whose word on a message's origin an account believes. Pure."""

from __future__ import annotations

import ipaddress

from mailmill.imap.providers import lookup
from mailmill.processing.threat.evidence.hosts import organisation_of
from mailmill.settings import AccountSettings

# RFC 6761 §6.3, RFC 6762 §3, RFC 8375, what ICANN keeps for private use, and what routers use without asking.
_OF_NO_ONE = frozenset(("arpa", "home", "internal", "lan", "local", "localdomain", "localhost"))


def believed_server(account: AccountSettings) -> str | None:
    """Whose Authentication-Results are believed: as configured, as known of the provider, else any host of the
    organisation that runs the IMAP server (RFC 8601 §5: it removes forged ones at its border).

    An IP address names no organisation, nor does a bare name or one that every network may use for itself
    (``localhost.localdomain``, ``mail.lan``): anybody could pass for one of its hosts.
    """
    host = account.imap.endpoint.host
    return account.authserv_id or lookup(host).authserv_id or _learned(host)


def _learned(host: str) -> str | None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        organisation = organisation_of(host)
        name, _, last = organisation.rpartition(".")
        # The C library takes 127.1 and 0x7f.1 for addresses.
        return f"*.{organisation}" if name and last not in _OF_NO_ONE and not last[:1].isdigit() else None
    return None
