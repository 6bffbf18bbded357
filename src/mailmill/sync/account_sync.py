"""An account's life: connect, pass, watch; on a hint, a request or the clock, another pass; on an error, back off.

::

            ┌──────────────────────────── error: classify, back off ◀────────────────────────────┐
            ▼                                                                                    │
    connecting ──▶ full pass ──▶ watch (NOTIFY, IDLE) ──told──▶ sync those mailboxes ──▶ watch … │
            │                        │     ▲                                                     │
            │                        └─sweep, poll or request──▶ pass on the same connection ────┘
            ▼
    authenticationError: stays so until new credentials come, or a person asks to check again

One connection at rest. The poll is what guarantees; what the server tells only makes it early (`rounds`, `watch`). A
link is proven again and again; a server that falls silent, or a link that dies, ends the session and a new one begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import structlog

from mailmill.errors import AuthenticationError, ConnectionLostError, MailmillError, StoreError
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
from mailmill.sync.rounds import ORPHAN_SECONDS, Intervals, Rounds, Wanted
from mailmill.sync.watch import Push, WatchSettings, wait_event
from mailmill.sync.write_back import WriteBack

# After this long without an error the next one counts as the first.
_STABLE_SECONDS = 120.0
# Probes, answers and passes have shorter limits of their own. Silent for longer, an account is not called connected.
_ALARM_SECONDS = 180.0
_LINKED = frozenset({AccountState.CONNECTED, AccountState.SYNCING})


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """How one account is synced. ``mailboxes`` are globs over decoded paths.

    Everything is looked at every ``poll_interval_seconds``, what the server does not push every
    ``sweep_interval_seconds``.
    """

    mailboxes: Sequence[str] = ("*",)
    pool: PoolSettings = field(default_factory=PoolSettings)
    poll_interval_seconds: float = 300.0
    sweep_interval_seconds: float = 60.0
    watch: WatchSettings = field(default_factory=WatchSettings)


@dataclass(frozen=True, slots=True)
class AccountView:
    """What can be seen of a running account. ``silent_seconds``: since the last proven round trip, None before it.

    ``push`` is how news comes, ``pushed`` the one mailbox of which it does (None: all, or none), ``sweep_seconds`` how
    often the others are looked at.
    """

    state: AccountState
    reason: str
    last_pass_at: float | None
    silent_seconds: float | None
    connections: int
    push: Push | None
    pushed: str | None
    sweep_seconds: float | None
    progress: Progress


@dataclass(slots=True, eq=False)
class _Request:
    done: asyncio.Future[PassReport]
    first: Callable[[], Awaitable[None]] | None = None


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
        self._write_back = WriteBack(context, wake=self.write_back_wanted)
        self._requests: list[_Request] = []
        self._serving: list[_Request] = []
        self._concluding = 0
        self._opened_before = 0
        self._cut_backlogs = 0
        self._wanted = Wanted()
        self._resume = asyncio.Event()
        self._pool: Pool[ImapConnection] | None = None
        self._main: ImapConnection | None = None
        self._last_error: MailmillError | None = None
        self._last_pass_at: float | None = None
        self._rounds: Rounds | None = None
        self._failures = 0
        self._notify_works = True
        self._jitter = random.Random()  # noqa: S311 - spreads load, guards nothing

    # -- what others may ask ----------------------------------------------------------------------------------------

    def view(self) -> AccountView:
        main, rounds = self._main, self._rounds
        state, reason = self._state, self._reason
        if main is not None and state in _LINKED and main.silent_seconds > _ALARM_SECONDS:
            # Whatever keeps us from finding out ourselves: what is shown must not be better than what is known.
            state, reason = AccountState.CONNECT_ERROR, f"no answer from the server for {main.silent_seconds:.0f} s"
        return AccountView(
            state=state,
            reason=reason,
            last_pass_at=self._last_pass_at,
            silent_seconds=main.unproven_seconds if main is not None else None,
            connections=self._pool.stats.leased + self._pool.stats.idle if self._pool is not None else 0,
            push=rounds.push if rounds is not None else None,
            pushed=rounds.pushed if rounds is not None else None,
            sweep_seconds=rounds.sweep_seconds if rounds is not None else None,
            progress=self._pass.progress,
        )

    async def sync_now(self, first: Callable[[], Awaitable[None]] | None = None) -> PassReport:
        """A full pass that begins after this call, on the warm connection. Errors are in the report, not raised.

        An account that is not connected answers at once with the error that keeps it so; it is not hammered.
        ``first`` is a repair of the store: the account's own task runs it before the pass, while nothing else of the
        account is being written, and then reads again what it remembers of the store.
        """
        if self._last_error is not None and self._main is None:
            return PassReport(self._context.account, errors=[self._last_error])
        request = _Request(asyncio.get_running_loop().create_future(), first)
        self._requests.append(request)
        self._wanted.set()
        return await request.done

    @contextlib.asynccontextmanager
    async def lease(self, mailbox: str | None = None) -> AsyncIterator[ImapConnection]:
        """A connection of the account's pool, besides the one that watches; for a pool of at least two.

        Raises what keeps the account from being connected, and PoolTimeoutError.
        """
        if self._pool is None or self._main is None:
            raise self._last_error or ConnectionLostError("it is not connected yet", account=self._context.account)
        async with self._pool.lease(mailbox) as connection:
            yield connection

    def write_back_wanted(self) -> None:
        """There is a new request: apply it as soon as the connection is free. Does nothing while there is none."""
        self._write_back.wanted.set()
        self._wanted.stir()

    def is_written(self, request_id: int) -> bool:
        """Whether the store shows what a finished request did on the server: the sync after it is through."""
        return self._write_back.is_synced(request_id)

    async def write_once(self) -> PassReport:
        """Connect, apply the requests that are due, sync what they touched, log out. For commands without a service;
        errors are in the report.
        """
        report = PassReport(self._context.account)

        async def work(main: ImapConnection, scope: Scope) -> None:
            await self._pass.recall()
            if not await self._write(main):
                await self._complete_pass(main, scope, report)
                await self._write(main)

        await self._alone(work, report)
        return report

    def resume(self) -> None:
        """Credentials are new, or a check succeeded: try again now, if not connected."""
        # Also while the last attempt still ends or closes: the wait after it is over at once then.
        if self._main is None:
            self._resume.set()

    def called_back(self) -> None:
        """The host has room again. What only a person can mend it does not mend."""
        if self._state is not AccountState.AUTHENTICATION_ERROR:
            self.resume()

    def woke(self) -> None:
        """The machine slept: prove the link and look at everything, or try at once to connect again."""
        self._failures = 0
        if self._rounds is not None:
            self._rounds.woke()
        if self._pool is not None:
            self._pool.expire_all()
        self.called_back()

    # -- the life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Every error of this account ends here, and nobody is left waiting for a pass."""
        try:
            if self._state is AccountState.AUTHENTICATION_ERROR:
                refused = AuthenticationError(self._reason or "the server refused the credentials")
                await self._held(self._wait_for_person(refused))
            while True:
                await self._session_and_after()
        finally:
            self._main = None
            self._last_error = ConnectionLostError("it is not kept in sync any more", account=self._context.account)
            self._answer_all(self._last_error)

    async def _session_and_after(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._resume.clear()
        try:
            await self._session()
        except* Exception as group:  # the account boundary: whatever it is, it stays in this account
            if _being_cancelled():
                # An error on the way out must not pass for a failure of the account: the stop would be lost.
                raise asyncio.CancelledError from group
            self._failures = 1 if loop.time() - began > _STABLE_SECONDS else self._failures + 1
            await self._held(self._failed(_first(group)))

    async def run_once(self, first: Callable[[], Awaitable[None]] | None = None, *, writes: bool = True) -> PassReport:
        """Connect, one complete pass, log out. For commands without a service; errors are in the report.

        ``first`` as in `sync_now`. Without ``writes`` nothing is changed on the server: requests stay as they are.
        """
        report = PassReport(self._context.account)

        async def work(main: ImapConnection, scope: Scope) -> None:
            if writes:
                await self._write_back.apply_pending(main)
            again = await self._complete_pass(main, scope, report)
            if writes and self._write_back.wanted.is_set():
                # Messages that requests had lost sight of: the pass has found them, or they are gone.
                await self._write(main)
            if again:
                # Something lost its last place: one more look tells whether it moved or is gone.
                second = PassReport(self._context.account)
                await self._complete_pass(main, scope, second)
                report.absorb(second)

        await self._alone(work, report, first)
        return report

    async def _alone(
        self,
        work: Callable[[ImapConnection, Scope], Awaitable[None]],
        report: PassReport,
        first: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``work`` on a connection made for it; an error is put into ``report``."""
        try:
            await self._repair(first)
            async with self._connected() as (main, scope):
                await work(main, scope)
                await self._set_state(AccountState.DISCONNECTED)
        except* Exception as group:
            if _being_cancelled():
                raise asyncio.CancelledError from group
            error = self._known(_first(group))
            report.errors.insert(0, error)
            await self._note_failure(error)

    async def _complete_pass(self, main: ImapConnection, scope: Scope, report: PassReport) -> bool:
        started_at = await self._full_pass(main, scope, report)
        await asyncio.gather(*self._pass.backlogs)
        await self._written()
        return await self._conclude(report, started_at)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[ImapConnection, Scope]]:
        """The account's pool, the connection that watches, and the task group of its backlogs."""
        await self._set_state(AccountState.CONNECTING)
        pool = Pool(self._connect, self._settings.pool)
        self._pool = pool
        self._concluding = 0
        try:
            async with asyncio.TaskGroup() as group, pool.lease() as main:
                self._main = main
                self._last_error = None
                yield main, Scope(pool, group, self._slots)
        finally:
            self._main = None
            await pool.close()

    async def _session(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with self._slots:
                main, scope = await stack.enter_async_context(self._connected())
                if self._initialized:
                    # Shown, not recorded: most passes are over before anybody could read it.
                    self._state = AccountState.SYNCING
                else:
                    await self._set_state(AccountState.SYNCING)
                self._rounds = rounds = self._make_rounds(main)
                await rounds.begin()
                orphans = await self._pass_for_requests(main, scope)
            if self._pass.backlogs:
                await self._set_state(AccountState.SYNCING)
            await self._settled()
            while True:
                thorough = await rounds.until_due(orphans=orphans)
                orphans = await self._pass_for_requests(main, scope, thorough=thorough)
                await self._settled()

    def _make_rounds(self, main: ImapConnection) -> Rounds:
        settings = self._settings
        intervals = Intervals(settings.poll_interval_seconds, settings.sweep_interval_seconds, settings.watch)
        return Rounds(
            self._context,
            main,
            self._pass,
            self._wanted,
            intervals,
            provider=self._provider,
            notify=self._notify_works,
            apply=lambda: self._write_between(main),
        )

    async def _write_between(self, main: ImapConnection) -> None:
        """Requests came, or are due again, while we were watching."""
        if self._write_back.wanted.is_set() and not await self._write(main):
            self._wanted.set()

    async def _write(self, main: ImapConnection) -> bool:
        """Apply the requests that are due, and sync the mailboxes that they touched. False: a full pass is needed."""
        applied = await self._write_back.apply_pending(main)
        report = PassReport(self._context.account)
        told = True
        for path in applied.touched:
            told &= await self._pass.one_mailbox(main, path, report, arrived_at=self._context.clock())
        if told:
            self._write_back.synced()
        if applied.lost or not told:
            # A mailbox that we do not know, or a message that is elsewhere: only a full pass can tell.
            self._pass.relist()
            return False
        return not (report.expunged and await self._pass.has_orphans())

    async def _written(self) -> None:
        """After a full pass: the store shows all that requests have done, and where lost messages are; but for those
        that may be among what backlogs are still fetching.
        """
        self._write_back.synced()
        if not self._pass.backlogs:
            await self._write_back.find_lost()

    async def _pass_for_requests(self, main: ImapConnection, scope: Scope, *, thorough: bool = True) -> bool:
        """A full pass for all who asked before it began. Returns whether orphans want another look soon."""
        self._wanted.clear()
        if self._write_back.wanted.is_set():
            await self._write_back.apply_pending(main)
        # A repair must not meet a batch that was planned before it: it waits until the backlogs are through.
        waiting = [request for request in self._requests if request.first is not None and self._concluding]
        serving = [request for request in self._requests if request not in waiting]
        self._requests = waiting
        self._serving += serving
        if serving:
            self._pass.relist()
        for request in serving:
            await self._repair(request.first)
        report = PassReport(self._context.account)
        started_at = await self._full_pass(main, scope, report, thorough=thorough)
        if self._rounds is not None:
            self._rounds.passed(report, thorough=thorough)
        await self._written()
        backlogs = self._pass.backlogs
        if backlogs:
            self._concluding += 1
            scope.group.create_task(self._conclude_later(backlogs, report, started_at, serving))
            return False
        orphans = await self._conclude(report, started_at)
        self._answer(serving, report)
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
            self._answer(serving, report)
            self._concluding -= 1
            if self._requests or self._write_back.has_lost:
                self._wanted.set()
        await self._settled()
        delay = ORPHAN_SECONDS if orphans else 0.0
        if any(classify(error) is not Action.RETRY for error in report.errors):
            # A backlog that was cut goes on soon; one that keeps being cut, ever later.
            self._cut_backlogs += 1
            delay = delay_seconds(self._cut_backlogs, classify(report.errors[0]), jitter=self._jitter)
        elif not report.errors:
            self._cut_backlogs = 0
        if delay:
            await asyncio.sleep(delay)
            self._wanted.set()

    async def _repair(self, first: Callable[[], Awaitable[None]] | None) -> None:
        if first is not None:
            await first()
            self._pass.reread()

    async def _settled(self) -> None:
        """The state after a pass: connected, unless backlogs still run."""
        if not self._pass.backlogs:
            await self._set_state(AccountState.CONNECTED)

    async def _full_pass(
        self, main: ImapConnection, scope: Scope, report: PassReport, *, thorough: bool = True
    ) -> float:
        loop = asyncio.get_running_loop()
        started_at, began = self._context.clock(), loop.time()
        fresh = self._last_pass_at is None or self._opened_before == 0
        received, trips = (0, 0) if fresh else (main.bytes_received, main.round_trips)
        try:
            historical = not self._initialized
            await self._pass.all_mailboxes(main, scope, report, historical=historical, thorough=thorough)
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

    async def _held(self, handling: Coroutine[None, None, None]) -> None:
        """The boundary's own work can fail too (a log, a row that cannot be written); the account's task goes on."""
        try:
            await handling
        except Exception as error:  # noqa: BLE001 - as above
            wrapped = self._wrapped(error)
            self._last_error = wrapped
            self._answer_all(wrapped)
            await wait_event(self._resume, delay_seconds(max(1, self._failures), Action.RETRY, jitter=self._jitter))

    async def _failed(self, error: BaseException) -> None:
        known = self._known(error)
        action = classify(error)
        await self._note_failure(known)
        if action is Action.STOP_ACCOUNT:
            await self._wait_for_person(known)
            return
        delay = delay_seconds(max(1, self._failures), action, jitter=self._jitter)
        self._log.warning("account disconnected", error=known.message, hint=known.hint, retry_in=round(delay, 1))
        await wait_event(self._resume, delay)

    def _known(self, error: BaseException) -> MailmillError:
        if isinstance(error, MailmillError):
            error.account = error.account or self._context.account
            return error
        self._log.error("account failed unexpectedly", exc_info=error)
        return self._wrapped(error)

    def _wrapped(self, error: BaseException) -> MailmillError:
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
        if self._rounds is not None:
            self._notify_works = self._notify_works and not self._rounds.went_mute
            self._rounds = None
        self._write_back.forget()
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
        await self._resume.wait()
        self._last_error = None

    def _answer_all(self, error: MailmillError) -> None:
        waiting = [*self._serving, *self._requests]
        self._requests = []
        self._answer(waiting, PassReport(self._context.account, errors=[error]))

    def _answer(self, requests: Sequence[_Request], report: PassReport) -> None:
        for request in requests:
            if not request.done.done():
                request.done.set_result(report)
        self._serving = [request for request in self._serving if not request.done.done()]

    async def _set_state(self, state: AccountState, reason: str = "") -> None:
        self._state, self._reason = state, reason
        if (state, reason) == self._recorded:
            return
        async with self._context.database.write() as connection:
            await store.set_state(connection, self._context.account_id, state, reason, self._context.clock())
        self._recorded = (state, reason)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf of a group: what broke the session; the rest broke because of it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
