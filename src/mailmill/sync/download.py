"""Fetching what a mailbox holds and we do not: newest first, in groups bounded by bytes, one transaction each.

While one group is being committed the next is hashed and written, and the one after it is on the wire. A message that
cannot be had is *parked*: it stays uncovered, is shown with its reason, is tried again later, and never stands in the
way of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mailmill.errors import CommandError, ConnectionLostError, ImapError, ProtocolError
from mailmill.imap.connection import ImapConnection
from mailmill.message_parser import HeaderSummary, parse_headers
from mailmill.model import MessageMeta, Uid
from mailmill.store import messages as store
from mailmill.store.blob_places import lost_places
from mailmill.store.blobs import BlobRef
from mailmill.store.messages import Arrival, Cursor, MailboxRow, StoredContent, SyncBatch
from mailmill.sync.changes import Changes, cover
from mailmill.sync.context import SyncContext
from mailmill.sync.report import PassReport
from mailmill.uid_set import UidSet

_HEADER_BYTES = 256 * 1024
# So few headers are read faster than a thread is woken.
_FEW = 4
# A message over the limit is looked at again so late: the limit may have been raised.
_TOO_LARGE_SECONDS = 24 * 3600.0
# What could not be had is tried again after a minute, then ever later: most servers are well again soon.
_FIRST_RETRY_SECONDS = 60.0
_RETRY_FACTOR = 4.0

# What is uncovered is written with each group, as text: a mailbox full of holes has it written less often.
_RANGES_PER_MESSAGE = 16

# A message in one generation of a mailbox: (mailbox id, UIDVALIDITY, UID).
_Key = tuple[int, int, Uid]


@dataclass(frozen=True, slots=True)
class _Group:
    """Messages that share a transaction: those to download, and those we know already under another place."""

    metas: tuple[MessageMeta, ...]
    known: tuple[tuple[MessageMeta, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Fetched:
    group: _Group
    bodies: dict[Uid, bytes | Path]
    gone: UidSet
    parked: tuple[tuple[Uid, str, float], ...]


class Downloader:
    """Downloads for one account. It remembers, across connections, which messages broke one."""

    def __init__(self, context: SyncContext) -> None:
        self._context = context
        self._failures: dict[_Key, int] = {}
        self._parkings: dict[_Key, int] = {}

    async def chunk(
        self,
        connection: ImapConnection,
        row: MailboxRow,
        changes: Changes,
        uids: UidSet,
        report: PassReport,
        *,
        arrived_at: float | None,
    ) -> MailboxRow:
        """Store ``uids`` of the selected mailbox, the first transaction carrying ``changes`` with it.

        Returns the row as committed. On any error what was committed stands, and what was not is still uncovered.
        """
        wanted = {uid: meta for uid, meta in changes.metas.items() if uid in uids}
        if unknown := uids - UidSet(wanted):
            reply = await connection.fetch_meta(unknown)
            wanted |= {meta.uid: meta for meta in reply.messages if meta.uid in unknown}
        absent = uids - UidSet(wanted)
        still_there = (await connection.search(absent)) & absent if absent else absent
        # The row's own generation is 0 until the first commit, so a failure must not be noted under it.
        generation = changes.cursor.uid_validity
        parked = [
            self._parked((row.id, generation, uid), "the server lists it but its FETCH response could not be read")
            for uid in still_there
        ]
        known = await self._known(list(wanted.values()))
        ranges = len(changes.cursor.uncovered.ranges)
        groups = list(self._groups(row.id, generation, known, wanted, ranges, parked))
        first = replace(changes, cursor=cover(changes.cursor, UidSet(), absent - still_there))
        if not groups or parked:
            nothing = _Fetched(_Group(()), {}, UidSet(), tuple(parked))
            row = await self._store(None, row, first, nothing, report, arrived_at=arrived_at)
            first = Changes(cursor=row.cursor)
        storing: list[asyncio.Task[MailboxRow]] = []
        spooled: list[Path] = []
        deadline = asyncio.get_running_loop().time() + self._context.limits.chunk_seconds
        try:
            for group in groups:
                fetched = await self._fetch(connection, row.id, generation, group, spooled)
                if len(storing) > 1:
                    # One group is committed, one is hashed and written, one is on the wire: memory holds no more.
                    await storing[-2]
                last = storing[-1] if storing else None
                storing.append(
                    asyncio.create_task(self._store(last, row, first, fetched, report, arrived_at=arrived_at))
                )
                if asyncio.get_running_loop().time() > deadline:
                    break
            if storing:
                row = await storing[-1]
        except asyncio.CancelledError:
            for task in storing:
                task.cancel()
            raise
        finally:
            # An error on the wire leaves groups in the hands of the store: each commits whole or not at all.
            await asyncio.gather(*storing, return_exceptions=True)
            if spooled:
                # What was stored is gone from there; the rest nobody will ask for.
                await asyncio.to_thread(_remove, spooled)
        return row

    async def _known(self, metas: Sequence[MessageMeta]) -> dict[tuple[str, int | None], int]:
        """Message ids by EMAILID or X-GM-MSGID, and size: a message in many mailboxes is downloaded once, and a server
        whose ids stand for several contents gives itself away by the size.
        """
        email_ids = [meta.email_id for meta in metas if meta.email_id]
        gmail_ids = [meta.x_gm_msgid for meta in metas if meta.x_gm_msgid]
        if not email_ids and not gmail_ids:
            return {}
        async with self._context.database.read() as reader:
            known = await store.find_known(reader, self._context.account_id, email_ids, gmail_ids)
            sizes = await store.sizes_of(reader, known.values())
        return {(identity, sizes.get(message_id)): message_id for identity, message_id in known.items()}

    def _groups(
        self,
        mailbox_id: int,
        generation: int,
        known: dict[tuple[str, int | None], int],
        wanted: dict[Uid, MessageMeta],
        ranges: int,
        parked: list[tuple[Uid, str, float]],
    ) -> Iterator[_Group]:
        limits = self._context.limits
        group_messages = max(limits.group_messages, ranges // _RANGES_PER_MESSAGE)
        suspects: list[MessageMeta] = []
        linked: list[tuple[MessageMeta, int]] = []
        metas: list[MessageMeta] = []
        claimed: set[str] = set()
        size = 0
        for uid in sorted(wanted, reverse=True):
            meta = wanted[uid]
            identity = meta.email_id or meta.x_gm_msgid
            if identity and (same := known.get((identity, meta.size_bytes))) is not None:
                linked.append((meta, same))
                continue
            if (meta.size_bytes or 0) > limits.max_message_bytes:
                later = self._context.clock() + _TOO_LARGE_SECONDS
                parked.append((uid, f"larger than max_message_bytes ({meta.size_bytes} bytes)", later))
                continue
            if self._failures.get((mailbox_id, generation, uid)):
                suspects.append(meta)
                continue
            if identity:
                if identity in claimed:
                    # The same message twice in this chunk: fetched by itself, its hash then finds the first.
                    suspects.append(meta)
                    continue
                claimed.add(identity)
            if metas and (size + (meta.size_bytes or 0) > limits.group_bytes or len(metas) >= group_messages):
                yield _Group(tuple(metas))
                metas, size = [], 0
            metas.append(meta)
            size += meta.size_bytes or 0
        if metas or linked:
            yield _Group(tuple(metas), tuple(linked))
        # The most suspect last: those that only shared a group with the culprit must not wait for it.
        for meta in sorted(suspects, key=lambda meta: self._failures.get((mailbox_id, generation, meta.uid), 0)):
            yield _Group((meta,))

    async def _fetch(
        self, connection: ImapConnection, mailbox_id: int, generation: int, group: _Group, spooled: list[Path]
    ) -> _Fetched:
        """The bodies of a group. Those that came as files are noted in ``spooled``, whatever becomes of them."""
        bodies: dict[Uid, bytes | Path] = {}
        if not group.metas:
            return _Fetched(group, bodies, UidSet(), ())
        sizes = {meta.uid: meta.size_bytes for meta in group.metas}
        uids = UidSet(sizes)
        refusal: CommandError | None = None
        try:
            async for fetched in connection.fetch_bodies(uids):
                if isinstance(fetched.body, Path):
                    spooled.append(fetched.body)
                # Some servers list a message before they have it, and send nothing in its place.
                if fetched.uid in uids and (fetched.body or not sizes[fetched.uid]):
                    bodies[fetched.uid] = fetched.body
        except CommandError as error:
            # NO may mean that some messages went away meanwhile (RFC 9051 §6.4.5); what came is good.
            refusal = error
        except (ProtocolError, ConnectionLostError) as error:
            self._blame(mailbox_id, generation, group, uids - UidSet(bodies), error)
            raise
        missing = uids - UidSet(bodies)
        still_there = (await connection.search(missing)) & missing if missing else missing
        if refusal is not None and len(uids) > 1:
            # A server may end at the first message it cannot read: those behind it are asked for alone, at once.
            self._blame(mailbox_id, generation, group, still_there, refusal)
            return _Fetched(group, bodies, missing - still_there, ())
        reason = "the server lists it but does not send it" if refusal is None else refusal.message
        parked = tuple(self._parked((mailbox_id, generation, uid), reason) for uid in still_there)
        return _Fetched(group, bodies, missing - still_there, parked)

    def _blame(self, mailbox_id: int, generation: int, group: _Group, missing: UidSet, error: ImapError) -> None:
        """Remember which messages did not come when a fetch failed: next time they come alone, and last."""
        for meta in group.metas:
            if meta.uid in missing:
                key = (mailbox_id, generation, meta.uid)
                alone = len(group.metas) == 1
                step = self._context.limits.attempts_per_message if alone and isinstance(error, ProtocolError) else 1
                self._failures[key] = self._failures.get(key, 0) + step

    def broken(self, mailbox_id: int, cursor: Cursor) -> tuple[tuple[Uid, str, float], ...]:
        """Those that ``cursor`` leaves uncovered and that broke connections so often that they must be parked."""
        limit = self._context.limits.attempts_per_message
        out = []
        for key, count in list(self._failures.items()):
            uid = key[2]
            if key[:2] == (mailbox_id, cursor.uid_validity) and uid in cursor.uncovered and count >= limit:
                out.append(self._parked(key, f"the connection broke {count} times while fetching it"))
                # When it is due again it gets one more try of its own.
                self._failures[key] = limit - 1
        return tuple(out)

    def _parked(self, key: _Key, reason: str) -> tuple[Uid, str, float]:
        """An entry of `store.park`, with the time of the next try."""
        parkings = self._parkings[key] = self._parkings.get(key, 0) + 1
        longest = self._context.limits.parked_retry_seconds
        delay = min(longest, _FIRST_RETRY_SECONDS * _RETRY_FACTOR ** min(parkings - 1, 10))
        return key[2], reason, self._context.clock() + delay

    async def _store(
        self,
        before: asyncio.Task[MailboxRow] | None,
        row: MailboxRow,
        changes: Changes,
        fetched: _Fetched,
        report: PassReport,
        *,
        arrived_at: float | None,
    ) -> MailboxRow:
        """Put a group's bytes on disk, then, once the group ``before`` it is committed, commit it."""
        context = self._context
        order = [meta for meta in fetched.group.metas if meta.uid in fetched.bodies]
        contents = [fetched.bodies[meta.uid] for meta in order]
        if all(isinstance(content, bytes) for content in contents) and len(contents) <= _FEW:
            summaries = _summaries(contents)
        else:
            summaries = await asyncio.to_thread(_summaries, contents)
        refs = await context.blobs.put_batch(contents) if contents else []
        lost = await lost_places(context.database, context.blobs, refs)
        arrivals = [
            Arrival(meta=meta, content=_stored(ref, summary), known_message_id=None)
            for meta, ref, summary in zip(order, refs, summaries, strict=True)
        ]
        if before is not None:
            row = await before
            changes = Changes(cursor=row.cursor)
        arrivals += [
            Arrival(meta=meta, content=None, known_message_id=message_id) for meta, message_id in fetched.group.known
        ]
        covered = UidSet(arrival.meta.uid for arrival in arrivals)
        cursor = cover(changes.cursor, covered, fetched.gone)
        batch = SyncBatch(
            mailbox=row,
            uid_validity=cursor.uid_validity,
            arrivals=arrivals,
            flag_changes=changes.flag_changes,
            expunged=changes.expunged,
            cursor=cursor,
            parked=fetched.parked,
            lost=lost,
        )
        row = await context.commit(batch, report, arrived_at=arrived_at)
        for meta in order:
            self._failures.pop((row.id, cursor.uid_validity, meta.uid), None)
            self._parkings.pop((row.id, cursor.uid_validity, meta.uid), None)
        return row


def _summaries(contents: Sequence[bytes | Path]) -> list[HeaderSummary]:
    summaries = []
    for content in contents:
        if isinstance(content, Path):
            with content.open("rb") as file:
                summaries.append(parse_headers(file.read(_HEADER_BYTES)))
        else:
            summaries.append(parse_headers(content))
    return summaries


def _stored(ref: BlobRef, summary: HeaderSummary) -> StoredContent:
    sender = summary.from_[0] if summary.from_ else None
    return StoredContent(
        blob=ref,
        subject=summary.subject,
        from_name=sender.name if sender else "",
        from_address=sender.address if sender else "",
        date_header=summary.date,
        message_id_header=summary.message_id_header,
        in_reply_to=summary.in_reply_to,
        recipients=summary.to + summary.cc,
        references=summary.references,
    )


def _remove(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
