"""What the store holds, read for `verify` alone: plain statements and plain file access.

Law: nothing here is shared with what sync reads or writes with, so that no code vouches for itself; of raw messages in
an object store the bytes come through its door, and are judged here. Nothing is written.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import StorageUnavailableError, StoreError
from mailmill.model import Flags, Uid
from mailmill.store.blobs import BlobStore
from mailmill.store.tables import blob, mailbox, message, parked, place
from mailmill.uid_set import UidSet

# Rows read before the loop turns again.
_ROWS_AT_ONCE = 10_000
_NAMED_AT_ONCE = 500
_PIECE_BYTES = 1024 * 1024
_OBJECT_PIECE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredMailbox:
    """A mailbox row and what stands in it, all of one moment.

    ``living``: UIDs of its living places in the generation ``uid_validity``; ``of_old``: those of living places in
    other generations; ``parked``: UID → why it could not be fetched; ``undead``: UIDs of living places whose message
    counts as deleted. ``uncovered`` is None where the cursor's text cannot be read.
    """

    id: int
    path: str
    selectable: bool
    uid_validity: int
    uid_next: int
    messages: int
    highest_mod_seq: int | None
    uncovered: UidSet | None
    living: UidSet = field(default_factory=UidSet)
    of_old: UidSet = field(default_factory=UidSet)
    parked: Mapping[Uid, str] = field(default_factory=dict)
    undead: UidSet = field(default_factory=UidSet)


@dataclass(frozen=True, slots=True)
class StoredContent:
    """The content that stands at a UID. ``segment`` is None where no row says where its bytes lie."""

    uid: Uid
    message_id: int
    sha256: bytes
    size_bytes: int
    segment: str | None
    offset_bytes: int
    stored_bytes: int


async def stored_paths(connection: AsyncConnection, account_id: int) -> tuple[dict[str, bool], int]:
    """Path → whether it can be selected, of the account's living mailboxes; and about how many messages they hold."""
    wanted = select(mailbox.c.path, mailbox.c.selectable, mailbox.c.messages).where(
        mailbox.c.account_id == account_id, mailbox.c.deleted_at.is_(None)
    )
    rows = (await connection.execute(wanted)).all()
    return {row.path: bool(row.selectable) for row in rows}, sum(row.messages for row in rows)


async def stored_mailbox(connection: AsyncConnection, account_id: int, path: str) -> StoredMailbox | None:
    """The living mailbox at ``path``; None where there is none. ``connection`` is one snapshot."""
    wanted = select(mailbox).where(
        mailbox.c.account_id == account_id, mailbox.c.path == path, mailbox.c.deleted_at.is_(None)
    )
    row = (await connection.execute(wanted)).first()
    if row is None:
        return None
    here = place.c.mailbox_id == row.id
    living = place.c.expunged_at.is_(None)
    generation = place.c.uid_validity == row.uid_validity
    why = select(parked.c.uid, parked.c.reason).where(
        parked.c.mailbox_id == row.id, parked.c.uid_validity == row.uid_validity
    )
    # By the generations there are: a condition "<>" would read every place of the mailbox.
    generations = (await connection.execute(select(place.c.uid_validity).where(here).distinct())).scalars().all()
    old = UidSet()
    for each in generations:
        if each != row.uid_validity:
            old = old | await _uids(connection, and_(here, place.c.uid_validity == each, living))
    return StoredMailbox(
        id=row.id,
        path=row.path,
        selectable=bool(row.selectable),
        uid_validity=row.uid_validity,
        uid_next=row.uid_next,
        messages=row.messages,
        highest_mod_seq=row.highest_mod_seq,
        uncovered=_parsed(row.uncovered),
        living=await _uids(connection, and_(here, generation, living)),
        of_old=old,
        parked={Uid(each.uid): each.reason for each in await connection.execute(why)},
        undead=await _uids(connection, and_(here, generation, living), message.c.deleted_at.is_not(None)),
    )


async def stored_flags(connection: AsyncConnection, row: StoredMailbox, uids: UidSet) -> dict[Uid, Flags]:
    """UID → flags of the living places at ``uids``."""
    if not uids:
        return {}
    low, high = uids.ranges[0][0], uids.ranges[-1][1]
    listed = list(uids)
    conditions: list[ColumnElement[bool]] = [place.c.uid.between(low, high)]
    if high - low > 2 * len(listed):
        conditions = [
            place.c.uid.in_(listed[start : start + _NAMED_AT_ONCE]) for start in range(0, len(listed), _NAMED_AT_ONCE)
        ]
    found: dict[Uid, Flags] = {}
    for condition in conditions:
        wanted = select(place.c.uid, place.c.flags).where(_in_mailbox(row), condition)
        found |= {Uid(each.uid): frozenset(each.flags.split()) for each in await connection.execute(wanted)}
    return found


