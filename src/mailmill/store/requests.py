"""Requests: what a person or program wants changed on the server, one row each, and what became of it.

States of a row::

    add ──▶ pending ──begin──▶ applying ──finish──▶ done
               ▲                  │  └─────fail───▶ failed
               └──defer, relocate─┘

Laws:

- `begin` commits, with the step and the mark that a search would need, *before* the command goes out. A row found in
  ``applying`` is one whose command may or may not have reached the server: `sync.write_plan` says how to tell.
- Requests about one message are applied one at a time, in the order they were made; those about different messages hold
  up nobody. So at most one row of a message is ever in ``applying``.
- An idempotency key stands for one request of its account for as long as the row is kept.
- A request that followed a message to another place is about that place from then on, and so are those behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, String, and_, delete, exists, func, literal_column, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import ConflictError, NotFoundError
from mailmill.model import Uid
from mailmill.store.blob_places import name_blobs
from mailmill.store.blobs import BlobRef
from mailmill.store.dialect import MAX_ROWS, storable
from mailmill.store.dialect import insert as upserting
from mailmill.store.request_rows import (
    Content,
    Failure,
    NewRequest,
    Place,
    RequestKind,
    RequestRow,
    RequestState,
    Step,
    Upload,
    data_text,
    failure_values,
    place_values,
    request_row,
)
from mailmill.store.tables import blob, mailbox, message, place, request
from mailmill.uid_set import UidSet

MAX_KEY_CHARACTERS = 200

# Literals, as in `work_state`: the partial indexes are found by them.
_OPEN_STATES: Final = (literal_column("'pending'", String), literal_column("'applying'", String))
_IS_OPEN: ColumnElement[bool] = request.c.state.in_(_OPEN_STATES)


# -- asking ------------------------------------------------------------------------------------------------------------


async def add(connection: AsyncConnection, new: NewRequest, now: float) -> RequestRow:
    """The request that was made, now or before under the same key.

    Raises ConflictError where the key stands for another request.
    """
    held = await made_before(connection, new)
    if held is not None:
        return held
    values = {
        "tenant_id": new.tenant_id,
        "account_id": new.account_id,
        "kind": str(new.kind),
        "message_id": new.message_id,
        **place_values(new.place),
        "target_path": storable(new.target_path) if new.target_path is not None else None,
        "data": data_text(new),
        "state": str(RequestState.PENDING),
        "run_at": now,
        "created_at": now,
        "idempotency_key": _key(new),
    }
    once = upserting(connection, request).values(**values)
    once = once.on_conflict_do_nothing(index_elements=["account_id", "idempotency_key"])
    try:
        row = (await connection.execute(once.returning(request))).first()
    except IntegrityError as error:
        raise NotFoundError(f"there is no account with id {new.account_id}") from error
    if row is not None:
        return request_row(row)
    # Another transaction made it since we looked.
    held = await made_before(connection, new)
    assert held is not None
    return held


async def made_before(connection: AsyncConnection, new: NewRequest) -> RequestRow | None:
    """The request that the key of ``new`` stands for. Where the message is, and where the trash is, is no part of the
    question: the first request may have changed it. So ``new.place``, and of a delete its target, may be left out.

    Raises ConflictError where the key stands for another request.
    """
    if new.idempotency_key is None:
        return None
    wanted = select(request).where(request.c.account_id == new.account_id, request.c.idempotency_key == _key(new))
    held = (await connection.execute(wanted)).first()
    if held is None:
        return None
    asked = (str(new.kind), new.message_id, data_text(new))
    same_target = new.kind is RequestKind.DELETE or held.target_path == new.target_path
    if (held.kind, held.message_id, held.data) != asked or not same_target:
        raise ConflictError(
            "this Idempotency-Key was used for another request",
            hint="a key stands for one request: make a new one for each",
        )
    return request_row(held)


def _key(new: NewRequest) -> str | None:
    return None if new.idempotency_key is None else storable(new.idempotency_key)[:MAX_KEY_CHARACTERS]


async def keep_blob(connection: AsyncConnection, ref: BlobRef, now: float, lost: Sequence[BlobRef] = ()) -> None:
    """Name the bytes of an upload, so that their segment is kept. The message that comes of it will name them too.

    ``lost``: where they lay before (`blob_places`).
    """
    await name_blobs(connection, [ref], lost, now)


async def get(connection: AsyncConnection, request_id: int, *, account_id: int | None = None) -> RequestRow:
    """Raises NotFoundError, also for a request of another account."""
    wanted = select(request).where(request.c.id == request_id)
    if account_id is not None:
        wanted = wanted.where(request.c.account_id == account_id)
    row = (await connection.execute(wanted)).first()
    if row is None:
        raise NotFoundError(f"there is no request {request_id}", hint="finished requests are kept for a week")
    return request_row(row)


async def list_requests(
    connection: AsyncConnection, account_id: int, *, state: str | None = None, limit: int = 100
) -> list[RequestRow]:
    """The newest first."""
    wanted = select(request).where(request.c.account_id == account_id).order_by(request.c.id.desc()).limit(limit)
    if state is not None:
        wanted = wanted.where(request.c.state == state)
    return [request_row(row) for row in await connection.execute(wanted)]


async def count_open(connection: AsyncConnection) -> dict[int, int]:
    """Account id → how many requests wait to be applied."""
    wanted = select(request.c.account_id, func.count()).where(_IS_OPEN).group_by(request.c.account_id)
    return {row[0]: row[1] for row in await connection.execute(wanted)}


# -- applying ----------------------------------------------------------------------------------------------------------


async def due(connection: AsyncConnection, account_id: int, now: float, limit: int = 1000) -> list[RequestRow]:
    """What can be applied now, in the order it was asked for: of each message the oldest open request, if it is due."""
    earlier = request.alias("earlier")
    blocked = exists().where(
        earlier.c.message_id == request.c.message_id,
        earlier.c.state.in_(_OPEN_STATES),
        earlier.c.id < request.c.id,
    )
    wanted = (
        select(request)
        .where(request.c.account_id == account_id, _IS_OPEN, request.c.run_at <= now, ~blocked)
        .order_by(request.c.id)
        .limit(limit)
    )
    return [request_row(row) for row in await connection.execute(wanted)]


async def next_due_at(connection: AsyncConnection, account_id: int, now: float) -> float | None:
    """When the next of the open requests that wait for their time is due; None where none waits."""
    waiting = [request.c.account_id == account_id, _IS_OPEN, request.c.run_at > now]
    at: float | None = await connection.scalar(select(func.min(request.c.run_at)).where(*waiting))
    return at


async def begin(
    connection: AsyncConnection,
    rows: Sequence[RequestRow],
    step: Step,
    *,
    retry_at: Mapping[int, float],
    target: tuple[int, int] | None = None,
) -> None:
    """To be committed before the command of ``step`` goes out; counts an attempt.

    ``target`` is UIDVALIDITY and UIDNEXT of the target mailbox as they are before it. ``retry_at`` says, by id, when a
    row that is found so after a crash is taken up again.
    """
    marks: dict[str, Any] = {}
    if target is not None:
        marks = {"target_uid_validity": target[0], "target_uid_next": target[1], "target_uid": None}
    for row in rows:
        await connection.execute(
            update(request)
            .where(request.c.id == row.id)
            .values(
                state=str(RequestState.APPLYING),
                step=str(step),
                attempts=request.c.attempts + 1,
                run_at=retry_at[row.id],
                **marks,
            )
        )


async def copied(connection: AsyncConnection, row: RequestRow, uid_validity: int | None, uid: Uid | None) -> None:
    """The copy is there; what is left is to remove the original. From here on nothing is copied again."""
    await connection.execute(
        update(request)
        .where(request.c.id == row.id)
        .values(step=str(Step.REMOVE), target_uid_validity=uid_validity, target_uid=uid)
    )


async def finish(
    connection: AsyncConnection, row: RequestRow, now: float, *, made: tuple[int, Uid] | None = None, note: str = ""
) -> None:
    """Done. ``made`` is UIDVALIDITY and UID in the target, where known.

    Where the message went there, later requests that are about the place it left go with it.
    """
    values: dict[str, Any] = {"target_uid_validity": made[0], "target_uid": made[1]} if made is not None else {}
    await connection.execute(
        update(request)
        .where(request.c.id == row.id)
        .values(
            state=str(RequestState.DONE),
            finished_at=now,
            note=storable(note),
            error_code="",
            last_error="",
            error_hint="",
            **values,
        )
    )
    moved = row.kind in (RequestKind.MOVE, RequestKind.DELETE) and row.target_path is not None
    if moved and made is not None and row.place is not None and row.message_id is not None:
        at = row.place
        assert row.target_path is not None
        await connection.execute(
            update(request)
            .where(
                request.c.message_id == row.message_id,
                _IS_OPEN,
                request.c.id > row.id,
                request.c.path == at.path,
                request.c.uid_validity == at.uid_validity,
                request.c.uid == at.uid,
            )
            .values(**place_values(Place(row.target_path, made[0], made[1])))
        )


async def fail(connection: AsyncConnection, row: RequestRow, failure: Failure, now: float) -> None:
    await connection.execute(
        update(request)
        .where(request.c.id == row.id)
        .values(state=str(RequestState.FAILED), finished_at=now, **failure_values(failure))
    )


async def defer(connection: AsyncConnection, row: RequestRow, failure: Failure, run_at: float, attempts: int) -> None:
    """Not now; it is tried again at ``run_at``. The step stays: its command may have been carried out all the same."""
    await connection.execute(
        update(request)
        .where(request.c.id == row.id)
        .values(run_at=run_at, attempts=attempts, **failure_values(failure))
    )


async def relocate(connection: AsyncConnection, row: RequestRow, to: Place, *, keep_step: bool = False) -> None:
    """The message is at ``to`` now, and this is about it there; counts an attempt, or two clients could chase it for
    ever. ``keep_step``: what was done at the target stands.
    """
    values: dict[str, Any] = {} if keep_step else {"state": str(RequestState.PENDING), "step": str(Step.NONE)}
    await connection.execute(
        update(request)
        .where(request.c.id == row.id)
        .values(**place_values(to), attempts=request.c.attempts + 1, **values)
    )


async def content_of(connection: AsyncConnection, row: RequestRow) -> Content | None:
    """By what the message of a request can be found in its target; None where the store knows nothing of it."""
    if row.upload is not None:
        size: int | None = await connection.scalar(select(blob.c.size_bytes).where(blob.c.sha256 == row.upload.sha256))
        return Content(row.upload.sha256, size, row.upload.message_id_header) if size is not None else None
    wanted = select(message).where(message.c.id == row.message_id)
    found = (await connection.execute(wanted)).first()
    if found is None:
        return None
    return Content(found.sha256, found.size_bytes, found.message_id_header, found.email_id, found.x_gm_msgid)


async def blob_of(connection: AsyncConnection, upload: Upload) -> BlobRef | None:
    """Where the bytes of an upload lie."""
    row = (await connection.execute(select(blob).where(blob.c.sha256 == upload.sha256))).first()
    return BlobRef(row.sha256, row.segment, row.offset_bytes, row.size_bytes) if row is not None else None


async def taken_uids(connection: AsyncConnection, row: RequestRow, path: str, uid_validity: int) -> UidSet:
    """UIDs of a mailbox that other requests have made: none of them is what ``row`` made."""
    wanted = select(request.c.target_uid).where(
        request.c.account_id == row.account_id,
        request.c.id != row.id,
        request.c.target_path == path,
        request.c.target_uid_validity == uid_validity,
        request.c.target_uid.is_not(None),
    )
    return UidSet((await connection.execute(wanted)).scalars())


async def prune(connection: AsyncConnection, finished_before: float) -> int:
    """Forget what finished before then; returns how many."""
    gone = await connection.execute(delete(request).where(request.c.finished_at < finished_before))
    return gone.rowcount


async def message_at(connection: AsyncConnection, rows: Collection[RequestRow]) -> dict[int, int]:
    """Request id → id of the message that it made (an append), as far as that is synced."""
    ids = [row.id for row in rows if row.kind is RequestKind.APPEND and row.target_uid is not None]
    found: dict[int, int] = {}
    for start in range(0, len(ids), MAX_ROWS):
        wanted = (
            select(request.c.id, place.c.message_id)
            .join(mailbox, and_(mailbox.c.account_id == request.c.account_id, mailbox.c.path == request.c.target_path))
            .join(
                place,
                and_(
                    place.c.mailbox_id == mailbox.c.id,
                    place.c.uid_validity == request.c.target_uid_validity,
                    place.c.uid == request.c.target_uid,
                ),
            )
            .where(request.c.id.in_(ids[start : start + MAX_ROWS]))
        )
        found.update((request_id, message_id) for request_id, message_id in await connection.execute(wanted))
    return found
