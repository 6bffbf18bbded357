"""Is what is stored what the servers hold?"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import JSONResponse, Response

from mailmill.api.door import ERRORS, NOT_FOUND, PROTECTED, Door, answers
from mailmill.api.errors import error_response
from mailmill.api.schemas import ErrorBody
from mailmill.api.waiting import until_gone

router = APIRouter(prefix="/v1", tags=["accounts"], dependencies=PROTECTED)


class VerifyRequest(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    accounts: list[str] | None = Field(
        default=None, description="Names of accounts; all if left out.", max_length=10_000
    )
    full: bool = Field(default=False, description="Compare the contents of all messages, not of a sample.")
    repair: bool = Field(default=False, description="Make the store equal to the server.")
    seed: int | None = Field(default=None, description="Makes the choice of the sample repeatable.")


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class GapAnswer(_Answer):
    kind: str
    path: str
    uids: str = Field(description="The messages, as in `1:3,7`; empty where it is about the mailbox itself.")
    count: int = Field(description="How many messages; 1 for a mailbox.")
    detail: str


class Unverified(_Answer):
    path: str
    reason: str


class AccountVerified(_Answer):
    account: str
    full: bool
    mailboxes: int
    messages: int = Field(description="Compared by UID and flags.")
    contents: int = Field(description="Of these, compared by their bytes.")
    counts: dict[str, int] = Field(description="Kind of gap → how many there are now.")
    gaps: list[GapAnswer]
    repaired: list[GapAnswer]
    settled: list[GapAnswer] = Field(description="Different at first, and no more after a pass.")
    unverified: list[Unverified] = Field(description="Mailboxes that the server would not open.")
    seconds: float
    error: ErrorBody | None


class Verified(_Answer):
    seconds: float
    clean: bool = Field(description="No gap is left, and no account failed.")
    accounts: list[AccountVerified]


class VerifyStates(_Answer):
    accounts: list[dict[str, Any]] = Field(description="`account`, `running` (how far, or null) and `last` (or null).")


@router.get(
    "/verify", summary="How far looks are, and how the last ones ended", responses=answers(VerifyStates, ERRORS)
)
async def verify_state(door: Door) -> Response:
    return JSONResponse(await door.verify_state())


@router.post(
    "/verify", summary="Compare the store with the servers now", responses=answers(Verified, ERRORS, NOT_FOUND)
)
async def verify(request: Request, door: Door, wanted: Annotated[VerifyRequest | None, Body()] = None) -> Response:
    """Compares UIDs, flags and contents, and names every gap. Answers when it is over, which may take minutes; `GET
    /v1/verify` says how far it is. It is given up where nobody waits for the answer any more.
    """
    asked = wanted or VerifyRequest()
    looking = door.verify(asked.accounts, full=asked.full, repair=asked.repair, seed=asked.seed)
    report = await until_gone(request, looking)
    if report is None:
        return error_response(503, "stopping", "the service stops, and the look at the servers with it")
    return JSONResponse(report)
