"""Stores one batch of three messages, names each phase on stdout when it is reached, and stops at the one asked for.

Usage: python store_crash_child.py DATA_DIR DATABASE_URL ROUND PHASE. ``PHASE`` is blobs, applied, committed or done.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mailmill.model import Backlog, MailboxRef, MessageMeta, Uid
from mailmill.store import accounts, messages
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.messages import Arrival, Cursor, StoredContent, SyncBatch, WorkPlan
from mailmill.uid_set import UidSet


def raw(number: int) -> bytes:
    return f"Subject: {number}\r\n\r\n".encode() * 2000


async def main(data_dir: Path, database_url: str, number: int, phase: str) -> None:
    def reached(name: str) -> None:
        print(name, flush=True)
        if name == phase:
            # Until the parent kills us.
            sys.stdin.read()

    database = await Database.open(database_url, data_dir=data_dir)
    blobs = BlobStore(data_dir)
    async with database.write() as connection:
        account = await accounts.ensure_account(
            connection, name="me", email="", backlog=Backlog.PROCESS, credential_mark="", now=1.0
        )
        [mailbox] = await messages.apply_mailbox_list(connection, account.id, [MailboxRef("INBOX")], 1.0)
    uids = range(3 * number + 1, 3 * number + 4)
    refs = await blobs.put_batch([raw(uid) for uid in uids])
    reached("blobs")
    arrivals = [
        Arrival(MessageMeta(Uid(uid), frozenset()), StoredContent(ref, subject=str(uid)))
        for uid, ref in zip(uids, refs, strict=True)
    ]
    batch = SyncBatch(mailbox, 5, arrivals, (), UidSet(), Cursor(5, uids[-1] + 1))
    async with database.write() as connection:
        outcome = await messages.apply_batch(connection, batch, WorkPlan((("threat", 1),)), 2.0)
        reached("applied")
    reached("committed")
    await blobs.close()
    await database.close()
    print(f"done {outcome.new}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
