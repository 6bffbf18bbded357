"""What an open connection costs in memory: so many of them logged in and idling, and how much the process grew.

Arguments: host, port, ``implicit`` or ``none``, user, password, CA file, how many.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import uvloop

from mailmill.imap.connection import ConnectionSettings, ImapConnection
from mailmill.model import Credentials, Endpoint, Tls


async def measure(
    host: str, port: str, tls: str, user: str, password: str, ca_file: str, count: str
) -> dict[str, float]:
    kind = Tls(tls)
    endpoint = Endpoint(host, int(port), kind, ca_file=ca_file if kind is Tls.IMPLICIT else None)

    async def idling() -> ImapConnection:
        connection = await ImapConnection.open(endpoint, ConnectionSettings())
        await connection.authenticate(Credentials(user, password))
        await connection.select("INBOX")
        await connection.idle()
        return connection

    # The first one brings what all share: code, codecs, the TLS library and its trusted certificates.
    connections = [await idling()]
    gc.collect()
    before = _resident_bytes()
    for _ in range(int(count)):
        connections.append(await idling())
    gc.collect()
    grown = _resident_bytes() - before
    for connection in connections:
        connection.abort()
    return {"bytes_each": grown / int(count)}


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no VmRSS in /proc/self/status")


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(*sys.argv[1:]))))
