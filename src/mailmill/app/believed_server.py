"""Whose word on a message's origin an account believes. Pure."""

from __future__ import annotations

import ipaddress

from mailmill.imap.providers import lookup
from mailmill.processing.threat.evidence.hosts import organisation_of
from mailmill.settings import AccountSettings


def believed_server(account: AccountSettings) -> str | None:
    """Whose Authentication-Results are believed: as configured, as known of the provider, else any host of the
    organisation that runs the IMAP server (RFC 8601 §5: it removes forged ones at its border). An IP address or a bare
    name (``localhost``, behind a tunnel) names no organisation: anybody could pass for one of its hosts.
    """
    host = account.imap.endpoint.host
    return account.authserv_id or lookup(host).authserv_id or _learned(host)


def _learned(host: str) -> str | None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        organisation = organisation_of(host)
        return f"*.{organisation}" if "." in organisation else None
    return None
