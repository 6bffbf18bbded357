"""What ``bench.sides.watched_service`` observes within the service, received here."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self

_WAIT_SECONDS = 30


class Observed:
    """``async with Observed() as observed``: give ``observed.port`` to the side.

    ``lags`` are seconds, in order; `until` waits for an event and gives the moment of its commit.
    """

    def __init__(self) -> None:
        self.lags: list[float] = []
        self._told: dict[str, list[dict[str, Any]]] = {}
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    def count(self, event: str) -> int:
        return len(self._told.get(event, ()))

    def moments(self, event: str) -> dict[tuple[str, int], list[float]]:
        """The monotonic clock at the commits, by account and UID: one each, where nothing is told twice."""
        moments: dict[tuple[str, int], list[float]] = {}
        for said in self._told.get(event, ()):
            moments.setdefault((said["account"], said["uid"]), []).append(said["at"])
        return moments

    async def until(self, event: str, count: int) -> float:
        """The monotonic clock at the commit of the ``count``-th such event; waits for it. Raises TimeoutError."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while self.count(event) < count:
                self._changed.clear()
                await self._changed.wait()
        at: float = self._told[event][count - 1]["at"]
        return at

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            said = json.loads(line)
            if "lags" in said:
                self.lags += said["lags"]
            else:
                self._told.setdefault(said["event"], []).append(said)
                self._changed.set()
        writer.close()
