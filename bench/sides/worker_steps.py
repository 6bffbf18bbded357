"""The worker with processors of the bench's own, on mail stored as a sync stores it; nothing is to be delivered.

Arguments: database URL, data folder, then one of

- ``store COUNT MEAN_BYTES``: so many messages with their work; 0 for small ones of 1 to 3 kB (``corpus.small``);
- ``pipeline``: the worker runs a processor that returns the subject's length over all that is stored: claim, read the
  raw bytes, parse, run, record;
- ``pick_up COUNT``: messages stored one by one, each after the last one's processor ran; the seconds from the commit to
  the start of the processor, with the store in a second ``Database`` where the first is not alone;
- ``wait CONCURRENCY``: a processor that waits a second, so many at a time, until no work is left. It says ``ready``,
  and begins at a line on stdin.

One JSON object is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import uvloop
from sqlalchemy import func, select, text

from bench import corpus
from mailmill.message_parser import ParsedMessage
from mailmill.model import Backlog, MailboxRef, MessageMeta, Uid
from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.store import accounts, messages
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.messages import Arrival, Cursor, MailboxRow, StoredContent, SyncBatch, WorkPlan
from mailmill.store.tables import work

_NAME = "trivial"
_STORED_AT_ONCE = 500
_PAUSE_SECONDS = 0.03
_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 20


def main(url: str, folder: str, step: str, *numbers: str) -> None:
    if step == "wait":
        # Before the loop begins: what is waited for is another program.
        print("ready", flush=True)
        sys.stdin.readline()
    told = uvloop.run(_step(url, Path(folder), step, [int(number) for number in numbers]))
    print(json.dumps(told))


async def _step(url: str, folder: Path, step: str, numbers: list[int]) -> dict[str, Any]:
    async with _opened(url, folder) as (database, blobs):
        match step:
            case "store":
                count, mean_bytes = numbers
                raws = corpus.messages(count, mean_bytes=mean_bytes) if mean_bytes else map(corpus.small, range(count))
                return {"messages": await Mailbox(database, blobs).fill(raws)}
            case "pipeline":
                return await _pipeline(database, blobs)
            case "pick_up":
                if url.startswith("sqlite"):
                    return {"seconds": await _pick_up(database, database, blobs, *numbers)}
                async with _opened(url, folder / "other") as (other, _):
                    return {"seconds": await _pick_up(database, other, blobs, *numbers)}
            case "wait":
                return await _wait(database, blobs, *numbers)
            case _:
                raise ValueError(step)


@contextlib.asynccontextmanager
async def _opened(url: str, folder: Path) -> AsyncIterator[tuple[Database, BlobStore]]:
    folder.mkdir(parents=True, exist_ok=True)
    database = await Database.open(url, data_dir=folder)
    blobs = BlobStore(folder / "mail")
    try:
        yield database, blobs
    finally:
        await database.close()
        await blobs.close()


class Mailbox:
    """The INBOX that messages are stored into, a batch in one transaction."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._row: MailboxRow | None = None
        self._next_uid = 1

    async def fill(self, raws: Iterable[bytes]) -> int:
        some: list[bytes] = []
        stored = 0
        for raw in raws:
            some.append(raw)
            if len(some) == _STORED_AT_ONCE:
                stored += len(await self.store(some))
                some = []
        return stored + len(await self.store(some)) if some else stored

    async def store(self, raws: Sequence[bytes]) -> tuple[int, ...]:
        """The ids of the new messages, committed."""
        refs = await self._blobs.put_batch(raws)
        async with self._database.write() as connection:
            row = self._row or await self._ready(connection)
            uids = range(self._next_uid, self._next_uid + len(raws))
            arrivals = [
                Arrival(
                    MessageMeta(Uid(uid), internal_date=1.7e9 + uid, size_bytes=ref.size_bytes),
                    StoredContent(ref, subject=f"Message {uid}", from_address="somebody@example.org"),
                )
                for uid, ref in zip(uids, refs, strict=True)
            ]
            cursor = Cursor(uid_validity=1, uid_next=uids.stop, messages=uids.stop - 1)
            batch = SyncBatch(row, 1, arrivals, (), messages.Cursor().uncovered, cursor)
            outcome = await messages.apply_batch(connection, batch, WorkPlan([(_NAME, 1)]), time.time())
            self._row = await messages.get_mailbox(connection, row.account_id, "INBOX")
        self._next_uid = uids.stop
        return outcome.message_ids

    async def _ready(self, connection: Any) -> MailboxRow:
        account = await accounts.ensure_account(
            connection,
            name="bench",
            email="bench@example.org",
            backlog=Backlog.PROCESS,
            credential_mark=None,
            now=time.time(),
        )
        [row] = await messages.apply_mailbox_list(connection, account.id, [MailboxRef("INBOX", "/")], time.time())
        await connection.execute(text("UPDATE mailbox SET uid_validity = 1 WHERE id = :id"), {"id": row.id})
        self._next_uid = max(row.cursor.uid_next, 1)
        return await messages.get_mailbox(connection, account.id, "INBOX")


async def _subject_length(message: ParsedMessage, _context: Any) -> int:
    return len(message.summary.subject)


@contextlib.asynccontextmanager
async def _working(database: Database, blobs: BlobStore, processor: Processor) -> AsyncIterator[Worker]:
    settings = WorkerSettings(alone=database.alone)
    worker = Worker(database, blobs, [processor], f"bench-{os.getpid()}-{time.time_ns()}", settings=settings)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        await running


async def _left(database: Database) -> int:
    async with database.read() as connection:
        return await connection.scalar(select(func.count()).select_from(work)) or 0


async def _pipeline(database: Database, blobs: BlobStore) -> dict[str, Any]:
    before = await _left(database)
    cpu, began = time.process_time(), time.perf_counter()
    async with _working(database, blobs, Processor(_NAME, 1, _subject_length, "async")) as worker:
        await worker.settle()
        seconds = time.perf_counter() - began
        cpu = time.process_time() - cpu
    if await _left(database):
        raise RuntimeError("work is left")
    return {"messages": before, "seconds": seconds, "cpu_seconds": cpu}


async def _pick_up(database: Database, other: Database, blobs: BlobStore, count: int) -> list[float]:
    started: dict[int, float] = {}
    ran = asyncio.Event()

    async def note(message: ParsedMessage, context: Any) -> None:
        started[context.message_id] = time.perf_counter()
        ran.set()

    seconds = []
    mailbox = Mailbox(other, blobs)
    async with _working(database, blobs, Processor(_NAME, 1, note, "async")) as worker:
        await worker.settle()
        for number in range(count):
            ran.clear()
            [message_id] = await mailbox.store([corpus.small(10_000_000 + number + time.time_ns() % 10**12)])
            committed = time.perf_counter()
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await ran.wait()
            # The loop that stored it may run the processor before it comes back to us.
            seconds.append(max(0.0, started[message_id] - committed))
            await worker.settle()
            await asyncio.sleep(_PAUSE_SECONDS)
    return seconds


async def _wait(database: Database, blobs: BlobStore, concurrency: int) -> dict[str, Any]:
    ran = 0

    async def wait(message: ParsedMessage, _context: Any) -> None:
        nonlocal ran
        await asyncio.sleep(1)
        ran += 1

    began = time.monotonic()
    async with _working(database, blobs, Processor(_NAME, 1, wait, "async", concurrency=concurrency)):
        while await _left(database):
            await asyncio.sleep(_LOOK_SECONDS)
        ended = time.monotonic()
    return {"began": began, "ended": ended, "ran": ran}


if __name__ == "__main__":
    main(*sys.argv[1:])
