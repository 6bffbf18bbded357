"""The engines in one task tree, started in order and stopped in order.

::

    run_service
    ├── accounts      one task each (a scope of its own: an account's error never leaves it)
    ├── ownership     on PostgreSQL: which accounts are this node's; it starts and ends their tasks
    ├── worker        processing
    ├── dispatcher    alerts
    ├── housekeeping  retention, accounts being deleted, raw mail that nobody needs
    ├── loop watch    how late the loop is
    ├── memory        what a burst took, given back
    ├── sleep watch   whether the machine slept: then every account proves its link at once
    ├── verify        now and then: is the store what the server is?
    └── server        the API, given by the layer above

Stopping: at once and side by side the listeners close, watchers end (nothing new comes in), claiming ends and what runs
gets a grace; then the store closes. All of it within ten seconds, whatever hangs: a request, a processor, a thread.
What is cut loses nothing, because nothing counts before its commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import structlog

from mailmill.app import memory
from mailmill.app.account_tasks import AccountTasks, pause_missing
from mailmill.app.application import Application, open_application
from mailmill.app.daemon_threads import DaemonThreads
from mailmill.app.housekeeping import keep_house
from mailmill.app.metrics import Metrics
from mailmill.app.newcomers import NO_ACCOUNT, how_to_add_one
from mailmill.app.ownership import Ownership, OwnershipSettings
from mailmill.settings import Role, Settings
from mailmill.sync.wake import watch_sleep

_log = structlog.get_logger("mailmill.app")

# From when the stop begins. What runs has a grace within it, and its outcome some more to be written; the store has the
# rest of the ten seconds.
_STOP_SECONDS = 8.0
_SWITCH_SECONDS = 0.0005
_LAG_PERIOD_SECONDS = 0.25
_WAKES_PER_SECOND = 200
_LONGEST_WAKE_SECONDS = 30.0


async def run_service(
    settings: Settings,
    *,
    serve: Callable[[Application], AbstractAsyncContextManager[None]],
    stop: asyncio.Event | None = None,
) -> None:
    """The service until SIGTERM, SIGINT or ``stop``. ``serve`` opens the listeners and closes them again."""
    memory.limit_arenas()
    memory.settle()
    # Processors run in threads. What the loop does (a push, a webhook) must not wait 5 ms for each turn of the lock.
    sys.setswitchinterval(_SWITCH_SECONDS)
    stopping = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(DaemonThreads())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        async with (
            open_application(settings, stays=True) as application,
            engines(application) as begin_stop,
            serve(application),
        ):
            _log.info("running", node=application.node, accounts=len(application.accounts))
            if application.has(Role.SYNC) and not application.accounts:
                _log.warning(NO_ACCOUNT, hint=how_to_add_one(settings))
            await stopping.wait()
            _log.info("stopping")
            begin_stop()
        _log.info("stopped")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def engines(application: Application) -> AsyncIterator[Callable[[], None]]:
    """All engines of this process's roles, running for the length of the block.

    Gives a function that begins their stop already within the block; its end waits for it. Raises ConfigurationError,
    before anything runs, where a destination's secret cannot be had.
    """
    dispatcher = application.make_dispatcher() if application.has(Role.ALERT) else None
    if application.has(Role.SYNC):
        await pause_missing(application)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def woke(slept_seconds: float) -> None:
        _wake(application, slept_seconds, loop.call_later)

    async with asyncio.TaskGroup() as group:
        workers: list[asyncio.Task[None]] = []
        accounts = AccountTasks(group, application.database, application.accounts.values())
        background = [
            group.create_task(keep_house(application), name="housekeeping"),
            group.create_task(_watch_loop(application.metrics), name="loop watch"),
            group.create_task(memory.keep_trimmed(), name="memory"),
            group.create_task(application.reprocessing.run(), name="reprocessing"),
            group.create_task(watch_sleep(woke), name="sleep watch"),
        ]
        verify_seconds = application.settings.service.verify_interval_seconds
        if application.has(Role.SYNC) and verify_seconds:
            background.append(group.create_task(application.verification.run(verify_seconds), name="verify"))
        if not application.database.alone:
            lease_seconds = application.settings.service.lease_seconds
            ownership = Ownership(
                application.database, application.fleet_node, accounts, OwnershipSettings(lease_seconds=lease_seconds)
            )
            workers.append(group.create_task(ownership.run(stop), name="ownership"))
            background.append(group.create_task(application.errands.run(), name="errands"))
            background.append(group.create_task(application.clock.keep(), name="store clock"))
        elif application.has(Role.SYNC):
            accounts.start_all()
        if application.has(Role.PROCESS):
            workers.append(group.create_task(application.worker.run(stop), name="worker"))
        if dispatcher is not None:
            workers.append(group.create_task(dispatcher.run(stop), name="dispatcher"))
        application.running = True
        cut_at = 0.0

        def begin_stop() -> None:
            nonlocal cut_at
            if not stop.is_set():
                cut_at = loop.time() + _STOP_SECONDS
                stop.set()
                accounts.cancel()
                for task in background:
                    task.cancel()

        try:
            yield begin_stop
        finally:
            application.running = False
            begin_stop()
            left = max(0.0, cut_at - loop.time())
            _done, late = await asyncio.wait({*accounts.running, *workers, *background}, timeout=left)
            for task in late:
                _log.warning("cut at shutdown", task=task.get_name())
                task.cancel()


def _wake(
    application: Application, slept_seconds: float, call_later: Callable[[float, Callable[[], None]], object]
) -> None:
    """After a sleep most links are dead without knowing. Spread: the machine and its network have enough to do."""
    accounts = [account for account in application.accounts.values() if account.kept]
    _log.info("the machine slept", seconds=round(slept_seconds), accounts=len(accounts))
    spread_seconds = min(_LONGEST_WAKE_SECONDS, len(accounts) / _WAKES_PER_SECOND)
    for number, account in enumerate(accounts):
        call_later(spread_seconds * number / len(accounts), account.sync.woke)


async def _watch_loop(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(_LAG_PERIOD_SECONDS)
        metrics.observe("loop_lag", loop.time() - before - _LAG_PERIOD_SECONDS)
