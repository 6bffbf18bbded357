"""One pass over accounts, and what follows from it: the work behind ``mailmill sync`` and ``POST /v1/sync``.

In a running service the accounts' own tasks do the pass on their warm connections. Without one, each account connects,
passes and logs out; then what came is processed, and alerts that are due are sent, before the command ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from mailmill.settings import Role
from mailmill.store import outbox
from mailmill.sync.report import PassReport

if TYPE_CHECKING:
    from mailmill.app.supervisor import Application, RunningAccount

# A destination that is down must not keep a command from ending; what is left is sent next time.
_ALERT_SECONDS = 15.0
_POLL_SECONDS = 0.05


async def sync_accounts(application: Application, accounts: Sequence[RunningAccount]) -> list[PassReport]:
    """A pass over each, side by side; one account's error is in its report and touches no other."""
    if application.syncing:
        return list(await asyncio.gather(*(account.sync.sync_now() for account in accounts)))
    slots = asyncio.Semaphore(application.settings.service.sync_concurrency)

    async def one(account: RunningAccount) -> PassReport:
        async with slots:
            return await account.sync.run_once()

    return list(await asyncio.gather(*(one(account) for account in accounts)))


async def process_all(application: Application) -> None:
    """Run the processors until nothing is left that could run now; without a service also send the alerts due."""
    if application.running:
        if application.has(Role.PROCESS):
            await application.worker.settle()
        return
    await _while_running(application.worker.run, application.worker.settle())
    try:
        async with asyncio.timeout(_ALERT_SECONDS):
            await _while_running(application.dispatcher.run, _alerts_sent(application))
    except TimeoutError:
        pass


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
            if await outbox.is_settled(connection, time.time()):
                return
        await application.database.wake.deliveries.wait(_POLL_SECONDS)
