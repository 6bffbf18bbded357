"""A server that is 20 ms away: the tests' proxy, which delays each way, and a TCP handshake that takes its round trip.

A local proxy accepts at once, where a distant server's answer to SYN takes a round trip: so long it waits before it
begins to forward.
"""

from __future__ import annotations

import asyncio

from servers.proxy import Proxy


class DistantServer(Proxy):
    """``async with DistantServer(host, port, round_trip_seconds=0.02) as server``: connect to ``server.port``."""

    def __init__(self, host: str, port: int, *, round_trip_seconds: float) -> None:
        super().__init__(host, port)
        self.delay_seconds = round_trip_seconds / 2

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * self.delay_seconds)
        await super()._accept(reader, writer)
