"""mailmill's client alone: every body of a mailbox through `ImapConnection.fetch_bodies`, under uvloop, nothing stored.

Arguments: host, port, user, password, highest UID.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import uvloop

from mailmill.imap.connection import ConnectionSettings, ImapConnection
from mailmill.model import Credentials, Endpoint, Tls
from mailmill.uid_set import UidSet


async def fetch(host: str, port: str, user: str, password: str, last_uid: str) -> dict[str, float]:
    connection = await ImapConnection.open(Endpoint(host, int(port), Tls.NONE), ConnectionSettings())
    await connection.authenticate(Credentials(user, password))
    await connection.select("INBOX")
    messages = size = 0
    cpu, began = _cpu_seconds(), time.perf_counter()
    async for fetched in connection.fetch_bodies(UidSet.parse(f"1:{last_uid}")):
        messages += 1
        size += len(fetched.body)
    seconds = time.perf_counter() - began
    cpu = _cpu_seconds() - cpu
    await connection.logout()
    return {"seconds": seconds, "cpu_seconds": cpu, "messages": messages, "bytes": size}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    print(json.dumps(uvloop.run(fetch(*sys.argv[1:]))))
