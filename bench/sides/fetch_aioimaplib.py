"""aioimaplib: the same bodies by ``uid('fetch', …)``, under uvloop too. Runs in the peers' environment, never in ours.

Arguments: host, port, user, password, highest UID, messages for each command. Seen: batches of 20 to 100 are its best;
one command for all is several times slower (its buffer is cut anew for each message).
"""

from __future__ import annotations

import json
import resource
import sys
import time

import uvloop
from aioimaplib import aioimaplib


async def fetch(host: str, port: str, user: str, password: str, last_uid: str, batch: str) -> dict[str, float]:
    client = aioimaplib.IMAP4(host=host, port=int(port), timeout=120)
    await client.wait_hello_from_server()
    await client.login(user, password)
    await client.select("INBOX")
    messages = size = 0
    cpu, began = _cpu_seconds(), time.perf_counter()
    for first in range(1, int(last_uid) + 1, int(batch)):
        last = min(first + int(batch) - 1, int(last_uid))
        status, lines = await client.uid("fetch", f"{first}:{last}", "(UID BODY.PEEK[])")
        if status != "OK":
            raise SystemExit(f"aioimaplib: {status}")
        for line in lines:
            if isinstance(line, bytearray):  # a literal; what else the server said is bytes
                messages += 1
                size += len(line)
    seconds = time.perf_counter() - began
    cpu = _cpu_seconds() - cpu
    await client.logout()
    return {"seconds": seconds, "cpu_seconds": cpu, "messages": messages, "bytes": size}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    print(json.dumps(uvloop.run(fetch(*sys.argv[1:]))))