async def stored_contents(connection: AsyncConnection, row: StoredMailbox, uids: UidSet) -> list[StoredContent]:
    """The contents of the living places at ``uids``; left out are those whose raw bytes retention took."""
    found: list[StoredContent] = []
    listed = list(uids)
    for start in range(0, len(listed), _NAMED_AT_ONCE):
        wanted = (
            select(
                place.c.uid,
                message.c.id,
                message.c.sha256,
                message.c.size_bytes,
                blob.c.segment,
                blob.c.offset_bytes,
                blob.c.size_bytes.label("stored_bytes"),
            )
            .join(message, message.c.id == place.c.message_id)
            .outerjoin(blob, blob.c.sha256 == message.c.sha256)
            .where(
                _in_mailbox(row),
                place.c.uid.in_(listed[start : start + _NAMED_AT_ONCE]),
                message.c.raw_expired_at.is_(None),
            )
        )
        found += [
            StoredContent(
                Uid(each.uid),
                each.id,
                bytes(each.sha256),
                each.size_bytes,
                each.segment,
                each.offset_bytes or 0,
                each.stored_bytes or 0,
            )
            for each in await connection.execute(wanted)
        ]
    return found


async def find_faults(blobs: BlobStore, contents: Collection[StoredContent]) -> dict[Uid, str]:
    """UID → what is wrong with the stored bytes, of those that are not what their hash says.

    Raises StorageUnavailableError where nothing can be said, because no bytes can be had at all.
    """
    segments = blobs.segments_folder
    faults = {each.uid: fault for each in contents if (fault := _recorded_fault(each))}
    sound = [each for each in contents if each.uid not in faults]
    for content in sorted(sound, key=lambda each: (each.segment or "", each.offset_bytes)):
        if segments is None:
            fault = await _object_fault(blobs, content)
        else:
            fault = await asyncio.to_thread(_file_fault, segments, content)
        if fault:
            faults[content.uid] = fault
    return faults


def _recorded_fault(content: StoredContent) -> str:
    if content.segment is None:
        return "no row says where its raw bytes lie"
    if content.stored_bytes != content.size_bytes:
        return f"its raw bytes are recorded with {content.stored_bytes} bytes, the message with {content.size_bytes}"
    return ""


async def _object_fault(blobs: BlobStore, content: StoredContent) -> str:
    assert content.segment is not None
    hasher = hashlib.sha256()
    offset, end = content.offset_bytes, content.offset_bytes + content.stored_bytes
    while offset < end:
        try:
            piece = await blobs.read_raw(content.segment, offset, min(end - offset, _OBJECT_PIECE_BYTES))
        except StorageUnavailableError:
            raise
        except StoreError as error:
            return error.message
        if not piece:
            return f"segment {content.segment} ends before its raw bytes do"
        await asyncio.to_thread(hasher.update, piece)
        offset += len(piece)
    return "" if hasher.digest() == content.sha256 else _damaged(content)


def _damaged(content: StoredContent) -> str:
    return f"segment {content.segment} is damaged: its bytes do not have the recorded hash"


def _file_fault(segments: Path, content: StoredContent) -> str:
    assert content.segment is not None
    hasher = hashlib.sha256()
    left = content.stored_bytes
    try:
        descriptor = os.open(segments / content.segment, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while left:
                piece = os.pread(
                    descriptor, min(left, _PIECE_BYTES), content.offset_bytes + content.stored_bytes - left
                )
                if not piece:
                    return f"segment {content.segment} ends before its raw bytes do"
                hasher.update(piece)
                left -= len(piece)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"segment {content.segment} cannot be read: {error.strerror}"
    return "" if hasher.digest() == content.sha256 else _damaged(content)


def _in_mailbox(row: StoredMailbox) -> ColumnElement[bool]:
    return and_(place.c.mailbox_id == row.id, place.c.uid_validity == row.uid_validity, place.c.expunged_at.is_(None))


async def _uids(
    connection: AsyncConnection, which: ColumnElement[bool], of_message: ColumnElement[bool] | None = None
) -> UidSet:
    """The UIDs of places, read in pieces, so that 200,000 of them neither fill memory nor hold up the loop."""
    ranges: list[tuple[int, int]] = []
    after = 0
    source: Any = place if of_message is None else place.join(message, message.c.id == place.c.message_id)
    while True:
        wanted = select(place.c.uid).select_from(source).where(which, place.c.uid > after)
        if of_message is not None:
            wanted = wanted.where(of_message)
        page = (await connection.execute(wanted.order_by(place.c.uid).limit(_ROWS_AT_ONCE))).scalars().all()
        for uid in page:
            if ranges and ranges[-1][1] + 1 == uid:
                ranges[-1] = (ranges[-1][0], uid)
            else:
                ranges.append((uid, uid))
        if len(page) < _ROWS_AT_ONCE:
            return UidSet.from_ranges(ranges)
        after = page[-1]


def _parsed(text: str) -> UidSet | None:
    try:
        return UidSet.parse(text)
    except ValueError:
        return None
