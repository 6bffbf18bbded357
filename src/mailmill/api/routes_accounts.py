"""Accounts, their mailboxes, and syncing them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import JSONResponse, Response

from mailmill.api.door import ERRORS, NOT_FOUND, PROTECTED, AccountName, Door, answers
from mailmill.api.schemas import Account, AccountCheck, Accounts, Mailboxes, SyncReport, SyncRequest

router = APIRouter(prefix="/v1", tags=["accounts"], dependencies=PROTECTED)


@router.get("/accounts", summary="All accounts and how each is doing", responses=answers(Accounts, ERRORS))
async def list_accounts(door: Door) -> Response:
    return JSONResponse({"accounts": await door.accounts()})


@router.get("/account/{account}", summary="One account", responses=answers(Account, ERRORS, NOT_FOUND))
async def show_account(door: Door, account: AccountName) -> Response:
    return JSONResponse(await door.account(account))


@router.post(
    "/account/{account}/check", summary="Connect and log in now", responses=answers(AccountCheck, ERRORS, NOT_FOUND)
)
async def check_account(door: Door, account: AccountName) -> Response:
    """Says what the server is, whether the login works, and what to do where it does not.

    A success lets an account go on that had stopped because its credentials were refused.
    """
    return JSONResponse(await door.check_account(account))


@router.get(
    "/account/{account}/mailboxes", summary="An account's mailboxes", responses=answers(Mailboxes, ERRORS, NOT_FOUND)
)
async def list_mailboxes(door: Door, account: AccountName) -> Response:
    return JSONResponse({"mailboxes": await door.mailboxes(account)})


@router.post("/sync", summary="Make one pass now", responses=answers(SyncReport, ERRORS, NOT_FOUND))
async def sync(door: Door, request: Annotated[SyncRequest | None, Body()] = None) -> Response:
    """Makes one pass over the accounts on their warm connections and answers when it is over.

    An account that fails has its `error`; the others are not held up by it.
    """
    wanted = request or SyncRequest()
    return JSONResponse(await door.sync(wanted.accounts, process=wanted.process))
