"""Letting go of what is past its time on PostgreSQL, while another transaction comes to need it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import FromClause, Select, String, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from store_mail import NOW, Store, arrival, new_store, open_database

from harness.interleaving import beside
from harness.patience import eventually
from mailmill.model import Backlog
from mailmill.store import blob_references, dialect, reprocess, reprocess_pieces, requests, retention
from mailmill.store.messages import WorkPlan
from mailmill.store.reprocess import Wanted
from mailmill.store.request_rows import NewRequest, RequestKind, Upload
from mailmill.store.retention import Retention
from mailmill.store.segments import BlobRef
from mailmill.store.tables import blob, message

KEEPS_NOTHING = Retention(0.0, 0.0, 0.0)
LATER = NOW + 1000
NO_WORK = WorkPlan((), Backlog.PROCESS)
GATE = 4_711


@pytest.fixture
async def store(data_dir: Path, postgres_url: str) -> AsyncIterator[Store]:
    async with open_database(data_dir, postgres_url) as database:
        yield await new_store(database)


def stop_after_its_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that locks what is free has its snapshot, and waits for the gate before it looks at any row."""
    real = dialect.skip_locked

    def gated(connection: AsyncConnection, rows: Select[Any], of: FromClause) -> Select[Any]:
        gate = func.pg_advisory_xact_lock_shared(GATE).cast(String) == ""
        return real(connection, rows.where(gate) if of in (message, blob) else rows, of)

    monkeypatch.setattr(dialect, "skip_locked", gated)


async def at_the_gate(store: Store) -> bool:
    waiting = text(f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = {GATE} AND NOT granted")
    async with store.database.read() as connection:
        return await connection.scalar(waiting) is not None


async def after_its_snapshot(
    store: Store, let_go: Callable[[AsyncConnection], Awaitable[int]], meanwhile: Callable[[], Awaitable[Any]]
) -> int:
    """What ``let_go`` answers where ``meanwhile`` is committed between its snapshot and its locks."""
    async with store.database.write() as first:
        await first.execute(select(func.pg_advisory_xact_lock(GATE)))
        letting_go = beside(store.database, let_go)
        await eventually(lambda: at_the_gate(store))
        await meanwhile()
    return await letting_go


async def test_bytes_that_work_came_to_need_since_the_snapshot_are_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To queue work changes nothing in the message: PostgreSQL does not judge the row anew when it has locked it."""
    await store.apply([arrival(1, "asked for again"), arrival(2, "not asked for")], work=NO_WORK)
    async with store.database.write() as connection:
        asked = await reprocess.create(connection, "threat", 1, Wanted(everything=True), LATER)

    async def ask() -> None:
        async with store.database.write() as connection:
            queued = await reprocess_pieces.put_piece(connection, asked, reprocess_pieces.Look([1], 1), LATER)
        assert queued is not None
        assert queued.queued == 1

    stop_after_its_snapshot(monkeypatch)
    expired = await after_its_snapshot(
        store, lambda connection: retention.expire_raw(connection, [1, 2], KEEPS_NOTHING, LATER), ask
    )
    assert expired == 1
    assert await store.rows("SELECT message_id FROM work") == [(1,)]
    assert await store.rows("SELECT id FROM message WHERE raw_expired_at IS NULL") == [(1,)]


async def test_a_blob_that_a_message_came_to_need_since_the_snapshot_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the message is older than the limit, by a clock that jumped when it was being stored."""
    await store.apply([arrival(1, "comes again"), arrival(2, "does not")], work=NO_WORK)
    async with store.database.write() as connection:
        await connection.execute(message.delete())
    async with store.database.read() as connection:
        found = await blob_references.unneeded(connection, LATER)
    assert len(found) == 2
    stop_after_its_snapshot(monkeypatch)
    forgotten = await after_its_snapshot(
        store,
        lambda connection: blob_references.forget(connection, found, LATER),
        lambda: store.apply([arrival(3, "comes again")], work=NO_WORK),
    )
    assert forgotten == 1
    assert await store.rows("SELECT message.id FROM message JOIN blob ON blob.sha256 = message.sha256") == [(3,)]


async def test_a_blob_that_an_upload_came_to_need_since_the_snapshot_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a message."""
    draft, other = BlobRef(b"\x01" * 32, "ab/1-1.seg", 0, 5), BlobRef(b"\x02" * 32, "ab/1-1.seg", 5, 5)
    async with store.database.write() as connection:
        await requests.keep_blob(connection, draft, NOW)
        await requests.keep_blob(connection, other, NOW)

    async def ask() -> None:
        upload = Upload(draft.sha256)
        asked = NewRequest("default", store.account.id, RequestKind.APPEND, target_path="Archive", upload=upload)
        async with store.database.write() as connection:
            await requests.keep_blob(connection, draft, NOW + 5)
            await requests.add(connection, asked, NOW + 5)

    stop_after_its_snapshot(monkeypatch)
    forgotten = await after_its_snapshot(
        store,
        lambda connection: blob_references.forget(connection, [draft.sha256, other.sha256], LATER),
        ask,
    )
    assert forgotten == 1
    assert await store.rows("SELECT sha256 FROM blob") == [(draft.sha256,)]
