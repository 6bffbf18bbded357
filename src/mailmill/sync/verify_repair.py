"""Mending what `verify` found, with the least force.

=====================  ==========================================================================================
gap                    what is done
=====================  ==========================================================================================
``missing``            put among the cursor's ``uncovered``; the pass that follows fetches it
``pending``            nothing: the pass fetches it
``parked``             tried again now
``surplus``            an exact search says that it is gone; then its place becomes a tombstone
``flags``              the server's flags are read again and stored
``cursor``             marks above the server's come down, what is named wrongly is taken out, the count is our own
``deleted``            the message does not count as deleted any more
``unreadable``         fetched again; where the bytes have the recorded hash they get a new place on the disk
mailboxes, generation  nothing: the pass, with nothing remembered, sees them
``content``            nothing (see below)
=====================  ==========================================================================================

A UID names the same bytes for ever (RFC 9051 §2.3.1.1). Where the server sends others, what was stored first is kept:
results and alerts stand on it, and a server that renders mail anew at each fetch would make a new message of every
look.

Laws: what is asked of the server is asked before (``prepare_repair``); what is written is written by the account's
owner (``Repair.apply``), one transaction for each mailbox, with the events that sync itself would raise. But for raw
bytes that were fetched again: they are nobody's own, and named as soon as they are on the disk, since what nobody names
is collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from mailmill.errors import ArgumentError, CommandError, NotFoundError
from mailmill.imap.connection import ImapConnection
from mailmill.model import MessageMeta, Uid
from mailmill.store import dialect, repairs
from mailmill.store.blob_places import lost_places, name_blobs
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.messages import StaleBatchError, SyncBatch, WorkPlan, apply_batch, get_mailbox
from mailmill.store.verify_reads import stored_contents, stored_mailbox
from mailmill.sync.verify_compare import Gap, GapKind, pages
from mailmill.uid_set import UidSet

_log = structlog.get_logger("mailmill.sync")

# Bodies fetched before they are written and let go.
_GROUP_MESSAGES = 20

_NO_WORK = WorkPlan(processors=())
_ASKED_OF_THE_SERVER = frozenset({GapKind.SURPLUS, GapKind.FLAGS, GapKind.CURSOR, GapKind.UNREADABLE})


@dataclass(slots=True)
class _MailboxRepair:
    """What one mailbox is to become. ``uid_validity`` is the generation all this was found in."""

    path: str
    uid_validity: int
    uid_next: int
    existing: UidSet
    missing: UidSet = field(default_factory=UidSet)
    parked: UidSet = field(default_factory=UidSet)
    gone: UidSet = field(default_factory=UidSet)
    revived: UidSet = field(default_factory=UidSet)
    not_uncovered: UidSet = field(default_factory=UidSet)
    flags: Sequence[MessageMeta] = ()
    mend_cursor: bool = False


class Repair:
    """What is to be written. ``apply`` is for the account's owner to run."""

    def __init__(self, database: Database, account_id: int, mailboxes: Sequence[_MailboxRepair]) -> None:
        self._database = database
        self._account_id = account_id
        self._mailboxes = mailboxes

    async def apply(self) -> None:
        """One transaction for each mailbox. A mailbox that has changed its generation since is left alone."""
        for each in self._mailboxes:
            try:
                await self._apply(each)
            except (NotFoundError, StaleBatchError) as error:
                _log.info("not repaired, the mailbox has changed since", mailbox=each.path, reason=error.message)

    async def _apply(self, repair: _MailboxRepair) -> None:
        async with self._database.write() as connection:
            now = await dialect.read_now(connection)
            plain = await stored_mailbox(connection, self._account_id, repair.path)
            if plain is None or plain.uid_validity != repair.uid_validity:
                raise StaleBatchError("the mailbox is in another generation by now", mailbox=repair.path)
            row = await get_mailbox(connection, self._account_id, repair.path)
            cursor = row.cursor
            uncovered = (cursor.uncovered | (repair.missing - plain.living)) - repair.not_uncovered
            if repair.mend_cursor:
                cursor = replace(cursor, uid_next=min(cursor.uid_next, repair.uid_next), highest_mod_seq=None)
            cursor = replace(
                cursor,
                uncovered=uncovered,
                uid_next=max(cursor.uid_next, (uncovered.highest or 0) + 1),
                messages=len((plain.living - repair.gone) | uncovered),
            )
            batch = SyncBatch(
                mailbox=row,
                uid_validity=repair.uid_validity,
                arrivals=(),
                flag_changes=repair.flags,
                expunged=repair.gone,
                cursor=cursor,
            )
            await apply_batch(connection, batch, _NO_WORK, now)
            await repairs.retry_parked(connection, row.id, repair.uid_validity, repair.parked, now)
            await repairs.revive_messages(connection, row, repair.revived, now)


