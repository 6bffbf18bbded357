"""What a sync batch changes, decided from what is stored. Pure: no I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mailmill.errors import StoreError
from mailmill.model import Address, Backlog, EventName, MessageMeta
from mailmill.store.batch_state import HeldMessage, HeldPlace, StoredState
from mailmill.store.blobs import BlobRef
from mailmill.store.dialect import storable
from mailmill.store.event_log import NewEvent
from mailmill.store.message_places import flags_of_text, flags_text, same_flags, updated
from mailmill.store.queue import BACKLOG, NEW_MAIL, NewWork
from mailmill.store.sender_counts import Sighting, answers_text, recipients_text, sightings
from mailmill.store.sync_batch import Arrival, StoredContent, SyncBatch, WorkPlan


class BlobRow(NamedTuple):
    sha256: bytes
    segment: str
    offset_bytes: int
    size_bytes: int
    created_at: float


class NewMessageRow(NamedTuple):
    id: int
    account_id: int
    sha256: bytes
    email_id: str | None
    x_gm_msgid: str | None
    thread_id: str | None
    size_bytes: int
    internal_date: float
    date_header: float | None
    subject: str
    from_name: str
    from_address: str
    message_id_header: str
    in_reply_to: str
    historical: bool
    stored_at: float
    recipients: str
    answers: str


class NewPlaceRow(NamedTuple):
    mailbox_id: int
    uid_validity: int
    uid: int
    message_id: int
    flags: str
    mod_seq: int | None
    seen_at: float


class DisplacedRow(NamedTuple):
    """The tombstone of a message whose UID stands for another one now. It is of no generation (0): its own place is
    the other's.
    """

    mailbox_id: int
    uid_validity: int
    uid: int
    message_id: int
    flags: str
    seen_at: float
    expunged_at: float


@dataclass(slots=True)
class BatchChanges:
    """Rows to write, table by table. ``given_again``: places whose UID stands for another message now; ``lost`` counts
    the messages that stood there.
    """

    blobs: list[BlobRow] = field(default_factory=list)
    messages: list[NewMessageRow] = field(default_factory=list)
    places: list[NewPlaceRow] = field(default_factory=list)
    revived_places: list[dict[str, Any]] = field(default_factory=list)
    replaced_places: list[dict[str, Any]] = field(default_factory=list)
    given_again: list[dict[str, Any]] = field(default_factory=list)
    displaced: list[DisplacedRow] = field(default_factory=list)
    flags: list[dict[str, Any]] = field(default_factory=list)
    revived_messages: set[int] = field(default_factory=set)
    identities: list[dict[str, Any]] = field(default_factory=list)
    seen: list[Sighting] = field(default_factory=list)
    work: list[NewWork] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)
    updated: int = 0
    lost: int = 0


def decide(stored: StoredState, batch: SyncBatch, work: WorkPlan, now: float, new_ids: Sequence[int]) -> BatchChanges:
    """``new_ids`` are as many as ``stored.new_digests``."""
    changes = BatchChanges()
    added: dict[int, NewPlaceRow] = {}
    given: dict[bytes, int] = {}
    # One word on each message's flags, or a replay would see the arrival take back what the change said.
    latest = {meta.uid: meta for meta in batch.flag_changes if meta.flags is not None}
    for arrival in batch.arrivals:
        meta = arrival.meta
        if change := latest.pop(meta.uid, None):
            meta = meta._replace(flags=change.flags, mod_seq=change.mod_seq)
        if meta.uid in added or meta.uid in batch.expunged:
            continue
        history = meta.uid < batch.cursor.historical_below and work.backlog is not Backlog.DELIVER
        held = stored.places.get(meta.uid)
        if held is not None and _is_same(stored, arrival, held):
            if held.expunged:
                _revive(changes, stored, batch, held, meta, now, history)
            else:
                _take_flags(changes, stored, batch, meta, now)
            continue
        if arrival.content is None:
            existing = stored.by_id[arrival.known_message_id] if arrival.known_message_id is not None else None
            if existing is None:
                raise StoreError("an arrival has neither content nor a known message", mailbox=stored.origin.path)
            message_id = existing.id
        else:
            digest = arrival.content.blob.sha256
            existing = stored.by_digest.get(digest)
            message_id = existing.id if existing is not None else given.get(digest, 0)
            if not message_id:
                message_id = given[digest] = new_ids[len(given)]
                _add_message(changes, stored, arrival.content, meta, message_id, work, now, history)
                added[meta.uid] = _place_row(stored, batch, meta, message_id, now)
                if held is not None:
                    _displace(changes, stored, added[meta.uid], held, now)
                continue
        added[meta.uid] = _place_row(stored, batch, meta, message_id, now)
        if held is not None:
            _displace(changes, stored, added[meta.uid], held, now)
        if existing is not None:
            _complete_identity(changes, existing, meta)
        if outdated := stored.outdated.get(message_id):
            # The same message under its UID of the new generation: renumbered, not added.
            uid_validity, uid = outdated.pop()
            changes.replaced_places.append(
                {"b_mailbox_id": stored.mailbox_id, "b_uid_validity": uid_validity, "b_uid": uid, "expunged_at": now}
            )
            continue
        if existing is not None and existing.deleted:
            changes.revived_messages.add(message_id)
        _tell_added(changes, stored, message_id, meta, now, history)
    for meta in latest.values():
        if meta.uid not in batch.expunged:
            _take_flags(changes, stored, batch, meta, now)
    changes.places = [row for row in added.values() if row.uid not in stored.places]
    changes.blobs += _mended(batch, {row.sha256 for row in changes.blobs}, now)
    return changes


def _mended(batch: SyncBatch, named: Collection[bytes], now: float) -> list[BlobRow]:
    """Contents that only messages of before need, whose old place is lost."""
    wanted = {ref.sha256 for ref in batch.lost}.difference(named)
    fresh = {arrival.content.blob.sha256: arrival.content.blob for arrival in batch.arrivals if arrival.content}
    return [_blob_row(ref, now) for digest, ref in fresh.items() if digest in wanted]


def _blob_row(ref: BlobRef, now: float) -> BlobRow:
    return BlobRow(ref.sha256, ref.segment, ref.offset_bytes, ref.size_bytes, now)


def _is_same(stored: StoredState, arrival: Arrival, held: HeldPlace) -> bool:
    """Whether the message at a UID is the one that the store has there. UIDs are given again by servers that were
    restored from a backup, or that recreate a mailbox under the same UIDVALIDITY.
    """
    if arrival.content is None:
        return arrival.known_message_id in (None, held.message_id)
    existing = stored.by_digest.get(arrival.content.blob.sha256)
    return existing is not None and existing.id == held.message_id


def _displace(changes: BatchChanges, stored: StoredState, row: NewPlaceRow, held: HeldPlace, now: float) -> None:
    changes.given_again.append(
        {
            "b_mailbox_id": row.mailbox_id,
            "b_uid_validity": row.uid_validity,
            "b_uid": row.uid,
            "message_id": row.message_id,
            "flags": row.flags,
            "mod_seq": row.mod_seq,
            "seen_at": row.seen_at,
            "expunged_at": None,
        }
    )
    changes.displaced.append(DisplacedRow(row.mailbox_id, 0, row.uid, held.message_id, held.flags, now, now))
    if not held.expunged:
        changes.lost += 1
        data: dict[str, Any] = {"removed": [stored.origin.path], "uid": row.uid}
        changes.events.append(updated(stored.origin, held.message_id, data, now, historical=False))


def _add_message(
    changes: BatchChanges,
    stored: StoredState,
    content: StoredContent,
    meta: MessageMeta,
    message_id: int,
    work: WorkPlan,
    now: float,
    history: bool,
) -> None:
    ref = content.blob
    origin = stored.origin
    changes.blobs.append(_blob_row(ref, now))
    date_header = _finite(content.date_header)
    internal_date = _finite(meta.internal_date)
    if internal_date is None:
        internal_date = now if date_header is None else date_header
    changes.messages.append(
        NewMessageRow(
            id=message_id,
            account_id=origin.account_id,
            sha256=ref.sha256,
            email_id=_storable_or_none(meta.email_id),
            x_gm_msgid=_storable_or_none(meta.x_gm_msgid),
            thread_id=_storable_or_none(meta.thread_id),
            size_bytes=ref.size_bytes,
            internal_date=internal_date,
            date_header=date_header,
            subject=storable(content.subject),
            from_name=storable(content.from_name),
            from_address=storable(content.from_address),
            message_id_header=storable(content.message_id_header),
            in_reply_to=storable(content.in_reply_to),
            historical=history,
            stored_at=now,
            recipients=recipients_text(content.recipients),
            answers=answers_text(content.references, content.in_reply_to),
        )
    )
    changes.seen += sightings(
        own=stored.own_address,
        path=origin.path,
        special_use=origin.special_use,
        from_=Address(content.from_name, content.from_address),
        recipients=content.recipients,
        at=internal_date,
    )
    changes.events.append(
        NewEvent(
            tenant_id=origin.tenant_id,
            event=EventName.MESSAGE_NEW,
            created_at=now,
            account_id=origin.account_id,
            path=origin.path,
            special_use=origin.special_use,
            message_id=message_id,
            historical=history,
            data={"uid": meta.uid},
        )
    )
    if history and work.backlog is Backlog.STORE:
        return
    priority = BACKLOG if history else NEW_MAIL
    changes.work += [
        NewWork(message_id, origin.account_id, stored.shard, processor, version, priority)
        for processor, version in work.processors
    ]


def _place_row(stored: StoredState, batch: SyncBatch, meta: MessageMeta, message_id: int, now: float) -> NewPlaceRow:
    flags = flags_text(meta.flags) if meta.flags else ""
    return NewPlaceRow(stored.mailbox_id, batch.uid_validity, meta.uid, message_id, flags, meta.mod_seq, now)


def _revive(
    changes: BatchChanges,
    stored: StoredState,
    batch: SyncBatch,
    held: HeldPlace,
    meta: MessageMeta,
    now: float,
    history: bool,
) -> None:
    changes.revived_places.append(
        {
            "b_mailbox_id": stored.mailbox_id,
            "b_uid_validity": batch.uid_validity,
            "b_uid": meta.uid,
            "flags": held.flags if meta.flags is None else flags_text(meta.flags),
            "mod_seq": meta.mod_seq,
            "expunged_at": None,
        }
    )
    changes.revived_messages.add(held.message_id)
    _tell_added(changes, stored, held.message_id, meta, now, history)


def _tell_added(
    changes: BatchChanges, stored: StoredState, message_id: int, meta: MessageMeta, now: float, history: bool
) -> None:
    changes.updated += 1
    data: dict[str, Any] = {"added": [stored.origin.path], "uid": meta.uid}
    changes.events.append(updated(stored.origin, message_id, data, now, historical=history))


def _take_flags(changes: BatchChanges, stored: StoredState, batch: SyncBatch, meta: MessageMeta, now: float) -> None:
    held = stored.places.get(meta.uid)
    if held is None or held.expunged or meta.flags is None:
        return
    text = flags_text(meta.flags)
    if same_flags(text, held.flags):
        return
    changes.flags.append(
        {
            "b_mailbox_id": stored.mailbox_id,
            "b_uid_validity": batch.uid_validity,
            "b_uid": meta.uid,
            "flags": text,
            "mod_seq": meta.mod_seq,
        }
    )
    changes.updated += 1
    data: dict[str, Any] = {"flags": list(flags_of_text(text)), "uid": meta.uid}
    changes.events.append(updated(stored.origin, held.message_id, data, now, historical=False))


def _complete_identity(changes: BatchChanges, existing: HeldMessage, meta: MessageMeta) -> None:
    """A message stored before its server told such ids gets them, so that it is found without a download next time."""
    email_id = existing.email_id or _storable_or_none(meta.email_id)
    x_gm_msgid = existing.x_gm_msgid or _storable_or_none(meta.x_gm_msgid)
    if (email_id, x_gm_msgid) != (existing.email_id, existing.x_gm_msgid):
        changes.identities.append({"b_id": existing.id, "email_id": email_id, "x_gm_msgid": x_gm_msgid})


def _storable_or_none(text: str | None) -> str | None:
    return storable(text) if text else None


def _finite(seconds: float | None) -> float | None:
    return seconds if seconds is not None and math.isfinite(seconds) else None
