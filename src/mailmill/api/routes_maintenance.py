"""The store as a whole, and accounts deleted for good."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import JSONResponse, Response

from mailmill.api.door import CONFLICT, ERRORS, NOT_FOUND, PROTECTED, AccountName, Door, answers
from mailmill.api.errors import error_response
from mailmill.api.gate import LOCAL_PEER
from mailmill.api.schemas import ErrorAnswer
from mailmill.api.waiting import until_gone

router = APIRouter(prefix="/v1", dependencies=PROTECTED)

_LOCAL: dict[int | str, dict[str, Any]] = {
    403: {"model": ErrorAnswer, "description": "Only through the service's own socket."}
}


class _Asked(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class CheckRequest(_Asked):
    full: bool = Field(default=False, description="Also read all raw mail and compare it with its hashes.")


class BackupRequest(_Asked):
    folder: str = Field(description="An absolute path on the service's machine that is not there yet.", min_length=1)


class Running(_Answer):
    task: str
    phase: str
    done: int
    total: int = Field(description="0 where it is not known.")


class MaintenanceState(_Answer):
    running: Running | None


class FoundAnswer(_Answer):
    check: str
    count: int
    detail: str
    hint: str


class Checked(_Answer):
    ok: bool
    full: bool
    checks: list[str]
    segments: int
    blobs_read: int = Field(description="Raw messages that were read and hashed.")
    findings: list[FoundAnswer]
    seconds: float


class BackedUp(_Answer):
    folder: str
    created_at: str
    revision: str
    segments: int
    segments_at: str | None = Field(description="Where the raw mail is that was not copied; null where it was.")
    missing_segments: int = Field(description="Segments that the database names and that were not there to be copied.")
    messages_without_raw: int = Field(description="Messages whose raw bytes were in those.")
    bytes: int
    seconds: float


class Removed(_Answer):
    account: str
    purged: bool
    messages: int
    seconds: float


class RemovalRunning(_Answer):
    account: str
    since: str
    messages_left: int


class RemovalsRunning(_Answer):
    removals: list[RemovalRunning]


@router.get(
    "/database",
    tags=["service"],
    summary="How far a check or a backup is",
    responses=answers(MaintenanceState, ERRORS),
)
async def maintenance_state(door: Door) -> Response:
    return JSONResponse(door.maintenance.state())


@router.post(
    "/database/check",
    tags=["service"],
    summary="Is the store sound?",
    responses=answers(Checked, ERRORS, CONFLICT),
)
async def check(request: Request, door: Door, wanted: Annotated[CheckRequest | None, Body()] = None) -> Response:
    """Looks for what is broken in the database and in the raw mail, and changes nothing. Answers when it is over; `GET
    /v1/database` says how far it is. It is given up where nobody waits for the answer any more.
    """
    asked = wanted or CheckRequest()
    report = await until_gone(request, door.maintenance.check(full=asked.full))
    return _stopping() if report is None else JSONResponse(report)


@router.post(
    "/database/backup",
    tags=["service"],
    summary="Copy the store while it is used",
    responses=answers(BackedUp, ERRORS, _LOCAL, CONFLICT),
)
async def backup(request: Request, door: Door, wanted: Annotated[BackupRequest, Body()]) -> Response:
    """Writes a folder on the service's machine, so it is only for who may open its socket: `mailmill db backup` asks
    so. It is given up where nobody waits for the answer any more.
    """
    if request.scope.get(LOCAL_PEER) is not True:
        return error_response(
            403, "localOnly", "a backup is asked for on the service's own machine", "run: mailmill db backup FOLDER"
        )
    report = await until_gone(request, door.maintenance.backup(wanted.folder))
    return _stopping() if report is None else JSONResponse(report)


@router.delete(
    "/account/{account}",
    tags=["accounts"],
    summary="Delete what an account left here",
    responses=answers(Removed, ERRORS, NOT_FOUND, CONFLICT),
)
async def remove_account(
    request: Request,
    door: Door,
    account: AccountName,
    purge: Annotated[bool, Query(description="Without it nothing is deleted: the account stays paused.")] = False,
) -> Response:
    """For an account that is no longer in the configuration: deletes its messages, results and events here, and nothing
    on its server. Answers when all is gone; where nobody waits any more it goes on by itself.
    """
    report = await until_gone(request, door.removals.remove(account, purge=purge))
    return _stopping() if report is None else JSONResponse(report)


@router.get(
    "/removals",
    tags=["accounts"],
    summary="Accounts that are being deleted",
    responses=answers(RemovalsRunning, ERRORS),
)
async def removals(door: Door) -> Response:
    return JSONResponse({"removals": await door.removals.running()})


def _stopping() -> Response:
    return error_response(503, "stopping", "the service stops, and what was asked for with it")
