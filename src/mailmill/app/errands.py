"""Between the nodes of one PostgreSQL: what is asked on one node of an account that another one keeps in sync.

A pass on demand and word that credentials are good again go as rows of ``errand``; changes of the server's mail are
rows of ``request`` anyhow. The owner hears of both by a hint, and looks every few seconds in any case.
"""

from __future__ import annotations

import asyncio
import json
import random
import traceback
from typing import TYPE_CHECKING, Any

import structlog

from mailmill.app import views
from mailmill.errors import LeaseLostError, MailmillError
from mailmill.store import errands
from mailmill.store.database import WakeName
from mailmill.store.errands import Errand, ErrandKind
from mailmill.sync.report import PassReport

if TYPE_CHECKING:
    from mailmill.app.account_tasks import RunningAccount
    from mailmill.app.application import Application

_POLL_SECONDS = 5.0
_ANSWER_SECONDS = 120.0
_LOOK_SECONDS = 1.0
_WAKE: tuple[WakeName, ...] = ("requests",)

_log = structlog.get_logger("mailmill.nodes")


class Errands:
    """One per application; `run` answers those of the accounts that this process keeps."""

    def __init__(self, application: Application) -> None:
        self._app = application
        self._under_way: set[int] = set()

    async def ask_pass(self, account: RunningAccount, *, wait_seconds: float = _ANSWER_SECONDS) -> PassReport:
        """A pass by whoever owns the account. That nobody answered is in the report, as any other error."""
        database, name = self._app.database, account.row.name
        deadline = asyncio.get_running_loop().time() + wait_seconds
        with database.wake.requests.subscribe() as hints:
            async with database.write(wake=_WAKE) as connection:
                errand_id = await errands.add(connection, account.row.id, ErrandKind.PASS)
            try:
                while True:
                    async with database.read() as connection:
                        answer = await errands.answer_of(connection, errand_id)
                    if answer is not None:
                        return _report(name, json.loads(answer))
                    left = deadline - asyncio.get_running_loop().time()
                    if left <= 0:
                        return PassReport(name, errors=[_nobody(name)])
                    await hints.wait(min(left, _LOOK_SECONDS))
            finally:
                async with database.write() as connection:
                    await errands.remove(connection, errand_id)

    async def ask_to_resume(self, account: RunningAccount) -> None:
        """The server let us in: whoever owns the account is to try again. Not waited for."""
        async with self._app.database.write(wake=_WAKE) as connection:
            await errands.add(connection, account.row.id, ErrandKind.RESUME)

    async def run(self) -> None:
        """Answer, until cancelled."""
        with self._app.database.wake.requests.subscribe() as hints:
            async with asyncio.TaskGroup() as group:
                while True:
                    try:
                        await self._look(group)
                    except MailmillError as error:
                        _log.warning("errands of other nodes not read", error=str(error))
                    except Exception as error:  # noqa: BLE001 - the boundary: it looks again
                        trace = "".join(traceback.format_exception(error))
                        _log.error("reading errands failed", error=str(error), exception=trace)
                    await hints.wait(_POLL_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311

    async def _look(self, group: asyncio.TaskGroup) -> None:
        kept = {account.row.id: account for account in self._app.accounts.values() if account.kept}
        if not kept:
            return
        async with self._app.database.read() as connection:
            due = await errands.accounts_with_due_requests(connection, self._app.clock())
            waiting = await errands.unanswered(connection)
        for account_id in due & kept.keys():
            kept[account_id].sync.write_back_wanted()
        for errand in waiting:
            if errand.account_id in kept and errand.id not in self._under_way:
                self._under_way.add(errand.id)
                group.create_task(self._carry_out(errand, kept[errand.account_id]), name=f"errand {errand.id}")

    async def _carry_out(self, errand: Errand, account: RunningAccount) -> None:
        try:
            answer: Any = {}
            if errand.kind is ErrandKind.RESUME:
                account.sync.resume()
            else:
                report = await account.sync.sync_now()
                if not account.kept and report.error is not None:
                    return  # it went to another node meanwhile: that one answers
                answer = views.pass_report(report)
            async with self._app.database.write(wake=_WAKE) as connection:
                await errands.answer(connection, errand.id, json.dumps(answer))
        except MailmillError as error:
            _log.warning("an errand of another node was not answered", error=str(error))
        finally:
            self._under_way.discard(errand.id)


def _report(name: str, answer: Any) -> PassReport:
    """What `views.pass_report` made, read back."""
    report = PassReport(
        name,
        mailboxes=answer["mailboxes"],
        new=answer["new"],
        updated=answer["updated"],
        expunged=answer["expunged"],
        bytes_received=answer["bytes"],
        seconds=answer["seconds"],
        round_trips=answer["round_trips"],
        connections_opened=answer["connections_opened"],
    )
    told = answer["error"]
    if told is not None:
        error = MailmillError(told["message"], hint=told["hint"])
        error.code = told["code"]
        report.errors.append(error)
    return report


def _nobody(name: str) -> MailmillError:
    return LeaseLostError(
        "the node that keeps it in sync did not answer in time",
        hint="`mailmill status` shows which node has it; a takeover takes up to 45 s",
        account=name,
    )
