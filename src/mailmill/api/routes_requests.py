"""Changes on the server: flags, moves, copies, deletions and uploads, and the requests they became."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Path, Query, Request
from starlette.responses import JSONResponse, Response

from mailmill.api.contract import JsonObject
from mailmill.api.door import ERRORS, NOT_FOUND, PROTECTED, AccountName, Door, MessageId, answers
from mailmill.api.errors import error_response
from mailmill.api.schemas import CopyRequest, ErrorAnswer, FlagsRequest, MoveRequest, RequestAnswer, Requests
from mailmill.api.waiting import until_gone
from mailmill.errors import InvalidRequestError

router = APIRouter(prefix="/v1/account/{account}", tags=["changes"], dependencies=PROTECTED)

MAX_KEY_CHARACTERS = 200

Wait = Annotated[
    float,
    Query(ge=0, le=60, description="Answer at the latest after so many seconds, done or not (then with status 202)."),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_CHARACTERS,
        description="Sent again with the same key, a request is not made twice: the answer is about the first.",
    ),
]
FromPath = Annotated[
    str | None, Query(max_length=1000, description="Which of its mailboxes is meant, where the message is in several.")
]
FromUid = Annotated[int | None, Query(ge=1, le=2**32 - 1, description="Which place in that mailbox is meant.")]

_WAITED = 30.0
_CHANGES: dict[int | str, dict[str, Any]] = {
    202: {"model": RequestAnswer, "description": "Not done yet. It is kept, and done as soon as it can be."},
    409: {"model": ErrorAnswer, "description": "The message is not where it was, or the key is another request's."},
    502: {"model": ErrorAnswer, "description": "The mail server did not do it; the message holds its words."},
}


async def _answer(request: Request, work: Coroutine[Any, Any, JsonObject]) -> Response:
    changed = await until_gone(request, work)
    if changed is None:
        return error_response(
            503, "stopping", "the service stops before the change was seen to", "whether it is kept: GET …/requests"
        )
    return JSONResponse(changed, status_code=200 if changed["state"] == "done" else 202)


def _number(message_id: str) -> int:
    if not message_id.isascii() or not message_id.isdigit() or len(message_id) > 18:
        raise InvalidRequestError(f"not an id: {message_id[:40]!r}", hint="ids are the numbers that listings show")
    return int(message_id)


def _epoch(date: datetime) -> float:
    if not 1970 < date.year < 9999:
        raise InvalidRequestError(
            f"no message is of {date.isoformat()}", hint="give a date such as 2026-01-02T03:04:05Z"
        )
    return date.timestamp()


@router.post(
    "/message/{message_id}/flags",
    summary="Add and remove flags",
    responses=answers(RequestAnswer, _CHANGES, ERRORS, NOT_FOUND),
)
async def change_flags(
    request: Request,
    door: Door,
    account: AccountName,
    message_id: MessageId,
    wanted: Annotated[FlagsRequest, Body()],
    key: IdempotencyKey = None,
    wait: Wait = _WAITED,
) -> Response:
    """All other flags stay as they are on the server."""
    return await _answer(
        request,
        door.changes.flags(
            account,
            _number(message_id),
            add=wanted.add,
            remove=wanted.remove,
            path=wanted.path,
            uid=wanted.uid,
            idempotency_key=key,
            wait_seconds=wait,
        ),
    )


@router.post(
    "/message/{message_id}/move",
    summary="Move to another mailbox",
    responses=answers(RequestAnswer, _CHANGES, ERRORS, NOT_FOUND),
)
async def move_message(
    request: Request,
    door: Door,
    account: AccountName,
    message_id: MessageId,
    wanted: Annotated[MoveRequest, Body()],
    key: IdempotencyKey = None,
    wait: Wait = _WAITED,
) -> Response:
    """The message keeps its id."""
    return await _put(request, door, account, message_id, wanted, key, wait, copy=False)


@router.post(
    "/message/{message_id}/copy",
    summary="Copy to another mailbox",
    responses=answers(RequestAnswer, _CHANGES, ERRORS, NOT_FOUND),
)
async def copy_message(
    request: Request,
    door: Door,
    account: AccountName,
    message_id: MessageId,
    wanted: Annotated[CopyRequest, Body()],
    key: IdempotencyKey = None,
    wait: Wait = _WAITED,
) -> Response:
    """It is one message then, with one id, in two places."""
    return await _put(request, door, account, message_id, wanted, key, wait, copy=True)


async def _put(
    request: Request,
    door: Door,
    account: str,
    message_id: str,
    wanted: MoveRequest,
    key: str | None,
    wait: float,
    *,
    copy: bool,
) -> Response:
    return await _answer(
        request,
        door.changes.move(
            account,
            _number(message_id),
            wanted.path,
            path=wanted.source,
            uid=wanted.uid,
            copy=copy,
            idempotency_key=key,
            wait_seconds=wait,
        ),
    )


@router.delete(
    "/message/{message_id}",
    summary="Delete: move to the trash, or remove for good",
    responses=answers(RequestAnswer, _CHANGES, ERRORS, NOT_FOUND),
)
async def delete_message(
    request: Request,
    door: Door,
    account: AccountName,
    message_id: MessageId,
    permanent: Annotated[bool, Query(description="Remove it for good, wherever it is.")] = False,
    path: FromPath = None,
    uid: FromUid = None,
    key: IdempotencyKey = None,
    wait: Wait = _WAITED,
) -> Response:
    """What is in the trash already is removed for good."""
    return await _answer(
        request,
        door.changes.delete(
            account,
            _number(message_id),
            path=path,
            uid=uid,
            permanent=permanent,
            idempotency_key=key,
            wait_seconds=wait,
        ),
    )


@router.post(
    "/messages",
    summary="Upload a message into a mailbox",
    responses=answers(RequestAnswer, _CHANGES, ERRORS, NOT_FOUND),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"message/rfc822": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def append_message(
    request: Request,
    door: Door,
    account: AccountName,
    path: Annotated[str, Query(max_length=1000, description="The mailbox to put it into.")],
    flag: Annotated[list[str] | None, Query(description="A flag that it is to have; may be repeated.")] = None,
    date: Annotated[datetime | None, Query(description="Its date in the mailbox (ISO 8601); else now.")] = None,
    key: IdempotencyKey = None,
    wait: Wait = _WAITED,
) -> Response:
    """Takes the raw message (RFC 5322) as the body. It is not sent to anybody."""
    raw = await request.body()
    return await _answer(
        request,
        door.changes.append(
            account,
            path,
            raw,
            flags=flag or (),
            internal_date=_epoch(date) if date is not None else None,
            idempotency_key=key,
            wait_seconds=wait,
        ),
    )


@router.get(
    "/requests", summary="Changes that were asked for, newest first", responses=answers(Requests, ERRORS, NOT_FOUND)
)
async def list_requests(
    door: Door,
    account: AccountName,
    state: Annotated[Literal["pending", "applying", "done", "failed"] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Finished ones are kept for a week."""
    return JSONResponse({"requests": await door.changes.requests(account, state=state, limit=limit)})


@router.get("/request/{request_id}", summary="One of them", responses=answers(RequestAnswer, ERRORS, NOT_FOUND))
async def show_request(
    door: Door, account: AccountName, request_id: Annotated[str, Path(description="As in the answer to the change.")]
) -> Response:
    return JSONResponse(await door.changes.request(account, _number(request_id)))
