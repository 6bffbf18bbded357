"""Messages: listings, one message, its source."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from mailmill.api.door import ERRORS, NOT_FOUND, PROTECTED, AccountName, Door, MessageId, answers
from mailmill.api.schemas import Message, MessagePage, Processing

router = APIRouter(prefix="/v1", tags=["messages"], dependencies=PROTECTED)

PageSize = Annotated[int, Query(alias="pageSize", ge=1, le=500, description="At most so many messages.")]
Cursor = Annotated[str | None, Query(max_length=1000, description="`nextCursor` of the page before.")]
ProcessingStatus = Annotated[
    Literal["pending", "processing", "completed", "failed"] | None,
    Query(alias="status", description="Only messages whose processing stands there."),
]
Verdict = Annotated[
    Literal["clean", "suspicious", "malicious"] | None, Query(description="Only messages with this verdict.")
]


@router.get("/messages", summary="The newest messages of all accounts", responses=answers(MessagePage, ERRORS))
async def list_all_messages(
    door: Door,
    page_size: PageSize = 50,
    cursor: Cursor = None,
    status: ProcessingStatus = None,
    verdict: Verdict = None,
) -> Response:
    return JSONResponse(
        await door.messages(account=None, path=None, page_size=page_size, cursor=cursor, status=status, verdict=verdict)
    )


@router.get(
    "/account/{account}/messages",
    summary="An account's messages, newest first",
    responses=answers(MessagePage, ERRORS, NOT_FOUND),
)
async def list_messages(
    door: Door,
    account: AccountName,
    path: Annotated[str | None, Query(max_length=1000, description="Only this mailbox.")] = None,
    page_size: PageSize = 50,
    cursor: Cursor = None,
    status: ProcessingStatus = None,
    verdict: Verdict = None,
) -> Response:
    """Lists places: a message that is in two mailboxes is listed twice, with one id."""
    return JSONResponse(
        await door.messages(
            account=account, path=path, page_size=page_size, cursor=cursor, status=status, verdict=verdict
        )
    )


@router.get(
    "/account/{account}/message/{message_id}",
    summary="One message with its text, verdict and results",
    responses=answers(Message, ERRORS, NOT_FOUND),
)
async def show_message(door: Door, account: AccountName, message_id: MessageId) -> Response:
    return JSONResponse(await door.message(account, message_id))


@router.get(
    "/account/{account}/message/{message_id}/processing",
    summary="What processors made of it: every version's result, attempts and errors",
    responses=answers(Processing, ERRORS, NOT_FOUND),
)
async def show_processing(door: Door, account: AccountName, message_id: MessageId) -> Response:
    return JSONResponse(await door.processing(account, message_id))


@router.get(
    "/account/{account}/message/{message_id}/source",
    summary="The message as the server gave it",
    response_class=Response,
    responses={200: {"content": {"message/rfc822": {}}, "description": "The raw bytes."}, **ERRORS, **NOT_FOUND},
)
async def message_source(door: Door, account: AccountName, message_id: MessageId) -> Response:
    source = await door.message_source(account, message_id)
    file_name = re.sub(r"[^0-9A-Za-z_-]", "_", message_id)
    # What a stranger wrote must never run as a page of ours, whatever a browser makes of it.
    return Response(
        source,
        headers={
            "Content-Type": "message/rfc822",
            "Content-Disposition": f'attachment; filename="message-{file_name}.eml"',
            "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        },
    )
