"""Watches in which order mailmill's own transactions lock rows on PostgreSQL: as `row_locks` says, or the test fails.

Read from the statements that are executed. Judged are transactions that code of mailmill opened; what a test does in a
transaction of its own is its own affair. Which rows a statement locks is not seen, so neither is the order in a table.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncConnection

import mailmill
from mailmill.store.postgres_database import PostgresDatabase
from mailmill.store.row_locks import OF_AN_ACCOUNT, ONE_OWNER, ORDER
from mailmill.store.wakeups import WakeName

_SOURCE = Path(mailmill.__file__).parent
_RANK = {table.name: rank for rank, table in enumerate(ORDER)}
_OF_AN_ACCOUNT = {table.name for table in OF_AN_ACCOUNT}
_ONE_OWNER = {table.name for table in ONE_OWNER}

# (who opened the transaction, the table, why)
EXCEPTIONS = [
    ("processing/worker.py", "message", "work that was queued while the only other row of its message was finished"),
]

_LOCKING = re.compile(
    r"FROM (\w+)(?:(?! FROM ).)*? FOR (?:NO KEY |KEY )?(?:UPDATE|SHARE)(?: OF (\w+))?( SKIP LOCKED)?", re.DOTALL
)
_CHANGING = re.compile(r"\b(?:UPDATE (?=\w+ SET\b)|DELETE FROM )(\w+)|\bINSERT INTO (\w+)(?=.* DO UPDATE )", re.DOTALL)
_BY_ITS_ID = re.compile(r"WHERE \w+\.id = |INSERT INTO ")


class Lock(NamedTuple):
    """Of rows of a table. ``waits``: for those that others hold."""

    table: str
    waits: bool


@lru_cache(maxsize=2048)
def locks_of(statement: str) -> tuple[Lock, ...]:
    """What a statement locks, in the order in which that matters: what it passes over is not waited for later."""
    statement = " ".join(statement.split())
    read = [Lock(match[2] or match[1], not match[3]) for match in _LOCKING.finditer(statement)]
    changed = [Lock(match[1] or match[2], True) for match in _CHANGING.finditer(statement)]
    return tuple(sorted([*read, *changed], key=lambda lock: lock.waits))


class Transaction:
    """What one transaction has locked so far. ``origin``: the file that opened it."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.held: list[str] = []

    def execute(self, statement: str) -> str | None:
        """What is wrong with it, or None."""
        faults = [fault for lock in locks_of(statement) if (fault := self._lock(lock, statement))]
        return f"{self.origin}: {faults[0]}: {' '.join(statement.split())[:200]}" if faults else None

    def _lock(self, lock: Lock, statement: str) -> str | None:
        if lock.table in self.held:
            return None
        before = [name for name in self.held if _RANK.get(name, -1) > _RANK.get(lock.table, len(_RANK))]
        self.held.append(lock.table)
        if not lock.waits or any(lock.table == table and self.origin == file for file, table, _why in EXCEPTIONS):
            return None
        if lock.table in _OF_AN_ACCOUNT:
            return None if "account" in self.held else f"locks {lock.table}, and not the account"
        if lock.table in _ONE_OWNER:
            return None if _BY_ITS_ID.search(statement) else f"waits for any {lock.table}"
        if lock.table not in _RANK:
            return f"locks {lock.table}, which has no place in the order"
        return f"locks {lock.table} after {', '.join(before)}" if before else None


@contextmanager
def watched() -> Iterator[list[str]]:
    """Watch this process for the length of the block; what was wrong, as it is found."""
    faults: list[str] = []
    running: WeakKeyDictionary[Connection, Transaction] = WeakKeyDictionary()

    def listen(connection: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        transaction = running.get(connection)
        if transaction is not None and (fault := transaction.execute(statement)):
            faults.append(fault)

    @asynccontextmanager
    async def entered(
        door: AbstractAsyncContextManager[AsyncConnection], origin: str
    ) -> AsyncIterator[AsyncConnection]:
        async with door as connection:
            assert connection.sync_connection is not None
            running[connection.sync_connection] = Transaction(origin)
            try:
                yield connection
            finally:
                if connection.sync_connection is not None:
                    running.pop(connection.sync_connection, None)

    def judged(original: Any) -> Any:
        def door(
            database: PostgresDatabase, *, wake: Collection[WakeName] = ()
        ) -> AbstractAsyncContextManager[AsyncConnection]:
            opened: AbstractAsyncContextManager[AsyncConnection] = original(database, wake=wake)
            origin = _origin(sys._getframe(1))
            return opened if origin is None else entered(opened, origin)

        return door

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "write_urgent"):
            patch.setattr(PostgresDatabase, name, judged(getattr(PostgresDatabase, name)))
        event.listen(Engine, "before_cursor_execute", listen)
        try:
            yield faults
        finally:
            event.remove(Engine, "before_cursor_execute", listen)


_DOORS = ("store/database.py", "owned_database.py", "doors.py", "contextlib.py")


def _origin(frame: FrameType | None) -> str | None:
    """The file of mailmill's that opens a transaction; None where somebody else does."""
    while frame is not None and frame.f_code.co_filename.endswith(_DOORS):
        frame = frame.f_back
    file = Path(frame.f_code.co_filename) if frame is not None else Path()
    return str(file.relative_to(_SOURCE)) if file.is_relative_to(_SOURCE) else None


def faults_of(statements: Sequence[str], origin: str = "somebody.py") -> list[str]:
    """What is wrong with a transaction of these statements."""
    transaction = Transaction(origin)
    return [fault for statement in statements if (fault := transaction.execute(statement))]
