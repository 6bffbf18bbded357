"""The queue: work that waits, runs or has failed."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Query
from starlette.responses import JSONResponse, Response

from mailmill.api.door import ERRORS, PROTECTED, Door, answers
from mailmill.api.schemas import Queue, Retried, RetryRequest

router = APIRouter(prefix="/v1/queue", tags=["queue"], dependencies=PROTECTED)


@router.get("", summary="Work that is not done", responses=answers(Queue, ERRORS))
async def list_queue(
    door: Door,
    state: Annotated[
        Literal["pending", "waiting", "processing", "failed"] | None,
        Query(description="`waiting` is for the next attempt's time."),
    ] = None,
    processor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    return JSONResponse({"queue": await door.queue(state=state, processor=processor, limit=limit)})


@router.post("/retry", summary="Run failed work again", responses=answers(Retried, ERRORS))
async def retry(door: Door, request: Annotated[RetryRequest | None, Body()] = None) -> Response:
    """Puts failed work back in the queue, with a fresh count of attempts: all of it, if nothing is named."""
    wanted = request or RetryRequest()
    return JSONResponse({"retried": await door.retry(message_ids=wanted.message_ids, processor=wanted.processor)})
