"""An account's life: connect, pass, watch; on a hint, a request or the clock, another pass; on an error, back off.

::

            ┌────────────────────────── error: classify, back off ◀──────────────────────────┐
            ▼                                                                                │
    connecting ──▶ full pass ──▶ watch (IDLE on INBOX) ──hint──▶ pass over INBOX ──▶ watch … │
            │                        │     ▲                                                 │
            │                        └─poll or request──▶ full pass on the same connection ──┘
            ▼
    authenticationError: stays so until new credentials come, or a person asks to check again

One connection at rest. The poll is what guarantees; IDLE only makes it early. While the server answers polls the link
is proven; a server that falls silent in an exchange, or a link that dies, ends the session and a new one begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog

from mailmill.errors import AuthenticationError, CommandError, ConnectionLostError, MailmillError, StoreError
from mailmill.imap.connection import ImapConnection
from mailmill.imap.pool import Pool, PoolSettings
from mailmill.imap.providers import Provider
from mailmill.model import AccountState
from mailmill.store import accounts as store
from mailmill.store.messages import keep_history
from mailmill.sync.account_pass import AccountPass, Progress, Scope
from mailmill.sync.context import SyncContext
from mailmill.sync.failures import Action, classify, delay_seconds
from mailmill.sync.report import PassReport

# After this long without an error the next one counts as the first.
_STABLE_SECONDS = 120.0
# A message that lost its last place is confirmed deleted, or found elsewhere, this soon.
_ORPHAN_SECONDS = 1.0
# So many hints in a row, each at once and about nothing, and the session polls instead until the next full pass.
_BARREN_HINTS = 10


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """How one account is synced. ``mailboxes`` are globs over decoded paths."""

    mailboxes: Sequence[str] = ("*",)
    pool: PoolSettings = field(default_factory=PoolSettings)
    poll_interval_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class AccountView:
    """What can be seen of a running account. ``silent_seconds``: since the last proven round trip, None before it."""

    state: AccountState
    reason: str
    last_pass_at: float | None
    silent_seconds: float | None
    connections: int
    push: str | None
    progress: Progress


class _Watch(Enum):
    """How watching ended: a hint that brought something, one that did not, time or a wanted pass, IDLE refused."""

    SYNCED = auto()
    NOTHING_NEW = auto()
    WAITED = auto()
    REFUSED = auto()


@dataclass(slots=True, eq=False)
class _Request:
    done: asyncio.Future[PassReport]


class AccountSync:
    """Keeps one account in sync. ``run`` is its task; the other methods may be called from the same loop."""

    def __init__(
        self,
        context: SyncContext,
        settings: AccountSettings,
        *,
        connect: Callable[[], Awaitable[ImapConnection]],
        provider: Provider,
        state: AccountState,
        reason: str = "",
        initialized: bool,
        slots: asyncio.Semaphore,
    ) -> None:
        """``connect`` opens and authenticates a connection. ``slots`` bounds how many accounts connect and do their
        first pass at once.
        """
        self._context = context
        self._settings = settings
        self._connect = connect
        self._provider = provider
        self._state = state
        self._reason = reason
        self._recorded = (state, reason)
        self._initialized = initialized
        self._slots = slots
        self._log = structlog.get_logger("mailmill.sync").bind(account=context.account)
        self._pass = AccountPass(context, mailboxes=settings.mailboxes, connections=settings.pool.size)
        self._requests: list[_Request] = []
        self._serving: list[_Request] = []
        self._opened_before = 0
        self._cut_backlogs = 0
        self._wanted = asyncio.Event()
        self._resume = asyncio.Event()
        self._pool: Pool[ImapConnection] | None = None
        self._main: ImapConnection | None = None
        self._last_error: MailmillError | None = None
        self._last_pass_at: float | None = None
        self._push: str | None = None
        self._jitter = random.Random()  # noqa: S311 - spreads load, guards nothing

    # -- what others may ask ----------------------------------------------------------------------------------------

    def view(self) -> AccountView:
        loop = asyncio.get_running_loop()
        main = self._main
        return AccountView(
            state=self._state,
            reason=self._reason,
            last_pass_at=self._last_pass_at,
            silent_seconds=loop.time() - main.last_proven_at if main is not None else None,
            connections=self._pool.stats.leased + self._pool.stats.idle if self._pool is not None else 0,
            push=self._push,
            progress=self._pass.progress,
        )

    async def sync_now(self) -> PassReport:
        """A full pass that begins after this call, on the warm connection. Errors are in the report, not raised.

        An account that is not connected answers at once with the error that keeps it so; it is not hammered.
        """
        if self._last_error is not None and self._main is None:
            return PassReport(self._context.account, errors=[self._last_error])
        request = _Request(asyncio.get_running_loop().create_future())
        self._requests.append(request)
        self._wanted.set()
        return await request.done

    def resume(self) -> None:
        """Credentials are new, or a check succeeded: try again now."""
        self._resume.set()

    # -- the life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Every error of this account ends here."""
        failures = 0
        loop = asyncio.get_running_loop()
        if self._state is AccountState.AUTHENTICATION_ERROR:
            await self._wait_for_person(AuthenticationError(self._reason or "the server refused the credentials"))
        while True:
            began = loop.time()
            try:
                await self._session()
            except* Exception as group:  # the account boundary: whatever it is, it stays in this account
                if _being_cancelled():
                    # An error on the way out must not pass for a failure of the account: the stop would be lost.
                    raise asyncio.CancelledError from group
                failures = 1 if loop.time() - began > _STABLE_SECONDS else failures + 1
                await self._failed(_first(group), failures)

    async def run_once(self) -> PassReport:
        """Connect, one complete pass, log out. For commands without a service; errors are in the report."""
        report = PassReport(self._context.account)
        try:
            async with self._connected() as (main, scope):
                again = await self._complete_pass(main, scope, report)
                if again:
                    # Something lost its last place: one more look tells whether it moved or is gone.
                    second = PassReport(self._context.account)
                    await self._complete_pass(main, scope, second)
                    report.absorb(second)
                await self._set_state(AccountState.DISCONNECTED)
        except* Exception as group:
            if _being_cancelled():
                raise asyncio.CancelledError from group
            error = self._known(_first(group))
            report.errors.insert(0, error)
            await self._note_failure(error)
        return report

    async def _complete_pass(self, main: ImapConnection, scope: Scope, report: PassReport) -> bool:
        started_at = await self._full_pass(main, scope, report)
        await asyncio.gather(*self._pass.backlogs)
        return await self._conclude(report, started_at)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[ImapConnection, Scope]]:
        """The account's pool, the connection that watches, and the task group of its backlogs."""
        await self._set_state(AccountState.CONNECTING)
        pool = Pool(self._connect, self._settings.pool)
        self._pool = pool
        try:
            async with asyncio.TaskGroup() as group, pool.lease() as main:
                self._main = main
                self._last_error = None
                yield main, Scope(pool, group, self._slots)
        finally:
            self._main = None
            await pool.close()

    async def _session(self) -> None:
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            async with self._slots:
                main, scope = await stack.enter_async_context(self._connected())
                if not self._initialized:
                    await self._set_state(AccountState.SYNCING)
                orphans = await self._pass_for_requests(main, scope)
            if self._pass.backlogs:
                await self._set_state(AccountState.SYNCING)
            await self._settled()
            poll_seconds = min(self._settings.poll_interval_seconds, self._provider.idle_probe_seconds)
            idle_works, barren, refused = main.features.idle, 0, False
            while True:
                # Spread the polls of many accounts that connected in the same second.
                due = _ORPHAN_SECONDS if orphans else poll_seconds * self._jitter.uniform(0.9, 1.0)
                poll_at = loop.time() + due
                orphans = False
                while not self._wanted.is_set() and loop.time() < poll_at:
                    watched = self._pass.watched
                    if idle_works and watched is not None:
                        began = loop.time()
                        outcome = await self._watch(main, watched.path, poll_at - loop.time())
                        quick = outcome is _Watch.NOTHING_NEW and loop.time() - began < 1.0
                        barren = barren + 1 if quick else 0
                        # A server that ends every IDLE at once would have us spin.
                        refused = outcome is _Watch.REFUSED
                        idle_works = not refused and barren < _BARREN_HINTS
                    else:
                        self._push = "poll"
                        await _wait_event(self._wanted, poll_at - loop.time())
                orphans = await self._pass_for_requests(main, scope)
                await self._settled()
                if not refused:
                    idle_works, barren = main.features.idle, 0

    async def _watch(self, main: ImapConnection, path: str, timeout_seconds: float) -> _Watch:
        """Idle on ``path`` until a hint was dealt with, a pass is wanted, or time is up."""
        if main.selected is None or main.selected.path != path:
            status = await main.select(path)
            if self._pass.moved_since(status):
                return await self._hinted(main, path)
        try:
            await main.idle()
        except CommandError as error:
            self._log.warning("IDLE refused, polling instead", error=str(error))
            return _Watch.REFUSED
        self._push = "idle"
        hint = asyncio.create_task(main.wait_hint(timeout_seconds))
        wanted = asyncio.create_task(self._wanted.wait())
        try:
            await asyncio.wait({hint, wanted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wanted.cancel()
            if not hint.done():
                hint.cancel()
            await asyncio.gather(hint, wanted, return_exceptions=True)
        if hint.cancelled():
            return _Watch.WAITED
        try:
            news = hint.result()
        except CommandError as error:
            # Begun, and refused after all: the connection is well. What came meanwhile is worth a look.
            self._log.warning("the server ended IDLE with an error", error=str(error))
            news = True
        return await self._hinted(main, path) if news else _Watch.WAITED

    async def _hinted(self, main: ImapConnection, path: str) -> _Watch:
        report = PassReport(self._context.account)
        told = await self._pass.one_mailbox(main, path, report, arrived_at=self._context.clock())
        if not told or report.expunged:
            # Renamed, deleted, or on its way to another mailbox: only a full pass can tell.
            self._wanted.set()
        changed = report.new or report.updated or report.expunged or self._pass.backlogs
        return _Watch.SYNCED if changed else _Watch.NOTHING_NEW

    async def _pass_for_requests(self, main: ImapConnection, scope: Scope) -> bool:
        """A full pass for all who asked before it began. Returns whether orphans want another look soon."""
        self._wanted.clear()
        self._serving, self._requests = self._requests, []
        if self._serving:
            self._pass.relist()
        report = PassReport(self._context.account)
        started_at = await self._full_pass(main, scope, report)
        serving, self._serving = self._serving, []
        backlogs = self._pass.backlogs
        if backlogs:
            scope.group.create_task(self._conclude_later(backlogs, report, started_at, serving))
            return False
        orphans = await self._conclude(report, started_at)
        _answer(serving, report)
        return orphans

    async def _conclude_later(
        self,
        backlogs: Sequence[asyncio.Task[None]],
        report: PassReport,
        started_at: float,
        serving: Sequence[_Request],
    ) -> None:
        try:
            await asyncio.wait(backlogs)
            orphans = await self._conclude(report, started_at)
        except BaseException:
            report.errors.append(ConnectionLostError("the pass was cut short", account=self._context.account))
            raise
        finally:
            _answer(serving, report)
        await self._settled()
        delay = _ORPHAN_SECONDS if orphans else 0.0
        if any(classify(error) is not Action.RETRY for error in report.errors):
            # A backlog that was cut goes on soon; one that keeps being cut, ever later.
            self._cut_backlogs += 1
            delay = delay_seconds(self._cut_backlogs, classify(report.errors[0]), jitter=self._jitter)
        elif not report.errors:
            self._cut_backlogs = 0
        if delay:
            await asyncio.sleep(delay)
            self._wanted.set()

    async def _settled(self) -> None:
        """The state after a pass: connected, unless backlogs still run."""
        if not self._pass.backlogs:
            await self._set_state(AccountState.CONNECTED)

    async def _full_pass(self, main: ImapConnection, scope: Scope, report: PassReport) -> float:
        loop = asyncio.get_running_loop()
        started_at, began = self._context.clock(), loop.time()
        fresh = self._last_pass_at is None or self._opened_before == 0
        received, trips = (0, 0) if fresh else (main.bytes_received, main.round_trips)
        try:
            await self._pass.all_mailboxes(main, scope, report, historical=not self._initialized)
        finally:
            opened = scope.pool.stats.opened_total
            report.connections_opened += opened - self._opened_before
            self._opened_before = opened
            report.bytes_received += main.bytes_received - received
            report.round_trips += main.round_trips - trips
            report.seconds = loop.time() - began
        self._last_pass_at = self._context.clock()
        return started_at

    async def _conclude(self, report: PassReport, started_at: float) -> bool:
        """A pass and its backlogs are through: the account is initialized, and what is gone is gone."""
        report.seconds = max(report.seconds, self._context.clock() - started_at)
        report.errors += self._pass.unfinished
        for error in report.errors:
            if classify(error) is Action.STOP_ACCOUNT:
                raise error
        if not self._pass.complete():
            return False
        if not self._initialized:
            async with self._context.database.write() as connection:
                await keep_history(connection, self._context.account_id)
                await store.mark_initialized(connection, self._context.account_id, self._context.clock())
            self._initialized = True
        return await self._pass.confirm_deleted(started_at)

    # -- failing ----------------------------------------------------------------------------------------------------

    async def _failed(self, error: BaseException, failures: int) -> None:
        known = self._known(error)
        action = classify(error)
        self._resume.clear()
        await self._note_failure(known)
        if action is Action.STOP_ACCOUNT:
            await self._wait_for_person(known)
            return
        delay = delay_seconds(failures, action, jitter=self._jitter)
        self._log.warning("account disconnected", error=known.message, hint=known.hint, retry_in=round(delay, 1))
        await _wait_event(self._resume, delay)

    def _known(self, error: BaseException) -> MailmillError:
        if isinstance(error, MailmillError):
            error.account = error.account or self._context.account
            return error
        self._log.error("account failed unexpectedly", exc_info=error)
        wrapped = MailmillError(
            f"unexpected {type(error).__name__}",
            hint="see the log for where it happened",
            account=self._context.account,
        )
        wrapped.__cause__ = error
        return wrapped

    async def _note_failure(self, error: MailmillError) -> None:
        self._pass.forget()
        self._opened_before = 0
        self._last_error = error
        self._push = None
        self._answer_all(error)
        stopped = classify(error) is Action.STOP_ACCOUNT
        state = AccountState.AUTHENTICATION_ERROR if stopped else AccountState.CONNECT_ERROR
        try:
            await self._set_state(state, error.message)
        except StoreError as failure:
            # A full disk must not end the account's task, and with it the service: the state is told when it can be.
            self._log.warning("state not recorded", error=str(failure), hint=failure.hint)

    async def _wait_for_person(self, error: MailmillError) -> None:
        self._last_error = error
        self._answer_all(error)
        self._log.error("account stopped", error=error.message, hint=error.hint)
        self._resume.clear()
        await self._resume.wait()
        self._last_error = None

    def _answer_all(self, error: MailmillError) -> None:
        waiting = [*self._serving, *self._requests]
        self._serving, self._requests = [], []
        _answer(waiting, PassReport(self._context.account, errors=[error]))

    async def _set_state(self, state: AccountState, reason: str = "") -> None:
        self._state, self._reason = state, reason
        if (state, reason) == self._recorded:
            return
        async with self._context.database.write() as connection:
            await store.set_state(connection, self._context.account_id, state, reason, self._context.clock())
        self._recorded = (state, reason)


def _answer(requests: Sequence[_Request], report: PassReport) -> None:
    for request in requests:
        if not request.done.done():
            request.done.set_result(report)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf of a group: what broke the session; the rest broke because of it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _wait_event(event: asyncio.Event, timeout_seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
