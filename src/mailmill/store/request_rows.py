"""Requests as values, and as the columns of their rows: what is asked for, how far it is, what became of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Row

from mailmill.model import Flags, Uid
from mailmill.store.dialect import storable

_MAX_ERROR_CHARACTERS = 2000


class RequestKind(StrEnum):
    """``delete`` moves to its target (the trash), or where there is none removes for good."""

    FLAGS = "flags"
    MOVE = "move"
    COPY = "copy"
    DELETE = "delete"
    APPEND = "append"


class RequestState(StrEnum):
    PENDING = "pending"
    APPLYING = "applying"
    DONE = "done"
    FAILED = "failed"


class Step(StrEnum):
    """The command that was about to go out when the row was last committed."""

    NONE = ""
    STORE = "store"
    MOVE = "move"
    COPY = "copy"
    REMOVE = "remove"
    APPEND = "append"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message is: a UID in one generation of a mailbox."""

    path: str
    uid_validity: int
    uid: Uid


@dataclass(frozen=True, slots=True)
class Upload:
    """What an append uploads: the stored bytes, the flags it is to have, its date (epoch seconds; None: the server's
    clock), and the Message-ID it carries, by which it is looked for.
    """

    sha256: bytes
    flags: Flags = frozenset()
    internal_date: float | None = None
    message_id_header: str = ""


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request to be made. ``place`` is None for an append alone, ``target_path`` where nothing is put anywhere.

    ``permanent``: a delete that was asked not to go by way of the trash.
    """

    tenant_id: str
    account_id: int
    kind: RequestKind
    message_id: int | None = None
    place: Place | None = None
    target_path: str | None = None
    add: Flags = frozenset()
    remove: Flags = frozenset()
    upload: Upload | None = None
    permanent: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request as stored. Times are epoch seconds.

    ``target_uid_next`` is the target's UIDNEXT from before the command: what the command makes stands at or above it.
    ``target_uid`` is what it made, as soon as that is known. ``note`` is what is worth knowing about one that is done.
    """

    id: int
    account_id: int
    kind: RequestKind
    state: RequestState
    step: Step
    message_id: int | None
    place: Place | None
    target_path: str | None
    target_uid_validity: int | None
    target_uid_next: int | None
    target_uid: Uid | None
    add: Flags
    remove: Flags
    upload: Upload | None
    attempts: int
    run_at: float
    error_code: str
    error: str
    error_hint: str
    note: str
    created_at: float
    finished_at: float | None

    @property
    def finished(self) -> bool:
        return self.state in (RequestState.DONE, RequestState.FAILED)


@dataclass(frozen=True, slots=True)
class Content:
    """What a message is known by on the server, besides its place."""

    sha256: bytes
    size_bytes: int
    message_id_header: str = ""
    email_id: str | None = None
    x_gm_msgid: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request could not be applied: an error's ``code``, a line for a person, and what to do."""

    code: str
    message: str
    hint: str = ""


def data_text(new: NewRequest) -> str:
    """JSON: what is asked for besides the columns. Equal for equal requests."""
    data: dict[str, Any] = {}
    if new.permanent:
        data["permanent"] = True
    if new.add or new.remove:
        data |= {"add": sorted(new.add), "remove": sorted(new.remove)}
    if new.upload is not None:
        upload = new.upload
        data["upload"] = {
            "sha256": upload.sha256.hex(),
            "flags": sorted(upload.flags),
            "internalDate": upload.internal_date,
            "messageIdHeader": upload.message_id_header,
        }
    return json.dumps(data, sort_keys=True)


def place_values(at: Place | None) -> dict[str, Any]:
    """The columns of a place; of none."""
    if at is None:
        return {"path": None, "uid_validity": None, "uid": None}
    return {"path": at.path, "uid_validity": at.uid_validity, "uid": at.uid}


def failure_values(failure: Failure) -> dict[str, str]:
    """The columns of a failure, cut to what they hold."""
    return {
        "error_code": failure.code[:40],
        "last_error": storable(failure.message)[:_MAX_ERROR_CHARACTERS],
        "error_hint": storable(failure.hint)[:_MAX_ERROR_CHARACTERS],
    }


def request_row(row: Row[Any]) -> RequestRow:
    """A row of the table ``request``."""
    data = json.loads(row.data)
    upload = data.get("upload")
    return RequestRow(
        id=row.id,
        account_id=row.account_id,
        kind=RequestKind(row.kind),
        state=RequestState(row.state),
        step=Step(row.step),
        message_id=row.message_id,
        place=Place(row.path, row.uid_validity, Uid(row.uid)) if row.path is not None else None,
        target_path=row.target_path,
        target_uid_validity=row.target_uid_validity,
        target_uid_next=row.target_uid_next,
        target_uid=Uid(row.target_uid) if row.target_uid is not None else None,
        add=frozenset(data.get("add", ())),
        remove=frozenset(data.get("remove", ())),
        upload=Upload(
            bytes.fromhex(upload["sha256"]),
            frozenset(upload["flags"]),
            upload["internalDate"],
            upload["messageIdHeader"],
        )
        if upload is not None
        else None,
        attempts=row.attempts,
        run_at=row.run_at,
        error_code=row.error_code,
        error=row.last_error,
        error_hint=row.error_hint,
        note=row.note,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
