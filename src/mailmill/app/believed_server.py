"""Whose word on a message's origin an account believes. Pure."""

from __future__ import annotations

from mailmill.imap.providers import lookup
from mailmill.processing.threat.evidence.hosts import organisation_of
from mailmill.settings import AccountSettings


def believed_server(account: AccountSettings) -> str | None:
    """Whose Authentication-Results are believed: as configured, as known of the provider, else any host of the
    organisation that runs the IMAP server (RFC 8601 §5: it removes forged ones at its border).
    """
    host = account.imap.endpoint.host
    organisation = organisation_of(host)
    learned = f"*.{organisation}" if organisation else None
    return account.authserv_id or lookup(host).authserv_id or learned
