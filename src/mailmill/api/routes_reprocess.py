"""A processor run again over the past."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import JSONResponse, Response

from mailmill.api.door import CONFLICT, ERRORS, NOT_FOUND, PROTECTED, Door, answers
from mailmill.api.errors import error_response
from mailmill.api.waiting import until_gone

router = APIRouter(prefix="/v1/reprocess", tags=["queue"], dependencies=PROTECTED)

_Name = Annotated[str, Field(max_length=1000)]


class ReprocessRequest(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    processor: str = Field(description="Which is to run again.", min_length=1, max_length=200)
    accounts: list[_Name] = Field(default_factory=list, description="Only these; all if left out.", max_length=10_000)
    mailboxes: list[_Name] = Field(
        default_factory=list, description="Only messages that are in one of these paths now.", max_length=1000
    )
    since: datetime | None = Field(
        default=None, description="Only messages that the server received then or later; in UTC unless it says."
    )
    until: datetime | None = Field(default=None, description="Only messages that the server received before.")
    failed: bool = Field(default=False, description="Only messages whose work for this processor failed for good.")
    version_below: int | None = Field(
        default=None,
        description="Messages whose newest result is of a version below, or that have none; the version that runs "
        "now, if left out.",
        ge=1,
        le=2**31 - 1,
    )
    all: bool = Field(default=False, description="Also messages that have a result of the version that runs now.")
    dry_run: bool = Field(default=False, description="Only count the messages.")
    wait: bool = Field(default=False, description="Answer when all has been processed, not when it is asked for.")


class ReprocessAnswer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    id: str | None = Field(description="To ask for how far it is; null for a dry run.")
    processor: str
    version: int
    state: Literal["running", "done", "cancelling", "cancelled", "dryRun"]
    total: int | None = Field(
        description="Messages it is about, with those that were in the queue already; null until they are counted."
    )
    queued: int = Field(description="Messages that it has put into the queue.")
    left: int | None = Field(description="Messages that are still to be queued or to be processed.")
    failed: int = Field(description="Work for this processor that failed for good, of whatever origin.")
    paused: bool = Field(description="The processor is paused: nothing is processed until it is resumed.")
    created_at: str
    queued_at: str | None = Field(description="When the last message was put into the queue.")


class ReprocessAsked(ReprocessAnswer):
    joined: bool = Field(default=False, description="The same was asked for before and is not over: this is that one.")


class ReprocessCancelled(ReprocessAnswer):
    dropped: int = Field(description="Messages that are not processed again, though they were queued.")


class ReprocessAllCancelled(BaseModel):
    processor: str
    dropped: int = Field(description="Messages that are not processed again, though they were queued.")
    begun: int = Field(description="Messages that are or were processed again all the same.")
    cancelled: list[ReprocessCancelled]


class ReprocessList(BaseModel):
    reprocess: list[dict[str, Any]]


@router.post(
    "",
    summary="Run a processor again over messages that are there",
    responses=answers(ReprocessAsked, ERRORS, NOT_FOUND),
)
async def start(request: Request, door: Door, wanted: Annotated[ReprocessRequest, Body()]) -> Response:
    """Behind new mail, and without taking anything away: results stay until newer ones are recorded. It goes on by
    itself, also after a restart; `GET /v1/reprocess/{id}` says how far it is. The same, asked for again before it is
    over, is joined.
    """
    asking = door.reprocessing.start(
        processor=wanted.processor,
        accounts=wanted.accounts,
        mailboxes=wanted.mailboxes,
        since=wanted.since,
        until=wanted.until,
        failed=wanted.failed,
        version_below=wanted.version_below,
        everything=wanted.all,
        dry_run=wanted.dry_run,
        wait=wanted.wait,
    )
    answer = await until_gone(request, asking)
    if answer is None:
        return error_response(503, "stopping", "the service stops; what was asked for goes on when it runs again")
    return JSONResponse(answer)


@router.get("", summary="What was asked to be processed again", responses=answers(ReprocessList, ERRORS))
async def list_all(door: Door) -> Response:
    """Those of the last 30 days, the newest first."""
    return JSONResponse({"reprocess": await door.reprocessing.list()})


@router.get("/{reprocess_id}", summary="How far one of them is", responses=answers(ReprocessAnswer, ERRORS, NOT_FOUND))
async def show(door: Door, reprocess_id: Annotated[int, Path(ge=1, le=2**53)]) -> Response:
    return JSONResponse(await door.reprocessing.show(reprocess_id))


@router.delete(
    "/{reprocess_id}", summary="Cancel it", responses=answers(ReprocessCancelled, ERRORS, NOT_FOUND, CONFLICT)
)
async def cancel(request: Request, door: Door, reprocess_id: Annotated[int, Path(ge=1, le=2**53)]) -> Response:
    """Queues no more of it, and drops what is queued and has not begun; what has begun goes on, and what has failed
    before is failed again. Others for the same messages go with it. Answers when that is done, or, with the state
    `cancelling`, where others hold the last rows for longer than a moment; then, and where nobody waits any more, it
    goes on by itself.
    """
    answer = await until_gone(request, door.reprocessing.cancel(reprocess_id))
    if answer is None:
        return error_response(503, "stopping", "the service stops; the cancelling goes on when it runs again")
    return JSONResponse(answer)


@router.delete("", summary="Cancel all of a processor", responses=answers(ReprocessAllCancelled, ERRORS))
async def cancel_all(
    request: Request, door: Door, processor: Annotated[str, Query(min_length=1, max_length=200)]
) -> Response:
    """As `DELETE /v1/reprocess/{id}` for each one that is not over, all at once."""
    answer = await until_gone(request, door.reprocessing.cancel_all(processor))
    if answer is None:
        return error_response(503, "stopping", "the service stops; the cancelling goes on when it runs again")
    return JSONResponse(answer)
