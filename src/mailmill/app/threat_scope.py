"""What a scan of files goes by: the command line first, then the configuration. Reads the files that this names."""

from __future__ import annotations

from mailmill.app.believed_server import believed_server
from mailmill.app.threat_options import threat_options
from mailmill.app.threat_scanner import Scope
from mailmill.imap.providers import lookup
from mailmill.settings import Settings


def scope_of(settings: Settings, own_address: str | None, authserv_id: str | None) -> Scope:
    """What to go by, as told on the command line, else as configured.

    The address that is not told is that of the only account, if there is one account. The authserv-id that is not told
    is the one that the service believes for the account of this address, else that of the big provider it is at.
    """
    names = {account.address.lower(): name for name, account in settings.accounts.items() if account.address}
    own = own_address or (next(iter(names)) if len(names) == 1 else "")
    name = names.get(own.lower(), "")
    if authserv_id is None and name:
        authserv_id = believed_server(settings.accounts[name])
    if authserv_id is None and "@" in own:
        authserv_id = lookup(own.rpartition("@")[2]).authserv_id
    return Scope(own, authserv_id, name, threat_options(settings))
