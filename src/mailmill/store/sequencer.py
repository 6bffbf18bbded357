"""The sequencer: gives committed events their place in the log. PostgreSQL only; on SQLite the id is the place.

Ids are taken when rows are written, and transactions commit in any order: a reader that went by ids would pass an id
whose transaction is still open, and never come back for it. So an event gets its ``seq`` after its commit, and readers
go by that.

Laws:

* Numbers are given by one transaction at a time, and in the order of their commits: whoever numbers holds an advisory
  lock that ends with its transaction, and looks for rows and for the highest number only then, in a statement of its
  own (READ COMMITTED: it sees what the holder before committed). So once a reader sees a number, no lower one appears
  later. The unique index on ``seq`` is the net below: without the lock a numbering fails, and never gives one twice.
* The lease is the transaction. Nothing is to be renewed or taken over, and it holds behind a pooler. A process that is
  stopped in the middle loses it after `_HELD_SECONDS`: the server ends its transaction.
* Every process numbers what it committed itself, woken by its own commit, and whatever else it finds. What a process
  leaves that dies in between, the polls of the others find.
* An open transaction delays its own events and nothing else: its rows are not seen, so nobody waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
from sqlalchemy import BigInteger, Text, any_, bindparam, cast, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from mailmill.errors import MailmillError
from mailmill.store import dialect, event_log, marks
from mailmill.store.statement import Statement
from mailmill.store.tables import event
from mailmill.store.wakeups import Subscription

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.database import Database
    from mailmill.store.wakeups import WakeName

BATCH: Final = 1000
"""Events numbered by one statement."""

APART_SECONDS: Final = 0.01
"""Between the beginnings of two turns that hints ask for."""

CROWDED_EVENTS: Final = 100
CROWDED_APART_SECONDS: Final = 0.025
"""The same after a turn that numbered so many: at more than 10,000 events a second a turn less is worth more than some
milliseconds. Each is four statements and a commit of its own, beside those who append."""

POLL_SECONDS: Final = 1.0
RECENT_IDS: Final = 5_000
"""A hint is about events that are new, so it looks no further back; a late commit below is found by the next poll.

