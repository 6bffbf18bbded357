"""One pass over accounts, and what follows from it: the work behind ``mailmill sync`` and ``POST /v1/sync``.

In a running service the accounts' own tasks do the pass on their warm connections. Without one, each account connects,
passes and logs out; then what came is processed, and alerts that are due are sent, before the command ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from mailmill.app.account_tasks import take_account
from mailmill.app.borrowing import Borrowing
from mailmill.errors import AuthenticationError, MailmillError
from mailmill.model import AccountState
from mailmill.settings import Role
from mailmill.store import outbox
from mailmill.sync.report import PassReport

if TYPE_CHECKING:
    from mailmill.alerts.dispatcher import Dispatcher
    from mailmill.app.account_tasks import RunningAccount
    from mailmill.app.application import Application

# A destination that is down must not keep a command from ending; what is left is sent next time.
_ALERT_SECONDS = 15.0
_POLL_SECONDS = 0.05
# Other accounts' mail keeps a busy service's queue from ever being empty.
_SETTLE_SECONDS = 30.0


async def sync_accounts(application: Application, accounts: Sequence[RunningAccount]) -> list[PassReport]:
    """A pass over each, side by side; one account's error is in its report and touches no other."""
    slots = asyncio.Semaphore(application.settings.service.sync_concurrency)

    async def one(account: RunningAccount) -> PassReport:
        if account.kept:
            return await account.sync.sync_now()
        if application.has_other_nodes:
            return await application.errands.ask_pass(account)
        async with slots:
            if ours := await own.borrow(account):
                await take_account(application, account)
            if account.row.state is AccountState.AUTHENTICATION_ERROR:
                # Changed credentials have cleared it. A line in a crontab must not hammer a server that refuses us.
                return PassReport(account.configured.name, errors=[refused(account)])
            if ours:
                return await account.sync.run_once()
        return await application.errands.ask_pass(account)

    async with Borrowing(application).open() as own:
        return list(await asyncio.gather(*(one(account) for account in accounts)))


def refused(account: RunningAccount) -> MailmillError:
    """Why an account whose credentials were refused is not tried again."""
    name = account.configured.name
    return account.configured.problem or AuthenticationError(
        account.row.state_reason or "the server refused the credentials",
        hint=f"correct the password, or ask the server again with: mailmill account check {name}",
    )


async def settle(application: Application) -> None:
    """In a running service: wait until nothing is left that could run now, but not for ever (see `_SETTLE_SECONDS`)."""
    if application.has(Role.PROCESS):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                await application.worker.settle()


async def process_all(application: Application, dispatcher: Dispatcher) -> None:
    """Without a service: run the processors until nothing is left that could run now, and send the alerts due."""
    await _while_running(application.worker.run, application.worker.settle())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ALERT_SECONDS):
            await _while_running(dispatcher.run, _alerts_sent(application))


async def _while_running(run: Callable[[asyncio.Event], Awaitable[None]], settled: Awaitable[None]) -> None:
    stop = asyncio.Event()

    async def engine() -> None:
        await run(stop)

    async with asyncio.TaskGroup() as group:
        group.create_task(engine())
        try:
            await settled
        finally:
            stop.set()


async def _alerts_sent(application: Application) -> None:
    while True:
        async with application.database.read() as connection:
            if await outbox.is_settled(connection, application.clock()):
                return
        await application.database.wake.deliveries.wait(_POLL_SECONDS)
