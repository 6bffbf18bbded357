"""How `verify` reaches an account: through its own task where that runs, by connections of its own where none does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from mailmill.imap.connection import ImapConnection
from mailmill.imap.pool import Pool, PoolSettings
from mailmill.sync.account_sync import AccountSync
from mailmill.sync.report import PassReport
from mailmill.sync.verify import Lease


class RunningDoors:
    """An account that its task keeps in sync. Looks lease from its pool, beside the connection that watches.

    ``connect`` serves an account whose pool holds that one alone: a connection more than the pool's for the length of a
    look, as ``account check`` opens one.
    """

    def __init__(self, sync: AccountSync, connect: Callable[[], Awaitable[ImapConnection]], *, pool_size: int) -> None:
        self._sync = sync
        self._connect = connect
        self._shared = pool_size > 1

    @asynccontextmanager
    async def connections(self) -> AsyncIterator[Lease]:
        if self._shared:
            yield self._sync.lease
        else:
            async with _one_connection(self._connect) as lease:
                yield lease

    async def sync_pass(self, first: Callable[[], Awaitable[None]] | None = None) -> PassReport:
        return await self._sync.sync_now(first)


class OwnDoors:
    """An account whose task does not run: a command without a service. One connection at a time.

    Its passes leave requests alone: who asks what is stored has not asked for changes of mail, and the store may be a
    restored copy, whose requests the store that it was copied from carries out, or has.
    """

    def __init__(self, sync: AccountSync, connect: Callable[[], Awaitable[ImapConnection]]) -> None:
        self._sync = sync
        self._connect = connect

    @asynccontextmanager
    async def connections(self) -> AsyncIterator[Lease]:
        async with _one_connection(self._connect) as lease:
            yield lease

    async def sync_pass(self, first: Callable[[], Awaitable[None]] | None = None) -> PassReport:
        return await self._sync.run_once(first, writes=False)


@asynccontextmanager
async def _one_connection(connect: Callable[[], Awaitable[ImapConnection]]) -> AsyncIterator[Lease]:
    pool = Pool(connect, PoolSettings(size=1))
    try:
        yield pool.lease
    finally:
        await pool.close()
