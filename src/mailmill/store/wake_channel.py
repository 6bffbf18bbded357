"""Hints between the processes of one database, by PostgreSQL's LISTEN and NOTIFY.

Laws:

* A hint goes out after the commit, in a transaction of its own: a NOTIFY within would hold a lock over all of the
  database's commits until the data is on disk. At most one in `_QUIET_SECONDS`, however much was committed.
* Through a pooler hints go out, but none comes in: a LISTEN would stay behind on a connection that is others' too.
* Hints may be lost: while there is no connection nothing arrives, so after each connect all hints are given once.
  Whoever waits for one polls as well.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Iterable
from typing import Final

import asyncpg
import structlog

from mailmill.store.postgres_errors import DRIVER_ERRORS
from mailmill.store.postgres_link import Link
from mailmill.store.wakeups import WAKE_NAMES, WakeName, Wakeups

CHANNEL: Final = "mailmill"

_QUIET_SECONDS = 0.02
_PROBE_SECONDS = 30.0
_FIRST_RETRY_SECONDS = 0.2
_LONGEST_RETRY_SECONDS = 10.0
_CLOSE_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class WakeChannel:
    """One connection that listens and tells, held by a task of its own; it comes back by itself."""

    def __init__(self, link: Link, wake: Wakeups) -> None:
        self._link = link
        self._wake = wake
        self._sender = secrets.token_hex(6)
        self._untold: set[WakeName] = set()
        self._stirred = asyncio.Event()
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._run(), name="hints between nodes")

    def tell(self, names: Iterable[WakeName]) -> None:
        """Pass hints to all other processes, soon. Never waits."""
        self._untold.update(names)
        if self._untold:
            self._stirred.set()

    @property
    def connected(self) -> asyncio.Event:
        """Set while hints arrive."""
        return self._connected

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def _run(self) -> None:
        retry_seconds = _FIRST_RETRY_SECONDS
        while True:
            connection = None
            pause = 0.0
            try:
                connection = await self._link.connect()
                connection.add_termination_listener(self._lost)
                if not self._link.pooled:
                    await connection.add_listener(CHANNEL, self._heard)
                    self._connected.set()
                    self._wake.notify()
                while not connection.is_closed():
                    await self._serve(connection)
                    retry_seconds = _FIRST_RETRY_SECONDS
            except Exception as error:  # noqa: BLE001 - the boundary: without hints all wait for their polls
                if not isinstance(error, DRIVER_ERRORS):
                    _log.error("the channel for hints failed in an unforeseen way", error=repr(error))
                # Spread out, or all nodes would knock at once when the server is back.
                pause = retry_seconds * random.uniform(0.5, 1.0)  # noqa: S311
                retry_seconds = min(retry_seconds * 2, _LONGEST_RETRY_SECONDS)
            finally:
                self._connected.clear()
                if connection is not None:
                    await _end(connection)
            await asyncio.sleep(pause)

    async def _serve(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Tell what is to be told; where there is nothing for long, see that the connection still answers."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._stirred.wait()
        except TimeoutError:
            await connection.execute("SELECT 1", timeout=_PROBE_SECONDS)
            return
        if connection.is_closed():
            return  # still stirred: what is untold goes out by the next connection
        self._stirred.clear()
        if not self._untold:
            return
        # Taken out first: a hint that is told meanwhile is about a later commit, and goes out by itself.
        names, self._untold = sorted(self._untold), set()
        try:
            await connection.execute(f"NOTIFY {CHANNEL}, '{self._sender} {' '.join(names)}'", timeout=_PROBE_SECONDS)
        except BaseException:
            self.tell(names)
            raise
        await asyncio.sleep(_QUIET_SECONDS)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        sender, *names = str(payload).split(" ")
        if sender != self._sender:
            self._wake.notify(name for name in WAKE_NAMES if name in names)

    def _lost(self, _connection: object) -> None:
        self._connected.clear()
        self._stirred.set()


async def _end(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    try:
        await connection.close(timeout=_CLOSE_SECONDS)
    except Exception:  # noqa: BLE001 - whatever it says, it is given up
        connection.terminate()
