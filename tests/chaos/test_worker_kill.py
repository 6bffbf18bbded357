"""``kill -9`` of a worker before and after each of its commit points: nothing is lost, nothing is recorded twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from mailmill.store import event_log, queue
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.queue import NewWork
from mailmill.store.tables import account, blob, message, result, tenant, work

MESSAGES = range(1, 25)
PROCESSORS = ("on_loop", "in_thread")


async def fill(data_dir: Path) -> None:
    database = await Database.open(f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}", data_dir=data_dir)
    blobs = BlobStore(data_dir / "mail")
    refs = await blobs.put_batch([f"Subject: mail {n}\r\n\r\nHello.\r\n".encode() for n in MESSAGES])
    async with database.write() as connection:
        if await connection.scalar(select(tenant.c.id)) is None:
            await connection.execute(insert(tenant).values(id="default"))
        await connection.execute(
            insert(account).values(
                id=1,
                tenant_id="default",
                name="work",
                shard=0,
                backlog="process",
                state="connected",
                state_changed_at=1.0,
                added_at=1.0,
            )
        )
        for message_id, ref in zip(MESSAGES, refs, strict=True):
            place = {"segment": ref.segment, "offset_bytes": ref.offset_bytes, "size_bytes": ref.size_bytes}
            await connection.execute(insert(blob).values(sha256=ref.sha256, created_at=1.0, **place))
            texts = dict.fromkeys(("subject", "from_name", "from_address", "message_id_header", "in_reply_to"), "")
            await connection.execute(
                insert(message).values(
                    id=message_id,
                    account_id=1,
                    sha256=ref.sha256,
                    size_bytes=ref.size_bytes,
                    internal_date=1.0,
                    historical=False,
                    stored_at=1.0,
                    **texts,
                )
            )
        await queue.enqueue(connection, [NewWork(n, 1, 0, name, 1, 0) for n in MESSAGES for name in PROCESSORS], 100.0)
        # Every time a result is written is kept, so that a second time shows.
        await connection.execute(text("CREATE TABLE written (message_id INTEGER, processor TEXT)"))
        for what in ("INSERT", "UPDATE"):
            await connection.execute(
                text(
                    f"CREATE TRIGGER written_{what} AFTER {what} ON result "
                    "BEGIN INSERT INTO written VALUES (new.message_id, new.processor); END"
                )
            )
    await database.close()
    await blobs.close()


async def run(data_dir: Path, phase: str, at: int) -> tuple[int, str]:
    program = Path(__file__).with_name("worker_program.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(data_dir), phase, str(at),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    async with asyncio.timeout(120):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize("phase", ["claiming", "claimed", "ran", "recording", "recorded"])
async def test_killed_three_times_at_each_phase(data_dir: Path, phase: str) -> None:
    await fill(data_dir)
    for at in (1, 3, 2):
        code, said = await run(data_dir, phase, at)
        assert (code, said[-len(phase) :]) == (-signal.SIGKILL, phase)
    code, _ = await run(data_dir, "none", 0)
    assert code == 0

    database = await Database.open(f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}", data_dir=data_dir)
    async with database.read() as connection:
        every = sorted((n, name) for n in MESSAGES for name in PROCESSORS)
        values = await connection.execute(select(result.c.message_id, result.c.processor, result.c.value))
        assert sorted(tuple(row) for row in values) == [(n, name, f'"mail {n}"') for n, name in every]
        written = await connection.execute(text("SELECT message_id, processor FROM written"))
        assert sorted(tuple(row) for row in written) == every
        assert (await connection.execute(select(work))).all() == []
        log = await event_log.read_after(connection, 0, 1000)
        assert sorted((one.event, one.message_id) for one in log) == [("messageProcessed", n) for n in MESSAGES]
    await database.close()
