"""The configuration of a node under fire: its accounts on one mail server, the trivial processors, one webhook."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from chaos.node import Node
from servers.dovecot import Dovecot

DESTINATION = "hook"
MASTER_KEY = base64.urlsafe_b64encode(bytes(32)).decode()
_SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


def configure(
    node: Node, dovecot: Dovecot, accounts: Mapping[str, str], receiver_url: str, **service: str | float
) -> None:
    """Write ``node.config``. ``accounts``: name → user of ``dovecot``; ``service``: further keys of ``[service]``."""
    own = "".join(f"{key} = {json.dumps(value)}\n" for key, value in service.items())
    there = "".join(
        f"""
[accounts.{account}]
email = "{account}@example.org"
username = "{user}"
password = "{dovecot.password}"
imap = {{ host = "{dovecot.host}", port = {dovecot.port}, tls = "none" }}
"""
        for account, user in accounts.items()
    )
    node.config.write_text(
        f"""
[service]
data_dir = "{node.name}"
{own}listen = "127.0.0.1:0"
log_format = "json"
poll_interval_seconds = 2
sweep_interval_seconds = 1
verify_interval_seconds = 0
[processors]
enabled = []
import = ["chaos.trivial_processors"]
[destinations.{DESTINATION}]
kind = "webhook"
url = "{receiver_url}"
secret = "{_SECRET}"
allow_private = true
{there}
"""
    )
    node.config.chmod(0o600)
