"""The event log, followed by long poll."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from mailmill.api.door import ERRORS, PROTECTED, Door, answers
from mailmill.api.schemas import Events
from mailmill.api.waiting import until_gone

router = APIRouter(prefix="/v1", tags=["events"], dependencies=PROTECTED)

MAX_WAIT_SECONDS = 30


@router.get("/events", summary="What happened, in order", responses=answers(Events, ERRORS))
async def list_events(
    request: Request,
    door: Door,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="`cursor` of the answer before; 0 for the start.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    wait: Annotated[
        float,
        Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for the first event, if there is none yet."),
    ] = 0,
) -> Response:
    """Give `cursor` back as `after`, and nothing is missed or told twice.

    With `wait` the answer comes as soon as something happens, or empty when the time is up.
    """
    if wait == 0:
        return JSONResponse(await door.events(after, limit, 0))
    answer = await until_gone(request, door.events(after, limit, wait))
    return JSONResponse({"events": [], "cursor": str(after)} if answer is None else answer)
