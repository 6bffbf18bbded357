"""Requests made straight into the store of a `SyncedAccount`, and what becomes of them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select

from harness.syncing import SyncedAccount
from mailmill.message_parser import parse_headers
from mailmill.model import Uid
from mailmill.store import requests
from mailmill.store.message_queries import places_of
from mailmill.store.request_rows import NewRequest, Place, RequestKind, RequestRow, Upload
from mailmill.store.tables import message
from mailmill.sync.report import PassReport

TENANT = "default"


async def place_of(account: SyncedAccount, path: str, uid: int) -> tuple[int, Place]:
    """The message at ``uid`` of ``path`` as the store has it, and its place."""
    message_id = (await account.message_ids(path))[uid]
    async with account.database.read() as connection:
        [held] = [
            row for row in (await places_of(connection, [message_id]))[message_id] if (row.path, row.uid) == (path, uid)
        ]
    return message_id, Place(path, held.uid_validity, Uid(uid))


async def ask(
    account: SyncedAccount, kind: str, path: str, uid: int, target: str | None = None, **what: Any
) -> RequestRow:
    """A request about the message at ``uid`` of ``path``: ``flags`` with ``add`` and ``remove``, or ``move``, ``copy``,
    ``delete`` to ``target``. The account is told of it.
    """
    message_id, place = await place_of(account, path, uid)
    flags = {name: frozenset(what.pop(name, ())) for name in ("add", "remove")}
    new = NewRequest(TENANT, account.account_id, RequestKind(kind), message_id, place, target, **flags, **what)
    return await add(account, new)


async def place_of_content(account: SyncedAccount, raw: bytes) -> tuple[int, Place]:
    """The message of these bytes, and a place of it; one that does not matter where it has none any more."""
    async with account.database.read() as connection:
        message_id = await connection.scalar(
            select(message.c.id).where(message.c.sha256 == hashlib.sha256(raw).digest())
        )
        assert message_id is not None
        held = (await places_of(connection, [message_id])).get(message_id, [])
    if not held:
        return message_id, Place("INBOX", 1, Uid(1))
    return message_id, Place(held[0].path, held[0].uid_validity, Uid(held[0].uid))


async def ask_append(
    account: SyncedAccount,
    target: str,
    raw: bytes,
    flags: Iterable[str] = (),
    date: float | None = None,
    key: str | None = None,
) -> RequestRow:
    [ref] = await account.blobs.put_batch([raw])
    upload = Upload(ref.sha256, frozenset(flags), date, parse_headers(raw).message_id_header)
    async with account.database.write() as connection:
        await requests.keep_blob(connection, ref, time.time())
    return await add(
        account,
        NewRequest(
            TENANT, account.account_id, RequestKind.APPEND, target_path=target, upload=upload, idempotency_key=key
        ),
    )


async def add(account: SyncedAccount, new: NewRequest) -> RequestRow:
    async with account.database.write() as connection:
        row = await requests.add(connection, new, time.time())
    account.sync.write_back_wanted()
    return row


async def now(account: SyncedAccount, row: RequestRow) -> RequestRow:
    """The request as it stands."""
    async with account.database.read() as connection:
        return await requests.get(connection, row.id)


async def finished(account: SyncedAccount, row: RequestRow) -> RequestRow:
    """The request once it is done or failed, and synced; a hint wakes this, nothing is slept through."""
    async with asyncio.timeout(30):
        with account.database.wake.requests.subscribe() as hints:
            while not ((held := await now(account, row)).finished and account.sync.is_written(row.id)):
                await hints.wait(5)
    return held


async def write_once(account: SyncedAccount) -> PassReport:
    """Connect, apply, sync what was touched, log out, as a command without a service does."""
    report = await account.sync.write_once()
    assert not report.errors, report.errors
    return report


def outcome(row: RequestRow) -> tuple[str, str, str]:
    """State, error code and what stands beside it."""
    return (str(row.state), row.error_code, row.error or row.note)
