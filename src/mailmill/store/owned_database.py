"""The door to the database for the owner of an account: it writes only while its node has the account's shard.

Laws:

* Two checks, neither enough by itself. Before the transaction, this machine's clock: a process that was stopped, or
  cannot reach the database, finds out by itself. In it, the shard's row under a lock that no takeover passes: what
  commits was written by the owner, whatever the clocks say.
* Nothing is ever written by a lease that was lost, also when the same node has the shard again by a later one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.clock import boot_seconds
from mailmill.errors import LeaseLostError
from mailmill.store import leases
from mailmill.store.database import Database
from mailmill.store.wakeups import WakeName

_HINT = "the node that has it goes on; `mailmill status` shows which one"


class Lease:
    """A shard that this node has, as far as it knows. ``until`` is in seconds of `boot_seconds`, ``epoch`` the lease's.

    ``lost()`` is told once, when the lease is found to be lost.
    """

    __slots__ = ("_lost", "_tell", "epoch", "node_id", "shard", "until")

    def __init__(
        self, node_id: str, shard: int, epoch: int, until: float, lost: Callable[[], None] = lambda: None
    ) -> None:
        self.node_id = node_id
        self.shard = shard
        self.epoch = epoch
        self.until = until
        self._lost = False
        self._tell = lost

    @property
    def holds(self) -> bool:
        """Whether it may be written. Once false, it stays so, unless it is renewed before anybody looked."""
        return not self._lost and boot_seconds() < self.until

    def lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._tell()


class OwnedDatabase(Database):
    """``database`` for the accounts of the shard of ``lease`` (None: nobody owns them here, so nothing is written)."""

    def __init__(self, database: Database, lease: Lease | None) -> None:
        # Not its parent's: hints are those of the database behind.
        self.wake = database.wake
        self.alone = database.alone
        self._database = database
        self._lease = lease

    @asynccontextmanager
    async def write(self, *, wake: Collection[WakeName] = ()) -> AsyncIterator[AsyncConnection]:
        """As `Database.write`. Raises LeaseLostError, with nothing written, where this node is not the owner."""
        lease = self._lease
        if lease is None:
            raise LeaseLostError("this node does not own the account", hint=_HINT)
        if not lease.holds:
            lease.lose()
            raise LeaseLostError(f"the lease of shard {lease.shard} has ended", hint=_HINT)
        async with self._database.write(wake=wake) as connection:
            if not await leases.hold(connection, lease.node_id, lease.shard, lease.epoch):
                lease.lose()
                raise LeaseLostError(f"another node has shard {lease.shard} now", hint=_HINT)
            yield connection

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._database.read()

    async def close(self) -> None:
        """Nothing: the database is closed by who opened it."""