async def prepare_repair(
    database: Database,
    blobs: BlobStore,
    account_id: int,
    lease: Callable[[str | None], AbstractAsyncContextManager[ImapConnection]],
    gaps: Iterable[Gap],
) -> Repair:
    """Ask the server what the repair needs. Raw bytes fetched again are on the disk when it returns, and named.

    Raises `ImapError` and `StoreError`.
    """
    by_path: dict[str, list[Gap]] = {}
    for gap in gaps:
        by_path.setdefault(gap.path, []).append(gap)
    prepared = []
    for path, its_gaps in by_path.items():
        async with database.read() as reader:
            stored = await stored_mailbox(reader, account_id, path)
        if stored is None or any(gap.kind is GapKind.GENERATION for gap in its_gaps):
            continue
        async with lease(path) as connection:
            try:
                status = await connection.select(path)
            except (CommandError, ArgumentError):
                continue
            if status.uid_validity != stored.uid_validity:
                continue
            existing = await connection.search()
            repair = _MailboxRepair(
                path, status.uid_validity, max(status.uid_next, (existing.highest or 0) + 1), existing
            )
            for gap in its_gaps:
                await _prepare(database, blobs, account_id, connection, repair, gap)
            prepared.append(repair)
    return Repair(database, account_id, prepared)


async def _prepare(
    database: Database,
    blobs: BlobStore,
    account_id: int,
    connection: ImapConnection,
    repair: _MailboxRepair,
    gap: Gap,
) -> None:
    match gap.kind:
        case GapKind.MISSING:
            repair.missing = repair.missing | (gap.uids & repair.existing)
        case GapKind.PARKED:
            repair.parked = repair.parked | gap.uids
        case GapKind.SURPLUS:
            # Absence is not deletion: an exact search of these, besides the listing.
            repair.gone = repair.gone | (gap.uids - repair.existing - await connection.search(gap.uids))
        case GapKind.CURSOR:
            repair.mend_cursor = True
            repair.not_uncovered = repair.not_uncovered | gap.uids
        case GapKind.FLAGS:
            reply = await connection.fetch_flags(gap.uids)
            repair.flags = [*repair.flags, *(meta for meta in reply.messages if meta.uid in gap.uids)]
        case GapKind.DELETED:
            repair.revived = repair.revived | gap.uids
        case GapKind.UNREADABLE:
            async with database.read() as reader:
                stored = await stored_mailbox(reader, account_id, gap.path)
                contents = await stored_contents(reader, stored, gap.uids) if stored is not None else []
            recorded = {content.uid: content.sha256 for content in contents}
            await _fetch_again(database, blobs, connection, recorded)
        case _:
            pass


async def _fetch_again(
    database: Database, blobs: BlobStore, connection: ImapConnection, recorded: dict[Uid, bytes]
) -> None:
    """A new place for the bytes of these messages, of those whose bytes on the server have the recorded hash."""
    wanted = set(recorded.values())
    for uids in pages(UidSet(recorded), _GROUP_MESSAGES):
        bodies: list[bytes | Path] = []
        try:
            async for fetched in connection.fetch_bodies(uids):
                bodies.append(fetched.body)
        except CommandError as error:
            _log.info("not all could be fetched again", reason=error.message)
        stored = await blobs.put_batch(bodies)
        refs = [ref for ref in stored if ref.sha256 in wanted]
        lost = await lost_places(database, blobs, refs)
        async with database.write() as writer:
            await name_blobs(writer, refs, lost, await dialect.read_now(writer))
