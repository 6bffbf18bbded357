"""Single-message fetches by mailmill's client: with a connection each, or through its pool.

Arguments: ``each``, ``pool`` or ``together``, host, port, user, password, CA file, how many. One after another, each of
another UID, but for ``together``: all asked for at once, of a pool of its default size. Opening the pool's connections
is part of the time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from mailmill.imap.connection import ConnectionSettings, ImapConnection
from mailmill.imap.pool import Pool
from mailmill.model import Credentials, Endpoint, Tls
from mailmill.uid_set import UidSet


async def measure(
    way: str, host: str, port: str, user: str, password: str, ca_file: str, count: str
) -> dict[str, float]:
    endpoint = Endpoint(host, int(port), Tls.IMPLICIT, ca_file=ca_file)
    round_trips = size = connections = 0

    async def connect() -> ImapConnection:
        nonlocal connections
        connection = await ImapConnection.open(endpoint, ConnectionSettings())
        await connection.authenticate(Credentials(user, password))
        connections += 1
        return connection

    async def fetch(connection: ImapConnection, uid: int) -> None:
        nonlocal size
        if connection.selected is None:
            await connection.select("INBOX")
        async for fetched in connection.fetch_bodies(UidSet([uid])):
            size += len(fetched.body)

    began = time.perf_counter()
    if way == "together":
        pool = Pool(connect)

        async def one(uid: int) -> None:
            async with pool.lease("INBOX") as leased:
                await fetch(leased, uid)

        await asyncio.gather(*(one(uid) for uid in range(1, int(count) + 1)))
        seconds = time.perf_counter() - began
        await pool.close()
    elif way == "pool":
        pool = Pool(connect)
        for uid in range(1, int(count) + 1):
            async with pool.lease("INBOX") as connection:
                await fetch(connection, uid)
        seconds = time.perf_counter() - began
        round_trips = connection.round_trips
        await pool.close()
    else:
        for uid in range(1, int(count) + 1):
            connection = await connect()
            await fetch(connection, uid)
            await connection.logout()
            round_trips += connection.round_trips
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "bytes": size, "connections": connections, "round_trips": round_trips}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(*sys.argv[1:]))))
