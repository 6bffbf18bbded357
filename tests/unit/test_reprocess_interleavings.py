"""Reprocessing taken back on PostgreSQL while another transaction is open: what it waits for, and holds then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, update
from work_rows import add_account, add_messages, new_work

from harness.interleaving import waits
from mailmill.app.reprocessing import Reprocessing
from mailmill.store import dialect, queue, reprocess, reprocess_cancel, reprocess_pieces
from mailmill.store.database import Database
from mailmill.store.queue_outcomes import lock_messages
from mailmill.store.reprocess import ReprocessRow, Wanted
from mailmill.store.tables import message, work


@pytest.fixture
async def store(postgres_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(postgres_url, data_dir=tmp_path / "node")
    try:
        async with database.write() as connection:
            await add_account(connection)
        yield database
    finally:
        await database.close()


async def cancelling(store: Database) -> ReprocessRow:
    """Of messages 1 to 6, all of them queued by it, 1 and 3 had failed, 3 and 4 are throttled."""
    async with store.write() as connection:
        await add_messages(connection, range(1, 7))
        await queue.enqueue(connection, [new_work(1), new_work(3)], 600.0)
        errors = json.dumps([{"at": 600.0, "kind": "attempt", "error": "no"}])
        await connection.execute(update(work).values(state="failed", attempt=5, errors=errors, last_error="no"))
        row = await reprocess.create(connection, "threat", 2, Wanted(everything=True), 1000.0)
        found = await reprocess_pieces.look(connection, row, 0)
        await reprocess_pieces.put_piece(connection, row, found, 1001.0)
        await connection.execute(update(work).where(work.c.message_id.in_((3, 4))).values(state="throttled"))
        [marked] = await reprocess_cancel.mark(connection, [row.id])
        return marked


@pytest.mark.parametrize("lowest", [1, 3])
async def test_while_it_waits_for_a_message_it_holds_no_higher_one(store: Database, lowest: int) -> None:
    """A worker that finishes both at once has locked the lower one, and would wait for the higher one in a circle."""
    row = await cancelling(store)
    application: Any = SimpleNamespace(database=store, clock=lambda: 1002.0)
    async with store.write() as worker:
        await lock_messages(worker, [lowest])
        taking_back = asyncio.create_task(Reprocessing(application)._take_back(row))
        assert await waits(store, taking_back)
        higher = select(message.c.id).where(message.c.id > lowest).order_by(message.c.id)
        free = await worker.scalars(dialect.skip_locked(worker, higher, of=message))
        assert list(free) == list(range(lowest + 1, 7))
    assert await taking_back == 6
    async with store.read() as connection:
        left = select(work.c.message_id, work.c.state).order_by(work.c.message_id)
        assert [tuple(each) for each in await connection.execute(left)] == [(1, "failed"), (3, "failed")]
