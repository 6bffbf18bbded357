"""Rows for tests of the queue and the worker: one account after the other, messages with content, work over them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from harness import steps
from mailmill.store import queue
from mailmill.store.blobs import BlobStore
from mailmill.store.queue import Claim, Finished, NewWork
from mailmill.store.queue_front import Front
from mailmill.store.tables import account, blob, event, mailbox, message, place, tenant


async def add_account(connection: AsyncConnection, account_id: int = 1) -> None:
    if await connection.scalar(select(tenant.c.id).where(tenant.c.id == "default")) is None:
        await connection.execute(insert(tenant).values(id="default"))
    await connection.execute(
        insert(account).values(
            id=account_id,
            tenant_id="default",
            name=f"account{account_id}",
            email=f"me{account_id}@example.org",
            shard=0,
            backlog="process",
            state="connected",
            state_changed_at=1.0,
            added_at=1.0,
        )
    )


async def add_messages(
    connection: AsyncConnection, message_ids: Iterable[int], *, account_id: int = 1, historical: bool = False
) -> None:
    for message_id in message_ids:
        await _add_message(connection, message_id, message_id.to_bytes(32, "big"), 10, account_id, historical)


async def add_mail(
    connection: AsyncConnection, blobs: BlobStore, contents: Sequence[bytes], *, first_id: int = 1, account_id: int = 1
) -> list[int]:
    """Messages with real content; their ids are ``first_id`` and on."""
    refs = await blobs.put_batch(contents)
    ids = []
    for offset, ref in enumerate(refs):
        await connection.execute(
            insert(blob).values(
                sha256=ref.sha256,
                segment=ref.segment,
                offset_bytes=ref.offset_bytes,
                size_bytes=ref.size_bytes,
                created_at=1.0,
            )
        )
        await _add_message(connection, first_id + offset, ref.sha256, ref.size_bytes, account_id, False)
        ids.append(first_id + offset)
    return ids


async def add_place(connection: AsyncConnection, message_id: int, path: str, *, account_id: int = 1) -> None:
    mailbox_id = await connection.scalar(select(mailbox.c.id).where(mailbox.c.path == path))
    if mailbox_id is None:
        mailbox_id = 1 + len((await connection.execute(select(mailbox.c.id))).all())
        await connection.execute(
            insert(mailbox).values(id=mailbox_id, account_id=account_id, path=path, selectable=True)
        )
    await connection.execute(
        insert(place).values(
            mailbox_id=mailbox_id, uid_validity=1, uid=message_id, message_id=message_id, flags="", seen_at=1.0
        )
    )


def new_work(message_id: int, processor: str = "threat", *, account_id: int = 1, **changed: Any) -> NewWork:
    values: dict[str, Any] = {"shard": 0, "version": 1, "priority": queue.NEW_MAIL} | changed
    return NewWork(message_id=message_id, account_id=account_id, processor=processor, **values)


async def claim(
    connection: AsyncConnection,
    worker_id: str = "w",
    limit: int = 100,
    processor: str = "threat",
    now: float = 100.0,
    crashed: bool = False,
    front: Front | None = None,
) -> list[Claim]:
    return await steps.claim(
        connection,
        processor=processor,
        worker_id=worker_id,
        limit=limit,
        deadline_seconds=3600,
        now=now,
        crashed=crashed,
        front=front,
    )


def finished(claimed: Claim, value: str = "{}", announce: tuple[str, ...] = ()) -> Finished:
    return Finished(claimed, value, 0.1, announce)


async def events(connection: AsyncConnection) -> list[tuple[str, int | None]]:
    rows = await connection.execute(select(event.c.event, event.c.message_id).order_by(event.c.id))
    return [(row.event, row.message_id) for row in rows]


class Told(NamedTuple):
    """An event as it stands in the table."""

    event: str
    message_id: int | None
    path: str | None
    historical: bool
    account_id: int | None
    data: dict[str, Any]


async def told(connection: AsyncConnection) -> list[Told]:
    """The events that were written, by their ids: also those that readers do not see yet."""
    columns = (event.c.event, event.c.message_id, event.c.path, event.c.historical, event.c.account_id, event.c.data)
    rows = await connection.execute(select(*columns).order_by(event.c.id))
    return [Told(*row[:5], json.loads(row.data)) for row in rows]


async def _add_message(
    connection: AsyncConnection, message_id: int, sha256: bytes, size_bytes: int, account_id: int, historical: bool
) -> None:
    await connection.execute(
        insert(message).values(
            id=message_id,
            account_id=account_id,
            sha256=sha256,
            size_bytes=size_bytes,
            internal_date=1.0,
            subject=f"subject {message_id}",
            from_name="",
            from_address="",
            message_id_header="",
            in_reply_to="",
            historical=historical,
            stored_at=1.0,
        )
    )
