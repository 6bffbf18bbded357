"""The queue's throughput while four readers page through the messages in one snapshot each, and one holder is idle.

The readers are the store's own (an export, a listing that goes on for minutes), within the process that drains. The
holder is a foreign client that began a transaction and went away: on PostgreSQL it has a transaction id and a snapshot,
so nothing that is deleted meanwhile can be vacuumed; on SQLite it keeps the WAL from starting over. By turns with and
without.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import asyncpg

from bench.figures import Goal, Line, Result, Samples, paired
from bench.queue_stores import KINDS, WORKERS, QueueStore
from bench.stage import Stage

TITLE = "The queue's throughput with 4 long readers and an idle transaction"

_READERS = 4


async def measure(stage: Stage) -> Result:
    backlog, batches, rounds = stage.size(1_000_000, 40_000), stage.size(300, 40), stage.size(5, 2)
    stage.bar.expect(len(KINDS) * 2 * (rounds + 1))
    lines = []
    raw = {}
    for name, kind in KINDS.items():
        stage.bar.doing(f"{backlog:,} rows in {name}")
        store = await stage.queues.long(kind, backlog)

        def side(store: QueueStore, readers: int) -> Callable[[], Awaitable[dict[str, Any]]]:
            async def run() -> dict[str, Any]:
                async with _held(store) if readers else contextlib.nullcontext():
                    told = await store.step("queue_steps", "drain", batches, WORKERS[store.kind], readers)
                    return dict(told)

            return run

        measured = await stage.interleaved(rounds, {"without": side(store, 0), "with": side(store, _READERS)})
        raw[name] = measured
        with_them, without = (
            Samples.of([each["rows"] / each["seconds"] for each in measured[which]], "rows/s")
            for which in ("with", "without")
        )
        goal = Goal("at least", 0.7, "×")
        lines.append(Line(f"{name}, with them", with_them, goal, "without", without, paired(with_them, without)))
    return Result(tuple(lines), (), {"runs": raw})


@contextlib.asynccontextmanager
async def _held(store: QueueStore) -> AsyncIterator[None]:
    """A transaction that has begun and does nothing more."""
    if store.kind == "sqlite":
        path = quote(store.url.removeprefix("sqlite+aiosqlite:///"))
        opened = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
        with contextlib.closing(opened) as reader:
            await asyncio.to_thread(_begin, reader)
            yield
            reader.execute("ROLLBACK")
    else:
        holder = await asyncpg.connect(store.url.replace("+asyncpg", ""))
        try:
            async with holder.transaction(isolation="repeatable_read"):
                await holder.fetch("SELECT pg_current_xact_id(), count(*) FROM account")
                yield
        finally:
            await holder.close()


def _begin(reader: sqlite3.Connection) -> None:
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM account").fetchone()
