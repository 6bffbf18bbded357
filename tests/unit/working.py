"""A worker at work within a test: its store, processors that say what they saw, and waiting for what it does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select
from work_rows import add_account, add_mail, new_work

from harness import stores
from mailmill.message_parser import ParsedMessage
from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.store import queue
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.tables import result, work

PATIENCE_SECONDS = 60.0

# Polls so rare that only hints can be what makes a test pass.
PATIENT = WorkerSettings(threads=2, children=1, poll_seconds=3600.0)


class Store:
    """The store in a folder, with one account."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self.database = database
        self.blobs = blobs
        self.next_id = 1

    async def add(self, subjects: Sequence[str], *processors: str, account_id: int = 1) -> list[int]:
        """Mail with these subjects, and work over it for ``processors``; the ids."""
        contents = [f"Subject: {subject}\r\nFrom: a@example.org\r\n\r\nHello.\r\n".encode() for subject in subjects]
        async with self.database.write() as connection:
            ids = await add_mail(connection, self.blobs, contents, first_id=self.next_id, account_id=account_id)
            self.next_id += len(ids)
            rows = [new_work(one, name, account_id=account_id) for one in ids for name in processors]
            await queue.enqueue(connection, rows, 100.0)
        return ids

    async def results(self) -> dict[tuple[int, str], str]:
        """(message, processor) → what is recorded."""
        async with self.database.read() as connection:
            rows = await connection.execute(select(result.c.message_id, result.c.processor, result.c.value))
            return {(row.message_id, row.processor): row.value for row in rows}

    async def rows(self) -> list[Any]:
        """The work that is left, by message."""
        async with self.database.read() as connection:
            return list((await connection.execute(select(work).order_by(work.c.message_id))).all())


@asynccontextmanager
async def open_store(data_dir: Path) -> AsyncIterator[Store]:
    database = await stores.open_database(data_dir)
    blobs = BlobStore(data_dir / "mail")
    try:
        async with database.write() as connection:
            await add_account(connection)
        yield Store(database, blobs)
    finally:
        await database.close()
        await blobs.close()


def subject_of(message: ParsedMessage, context: Any) -> str:
    return message.summary.subject


async def subject_of_async(message: ParsedMessage, context: Any) -> str:
    return message.summary.subject


def a_processor(name: str, function: Callable[..., Any] = subject_of_async, kind: Any = None, **more: Any) -> Processor:
    return Processor(
        name, 1, function, kind or ("async" if asyncio.iscoroutinefunction(function) else "thread"), **more
    )


@asynccontextmanager
async def working(
    store: Store, *processors: Processor, settings: WorkerSettings = PATIENT, worker_id: str = "w", **more: Any
) -> AsyncIterator[Worker]:
    """A worker that runs for the length of the block, and stops in order."""
    made = Worker(store.database, store.blobs, processors, worker_id, settings=settings, **more)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    try:
        yield made
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task


async def settled(made: Worker) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await made.settle()


class Stages:
    """For a worker's ``observe``: how often each stage was come to, and waiting for it."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def __call__(self, stage: str, _seconds: float) -> None:
        self.seen[stage] += 1
        self._changed.set()

    async def until(self, stage: str, times: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.seen[stage] < times:
                self._changed.clear()
                await self._changed.wait()
