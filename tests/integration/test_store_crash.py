"""``kill -9`` of a process that stores messages, at each point where it matters.

Afterwards all of a batch is there or nothing, and doing it again makes it right.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from store_crash_child import raw

from harness import stores
from mailmill.model import Uid
from mailmill.store import event_log, messages, sequencer
from mailmill.store.blobs import BlobStore

ROUNDS = 3


def run_child(data_dir: Path, number: int, phase: str) -> str:
    """Run the child until it reaches ``phase`` and kill it there; ``done`` lets it finish. Returns its last line."""
    child_file = str(Path(__file__).with_name("store_crash_child.py"))
    command = [sys.executable, child_file, str(data_dir), stores.database_url(data_dir), str(number), phase]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        line = ""
        for line in child.stdout:
            if line.strip() == phase:
                child.kill()
                break
    return line.strip()


async def look(data_dir: Path, expected: int) -> None:
    database = await stores.open_database(data_dir)
    blobs = BlobStore(data_dir)
    try:
        async with database.write() as connection:
            await sequencer.number(connection)
            events = await event_log.read_after(connection, 0, 1000)
        async with database.read() as connection:
            if database.alone:
                assert (await connection.exec_driver_sql("PRAGMA integrity_check")).scalar_one() == "ok"
            [mailbox] = await messages.list_mailboxes(connection, 1)
            living = await messages.living_uids(connection, mailbox.id, 5)
            assert list(living) == [Uid(uid) for uid in range(1, expected + 1)]
            assert mailbox.cursor.uid_next == (expected + 1 if expected else 0)
            page = await messages.list_messages(connection, page_size=100)
            segments = await messages.referenced_segments(connection)
        assert sorted(int(line.message.subject) for line in page.messages) == list(range(1, expected + 1))
        told = Counter(event.message_id for event in events if event.event == "messageNew")
        assert told == Counter(line.message.id for line in page.messages)
        for line in page.messages:
            assert await blobs.get(line.message.blob) == raw(int(line.message.subject))
        await stores.collected(blobs, segments, -1)
        files = await asyncio.to_thread(lambda: {f"{p.parent.name}/{p.name}" for p in data_dir.glob("segments/*/*")})
        assert files == segments
    finally:
        await blobs.close()
        await database.close()


@pytest.mark.both_databases
@pytest.mark.parametrize("phase", ["blobs", "applied", "committed"])
def test_a_kill_leaves_all_or_nothing(data_dir: Path, phase: str) -> None:
    for number in range(ROUNDS):
        assert run_child(data_dir, number, phase) == phase
        committed = phase == "committed"
        asyncio.run(look(data_dir, 3 * number + (3 if committed else 0)))
        assert run_child(data_dir, number, "done") == f"done {0 if committed else 3}"
        asyncio.run(look(data_dir, 3 * number + 3))