While an old transaction keeps PostgreSQL from removing what was updated, the index of what has no number holds all that
ever went through it, and to walk it costs more with each event.
"""

_SCAN_SHARE: Final = 0.05
"""Of the time, at most, that goes into looking through all of that."""

_LOCK: Final = 0x6D696C6C_6576  # any number that all versions agree on
_HELD_SECONDS: Final = 5
_LONGEST_PAUSE_SECONDS: Final = 10.0
_LAST_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class Numbered(NamedTuple):
    """How many events got their number, and the highest id among them (0 for none)."""

    events: int
    newest_id: int


async def number(connection: AsyncConnection, *, limit: int = BATCH, above_id: int = 0) -> Numbered:
    """Number up to ``limit`` committed events, in the order of their ids, in a transaction that does nothing else."""
    if not dialect.is_postgresql(connection):
        return Numbered(0, 0)
    return await connection.run_sync(_number, limit, above_id)


async def hold_off(connection: AsyncConnection) -> None:
    """Have nobody number events until the transaction ends: for who is about to delete some that may have no number."""
    if dialect.is_postgresql(connection):
        await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def _number(connection: Connection, limit: int, above_id: int) -> Numbered:
    _TAKE_TURN.rows(connection, held=f"{_HELD_SECONDS}s", lock=_LOCK)
    [row] = _NUMBER.rows(connection, limit=limit, above_id=above_id)
    return Numbered(*row)


def _numbering() -> Select[Any]:
    newest = select(func.max(event.c.seq)).scalar_subquery()
    taken = marks.column(marks.TAKEN)
    start = select(func.greatest(func.coalesce(newest, 0), marks.column(marks.REMOVED), taken)).scalar_subquery()
    unnumbered = event.c.seq.is_(None)
    above, limit = bindparam("above_id", type_=BigInteger), bindparam("limit", type_=BigInteger)
    first = select(event.c.id).where(unnumbered, event.c.id > above).order_by(event.c.id).limit(limit).subquery()
    found = select(func.array_agg(aggregate_order_by(first.c.id, first.c.id)).label("ids")).cte("found")
    # An array and no join: however wrong the planner is about how many are unnumbered, it looks each up by its id.
    ids = cast(select(found.c.ids).scalar_subquery(), ARRAY(BigInteger))
    numbered = (
        update(event)
        # Said again, of the row as it is when it is written: a number stands for ever.
        .where(event.c.id == any_(ids), unnumbered)
        # Its place in the array: ids are in order, so by halves. (array_position goes through all of it for each.)
        .values(seq=start + func.width_bucket(event.c.id, ids))
        .returning(event.c.id)
        .cte("numbered")
    )
    return select(func.count(), func.coalesce(func.max(numbered.c.id), 0))


_TAKE_TURN: Final = Statement(
    lambda _connection: select(
        func.set_config("idle_in_transaction_session_timeout", bindparam("held", type_=Text), literal(value=True)),
        # Plans are kept, also those that were made when the table was empty.
        func.set_config("enable_seqscan", "off", literal(value=True)),
        func.pg_advisory_xact_lock(bindparam("lock", type_=BigInteger)),
    )
)
_NUMBER: Final = Statement(lambda _connection: _numbering())


class Sequencer:
    """Numbers events from `open` to `close`, in a task of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stirred = Subscription()
        self._owing = False  # we have committed events that we have not seen numbered
        self._newest_id = 0
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._run(), name="sequencer")

    def stir(self) -> None:
        """To be called when a transaction that appended events is committed. Never waits."""
        self._owing = True
        self._stirred.notify()

    async def close(self) -> None:
        """Stop; what is still owed is numbered if that goes at once. May be called twice."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._task = None
        if self._owing:
            # Or it waits for another process's poll, and there may be none.
            with contextlib.suppress(MailmillError, TimeoutError):
                async with asyncio.timeout(_LAST_SECONDS):
                    while (await self._turn(above_id=0)).events == BATCH:
                        pass

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        all_at = clock()
        failures = 0
        hinted = True
        while True:
            began = clock()
            look_at_all = began >= all_at
            try:
                numbered = await self._look(look_at_all=look_at_all, hinted=hinted)
                failures = 0
            except Exception as error:  # noqa: BLE001 - the boundary: readers wait, and it is tried again
                failures += 1
                if isinstance(error, MailmillError):
                    _log.warning("numbering events waits for the store", error=str(error), hint=error.hint)
                else:
                    _log.error("numbering events failed in an unforeseen way", error=repr(error))
                pause = min(_LONGEST_PAUSE_SECONDS, 0.1 * 2.0 ** min(failures, 10))
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
                continue
            if numbered.events == BATCH:
                hinted = True
                continue
            if look_at_all:
                pause = POLL_SECONDS * random.uniform(0.7, 1.3)  # noqa: S311 - jitter
                all_at = clock() + max(pause, (clock() - began) / _SCAN_SHARE)
            hinted = await self._stirred.wait(max(0.0, all_at - clock()))
            if hinted:
                # Under load a turn serves many transactions; where the last one is long over it comes at once.
                apart = APART_SECONDS if numbered.events < CROWDED_EVENTS else CROWDED_APART_SECONDS
                await asyncio.sleep(began + apart - clock())

    async def _look(self, *, look_at_all: bool, hinted: bool) -> Numbered:
        if not hinted:
            async with self._database.read() as connection:
                if await event_log.is_numbered(connection):
                    return Numbered(0, 0)
        return await self._turn(above_id=0 if look_at_all else max(0, self._newest_id - RECENT_IDS))

    async def _turn(self, *, above_id: int) -> Numbered:
        owed, self._owing = self._owing, False
        wake: set[WakeName] = set()
        try:
            async with self._database.write(wake=wake) as connection:
                numbered = await number(connection, above_id=above_id)
                if numbered.events:
                    wake.add("events")
        except BaseException:
            self._owing = self._owing or owed
            raise
        self._newest_id = max(self._newest_id, numbered.newest_id)
        return numbered
