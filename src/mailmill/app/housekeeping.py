"""What is done now and then, beside the mail: letting go of what nobody needs any more.

::

    every hour ├── accounts that are being deleted, where a crash cut that short
               ├── senders of mail that an older version stored, after an upgrade
               ├── retention: raw mail, results, deleted messages past their time
               ├── finished requests of long ago
               ├── events past their time, with their deliveries
               └── blobs that nothing needs, then segments that no blob is in

One node of a fleet does it at a time. All of it is small transactions with other writers' turns between them, and each
judges anew what it deletes: to be cut anywhere costs nothing but time.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import select

from mailmill.app.changes import KEPT_SECONDS
from mailmill.app.removal import remove_what_is_free
from mailmill.errors import MailmillError
from mailmill.store import (
    account_removal,
    blob_references,
    dialect,
    event_retention,
    marks,
    message_counts,
    requests,
    retention,
    sender_counts,
)
from mailmill.store.blobs import ORPHAN_SECONDS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.app.application import Application
    from mailmill.store.blobs import BlobStore
    from mailmill.store.database import Database

PERIOD_SECONDS: Final = 3600.0

_TURN: Final = "housekeeping_at"
_BLOBS_AT_ONCE: Final = 2000
_EVENTS_AT_ONCE: Final = 500

_log = structlog.get_logger("mailmill.housekeeping")


async def keep_house(application: Application) -> None:
    """For ever. Nothing here is worth the service's life: what fails comes again in an hour."""
    told = False
    while True:
        try:
            told = told or await tell_if_held(application.database)
            days = application.settings.service.keep_events_days
            await one_round(application.database, application.blobs, None if days == "forever" else days * 86_400)
        except MailmillError as error:
            _log.warning("housekeeping failed", error=str(error), hint=error.hint)
        except Exception as error:  # noqa: BLE001 - the boundary
            # Rendered here: a logger's own rendering of an exception may fail, and would end this task.
            _log.error("housekeeping failed", error=str(error), exception="".join(traceback.format_exception(error)))
        await asyncio.sleep(PERIOD_SECONDS)


async def tell_if_held(database: Database) -> bool:
    """Say that raw mail is kept because the database was restored; whether that is so."""
    async with database.read() as connection:
        held = await blob_references.awaits_adoption(connection)
    if held:
        _log.warning(
            "no raw mail is removed: this database was restored, and another store may need what this one does not",
            hint="once no other store uses its folder or bucket: stop the service, mailmill db adopt",
        )
    return held


async def one_round(database: Database, blobs: BlobStore, keep_events_seconds: float | None = None) -> None:
    """All of it once; nothing where another node has done it within the hour. Events are kept for good where no time is
    given.
    """
    if not database.alone:
        async with database.write() as connection:
            if not await take_turn(connection):
                return
    async with database.read() as connection:
        removals = await account_removal.removals(connection)
    for removal in removals:
        _log.info("going on with the deletion of an account", account=removal.name)
        await remove_what_is_free(database, removal.account_id)
    await count_older_mail(database)
    await expire(database)
    async with database.write() as connection:
        await requests.prune(connection, await _now(connection) - KEPT_SECONDS)
    if keep_events_seconds is not None:
        await forget_events(database, keep_events_seconds)
    await collect(database, blobs)


async def take_turn(connection: AsyncConnection, period_seconds: float = PERIOD_SECONDS) -> bool:
    """Whether it is time again; if so it is ours to do."""
    now = await _now(connection)
    # A little early, or two rounds of one node would miss each other by a hair every second time.
    if await marks.lock(connection, _TURN) > now - 0.9 * period_seconds:
        return False
    await marks.move(connection, _TURN, int(now))
    return True


async def count_older_mail(database: Database) -> None:
    """What an older version stored, into the sender history."""
    counted = 0
    while True:
        async with database.write() as connection:
            piece = await sender_counts.count_older(connection)
        counted += piece
        if not piece:
            break
    if counted:
        _log.info("counted the senders of mail that an older version stored", messages=counted)


async def expire(database: Database) -> None:
    """What is past its account's retention."""
    async with database.read() as connection:
        limited = await retention.limited_accounts(connection)
    gone = {"raw": 0, "results": 0, "messages": 0}
    for account_id, kept in limited.items():
        after: retention.Mark | None = None
        while True:
            async with database.read() as connection:
                now = await _now(connection)
                due = await retention.due(connection, account_id, kept, now, after)
            for ids, name, let_go in (
                (due.raw, "raw", retention.expire_raw),
                (due.results, "results", retention.expire_results),
                (due.deleted, "messages", retention.purge_deleted),
            ):
                for start in range(0, len(ids), retention.PIECE):
                    async with database.write() as connection:
                        gone[name] += await let_go(connection, ids[start : start + retention.PIECE], kept, now)
            if due.next is None:
                break
            after = due.next
    if any(gone.values()):
        _log.info("retention", raw_messages=gone["raw"], results=gone["results"], deleted_messages=gone["messages"])


async def forget_events(database: Database, keep_seconds: float) -> None:
    """The front of the event log that is past its time, with its deliveries."""
    removed = 0
    while True:
        async with database.write() as connection:
            piece = await event_retention.prune(connection, dialect.now(connection) - keep_seconds, _EVENTS_AT_ONCE)
        removed += piece
        if piece < _EVENTS_AT_ONCE:
            break
    if removed:
        _log.info("removed old events", events=removed)


async def collect(database: Database, blobs: BlobStore, older_than_seconds: float = ORPHAN_SECONDS) -> None:
    """Blobs that nothing needs are forgotten, segments that no blob is in are removed."""
    async with database.read() as connection:
        touched_before = await _now(connection) - older_than_seconds
    forgotten = 0
    after = b""
    while True:
        async with database.read() as connection:
            found = await blob_references.unneeded(connection, touched_before, after, _BLOBS_AT_ONCE)
        for some in dialect.chunks(found):
            async with database.write() as connection:
                forgotten += await blob_references.forget(connection, some, touched_before)
        if len(found) < _BLOBS_AT_ONCE:
            break
        after = found[-1]
    removed = await _remove_orphans(database, blobs, older_than_seconds)
    if forgotten or removed:
        _log.info("removed raw mail that nothing needs", blobs=forgotten, segments=removed)


async def _remove_orphans(database: Database, blobs: BlobStore, older_than_seconds: float) -> int:
    async with database.read() as connection:
        if await blob_references.is_held(connection):
            return 0
    # Before the names: the law is in `blobs`.
    written_before = await blobs.orphan_limit(older_than_seconds)
    async with database.read() as connection:
        # Together: a backup whose snapshot names a segment that was forgotten since has laid its hold by now.
        if await blob_references.is_held(connection):
            return 0
        referenced = await message_counts.referenced_segments(connection)
    return await blobs.collect_orphans(referenced, written_before)


async def _now(connection: AsyncConnection) -> float:
    """The database's clock: a node whose own jumps ahead must not let go of mail, nor keep the others from it."""
    now: float = (await connection.execute(select(dialect.now(connection)))).scalar_one()
    return now
