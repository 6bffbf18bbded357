"""The queue: work that waits, runs or has failed."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Query, Request
from starlette.responses import JSONResponse, Response

from mailmill.api.door import ERRORS, NOT_FOUND, PROTECTED, Door, MessageId, answers
from mailmill.api.errors import error_response
from mailmill.api.schemas import (
    Dropped,
    DropRequest,
    ProcessorPause,
    ProcessorRequest,
    Queue,
    QueueOperation,
    Retried,
    RetryRequest,
)
from mailmill.api.waiting import until_gone

router = APIRouter(prefix="/v1/queue", tags=["queue"], dependencies=PROTECTED)


@router.get("", summary="Work that is not done", responses=answers(Queue, ERRORS, NOT_FOUND))
async def list_queue(
    door: Door,
    state: Annotated[
        Literal["pending", "waiting", "throttled", "processing", "failed"] | None,
        Query(
            description="`waiting` is for the next attempt's time, `throttled` for fewer of its account in processing."
        ),
    ] = None,
    processor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    return JSONResponse({"queue": await door.work.rows(state=state, processor=processor, limit=limit)})


@router.get("/operation", summary="How far a retry or a drop is", responses=answers(QueueOperation, ERRORS))
async def operation(door: Door) -> Response:
    return JSONResponse(door.work.operation())


@router.get("/{message_id}", summary="What is left to do for a message", responses=answers(Queue, ERRORS, NOT_FOUND))
async def show(door: Door, message_id: MessageId) -> Response:
    """Its rows by processor, with every error; none where all is done."""
    return JSONResponse({"queue": await door.work.show(message_id)})


@router.post("/retry", summary="Run failed work again", responses=answers(Retried, ERRORS, NOT_FOUND))
async def retry(request: Request, door: Door, asked: Annotated[RetryRequest | None, Body()] = None) -> Response:
    """Puts failed work back in the queue, with a fresh count of attempts: all of it, if nothing is named. Answers when
    it has been through all of it; `GET /v1/queue/operation` says how far it is. It ends where nobody waits for the
    answer any more: what is done stays done, and who asks again gets the rest.
    """
    wanted = asked or RetryRequest()
    retrying = door.work.retry(message_ids=wanted.message_ids, processor=wanted.processor)
    retried = await until_gone(request, retrying)
    return _stopping() if retried is None else JSONResponse(retried)


@router.post("/drop", summary="Give work up", responses=answers(Dropped, ERRORS, NOT_FOUND))
async def drop(request: Request, door: Door, asked: DropRequest) -> Response:
    """Removes failed work without a result; a message that has no other work left is completed then. Answers, and ends,
    as a retry does. What a worker or another request has locked all the while may be left: who asks again gets it.
    """
    dropping = door.work.drop(
        message_ids=asked.message_ids,
        processor=asked.processor,
        everything=asked.all,
        any_state=asked.state == "any",
    )
    dropped = await until_gone(request, dropping)
    return _stopping() if dropped is None else JSONResponse(dropped)


@router.post("/pause", summary="Pause a processor", responses=answers(ProcessorPause, ERRORS, NOT_FOUND))
async def pause(door: Door, request: ProcessorRequest) -> Response:
    """No node begins a run of it any more; work for it still queues. Holds until it is resumed."""
    return JSONResponse(await door.work.pause(request.processor))


@router.post("/resume", summary="Resume a processor", responses=answers(ProcessorPause, ERRORS, NOT_FOUND))
async def resume(door: Door, request: ProcessorRequest) -> Response:
    return JSONResponse(await door.work.resume(request.processor))


def _stopping() -> Response:
    return error_response(503, "stopping", "the service stops; what was done so far stays done: ask again for the rest")
