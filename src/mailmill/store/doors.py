"""Doors to a database beside `Database.write` and `Database.read`, for the two who cannot use those.

Laws:

* What proves that this process lives (its leases, its worker's heartbeat) goes through `write_urgent` and nothing else
  does: on PostgreSQL that door has connections of its own, so transactions that are slow, or wait for locks, take
  nothing from it. A block is a few small statements.
* What takes as long as it takes (a check of all rows) reads through `read_unhurried`: neither the server nor the driver
  ends its statements. Only for reading, and never on the way of mail.

On SQLite both are the usual doors: one process proves its life to nobody, and no statement has a time limit.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store.database import Database
from mailmill.store.wakeups import WakeName


@runtime_checkable
class HasDoors(Protocol):
    """A database that has these doors itself."""

    def write_urgent(self, *, wake: Collection[WakeName] = ()) -> AbstractAsyncContextManager[AsyncConnection]:
        """See the function of that name."""

    def read_unhurried(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """See the function of that name."""


def write_urgent(
    database: Database, *, wake: Collection[WakeName] = ()
) -> AbstractAsyncContextManager[AsyncConnection]:
    """As `Database.write`, whatever keeps the other writers busy."""
    return database.write_urgent(wake=wake) if isinstance(database, HasDoors) else database.write(wake=wake)


def read_unhurried(database: Database) -> AbstractAsyncContextManager[AsyncConnection]:
    """As `Database.read`, on a connection that is made for the block and whose statements may take any time.

    A cancellation ends the statement that runs.
    """
    return database.read_unhurried() if isinstance(database, HasDoors) else database.read()
