"""The worker: takes rows of work, has the pumps run them, and records what came of it.

One loop talks to the queue for all processors. Each round is one transaction: outcomes that are there go in, and rows
come out for every pump that has room. So under load one sync of the disk serves hundreds of rows; at rest a hint starts
a round at once. A second loop proves life, takes back what the dead held, and makes due what waited.

Laws:

- Claims reach a pump only after their transaction has committed; outcomes leave memory only after theirs has. A round
  that failed is repeated: outcomes that had been recorded after all are stale then, and change nothing. Outcomes that
  the store refuses twice are recorded one by one, so that none holds up the others.
- A hint is a hint: behind it stands a poll, jittered so that nodes do not ask in step.
- Stop: no more claims, what has begun may end within the grace, what has not is given back, then the worker's row goes.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from mailmill.errors import MailmillError
from mailmill.message_parser import parse_message
from mailmill.processing.loader import CACHE_BYTES, MessageLoader, RawMessages
from mailmill.processing.pump import Pump, Wanted
from mailmill.processing.runners import Runners
from mailmill.processing.threads import DEFAULT_SIZE
from mailmill.store import dialect, queue
from mailmill.store import processors as operated
from mailmill.store.doors import write_urgent
from mailmill.store.queue import Failed, Finished
from mailmill.store.trouble import is_store_trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.processing.registry import Processor
    from mailmill.store.database import Database, WakeName
    from mailmill.store.wakeups import Subscription

_MAX_OUTCOMES: Final = 500
_SOON_OUTCOMES: Final = 150
_MIN_DEADLINE_SECONDS: Final = 3600.0
_MAX_BACK_OFF_SECONDS: Final = 10.0
_MAX_REFUSALS: Final = 2
_MAX_PUT_OFFS: Final = 4
_END_SECONDS: Final = 3.0
_WAKE_WORK: Final[tuple[WakeName, ...]] = ("work",)

_log = structlog.get_logger(__name__)

T = TypeVar("T", Finished, Failed)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works.

    ``threads`` and ``children`` (0: one for each core) are shared by its processors, ``max_stuck_threads`` bounds those
    that outlive their timeout (None: four times ``threads``). ``alone``: no other worker uses this store, so
    whatever another one holds is a dead one's, at once (None: as the database says). ``gather_seconds`` is how long an
    outcome waits for others while more are running. ``courtesy_seconds``: how long a hint of new work waits, so that
    alerts about the same mail have the database and the loop for themselves first.
    """

    threads: int = DEFAULT_SIZE
    max_stuck_threads: int | None = None
    children: int = 0
    cache_bytes: int = CACHE_BYTES
    alone: bool | None = None
    poll_seconds: float = 5.0
    heartbeat_seconds: float = 5.0
    dead_after_seconds: float = 30.0
    grace_seconds: float = 5.0
    gather_seconds: float = 0.005
    courtesy_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What a worker has in hand, by processor, and how many of its threads are stuck."""

    in_hand: dict[str, int]
    unrecorded: int
    stuck_threads: int


def _unobserved(_stage: str, _seconds: float) -> None:
    return


def _unknown_host(_account: str) -> None:
    return None


class Worker:
    """Runs ``processors`` over the work of one store, under the name ``worker_id`` (unique among all that ever ran).

    ``authserv_id`` gives the trusted Authentication-Results host of an account. ``observe(stage, seconds)`` is told how
    long things took: ``picked_up`` (enqueued → claimed), ``ran:PROCESSOR``, ``recorded`` (enqueued → recorded),
    ``failed:PROCESSOR`` and ``gave_up:PROCESSOR`` (enqueued → a run failed, for good), ``taken_back`` (once a row).
    """

    def __init__(
        self,
        database: Database,
        blobs: RawMessages,
        processors: Sequence[Processor],
        worker_id: str,
        *,
        settings: WorkerSettings | None = None,
        authserv_id: Callable[[str], str | None] = _unknown_host,
        observe: Callable[[str, float], None] = _unobserved,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.worker_id = worker_id
        self._database = database
        self._settings = settings or WorkerSettings()
        self._observe = observe
        self._clock = clock
        self._runners = Runners(
            threads=self._settings.threads,
            max_stuck_threads=self._settings.max_stuck_threads,
            children=self._settings.children,
        )
        loader = MessageLoader(database, blobs, cache_bytes=self._settings.cache_bytes)
        if any(one.keep_raw for one in processors):
            loader.parse = partial(parse_message, keep_raw=True)
        self._round = asyncio.Event()
        self._pumps = [
            Pump(
                processor,
                loader,
                self._runners,
                self._take_outcome,
                ask=self._round.set,
                authserv_id=authserv_id,
                clock=clock,
                observe=observe,
            )
            for processor in processors
        ]
        self._outcomes: deque[Finished | Failed] = deque()
        self._obeying = asyncio.Lock()
        self._upkeep = asyncio.Event()
        self._quiet = asyncio.Event()
        self._refusals = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._limits = {one.name: one.account_concurrency for one in processors}
        self._unbegun: list[queue.Claim] = []
        self._upkeep_at = 0.0  # of the running clock, as is when life was proven last
        self._proven_at = 0.0
        self._reaps_from = 0.0
        self._put_offs = 0
        self._claims_in_doubt = False
        self._stopping = False

    @property
    def stats(self) -> WorkerStats:
        return WorkerStats(
            in_hand={pump.processor.name: len(pump.held) for pump in self._pumps},
            unrecorded=len(self._outcomes),
            stuck_threads=self._runners.stuck_threads,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then stop in good order within the grace and some seconds.

        A cancellation stops without the grace. Raises StoreError where the store cannot be written at the start and is
        nobody else's; a server of many is waited for.
        """
        await self._begin(stop)
        try:
            with self._database.wake.work.subscribe() as hints:
                async with asyncio.TaskGroup() as group:
                    loops = [
                        group.create_task(self._keep("rounds", self._run_rounds)),
                        group.create_task(self._keep("hints", lambda: self._take_hints(hints))),
                        group.create_task(self._keep("upkeep", self._keep_up)),
                    ]
                    loops += [group.create_task(self._keep(pump.processor.name, pump.run)) for pump in self._pumps]
                    await stop.wait()
                    await self._drain()
                    for loop in loops:
                        loop.cancel()
        finally:
            await self._end()

    async def settle(self) -> None:
        """Wait until there is nothing left to do now: no row to claim, none in hand, no outcome to record.

        Rows that wait for another try are not waited for. Only while :meth:`run` runs.
        """
        for pump in self._pumps:
            pump.look = pump.crashed = True
        self._quiet.clear()
        self._round.set()
        await self._quiet.wait()

    async def _begin(self, stop: asyncio.Event) -> None:
        alone = self._database.alone if self._settings.alone is None else self._settings.alone
        self._proven_at = _running_clock()  # there is nothing yet that others could have taken for dead
        failures = 0
        while not stop.is_set():
            try:
                await self._look_after(0.0 if alone else self._settings.dead_after_seconds)
                break
            except MailmillError as error:
                if alone:
                    raise
                # A server that is restarted, or a connection that is cut, comes back.
                failures += 1
                _log.warning("the worker waits for the store before it begins", error=str(error))
                with suppress(TimeoutError):
                    async with asyncio.timeout(_pause_seconds(failures)):
                        await stop.wait()
        self._round.set()

    # -- rounds -------------------------------------------------------------------------------------------------------

    async def _run_rounds(self) -> None:
        while True:
            await self._round.wait()
            self._round.clear()
            await self._one_round()
            if self._outcomes:
                self._gather()
            if not (self._outcomes or any(pump.held for pump in self._pumps) or self._wanted()):
                self._quiet.set()

    def _wanted(self) -> list[tuple[Pump, Wanted]]:
        if self._stopping:
            return []
        return [(pump, wanted) for pump in self._pumps if pump.look and (wanted := pump.wants()) is not None]

    async def _one_round(self) -> None:
        outcomes = [self._outcomes[index] for index in range(min(len(self._outcomes), _MAX_OUTCOMES))]
        wanted = self._wanted()
        if not outcomes and not wanted:
            return
        # Before the transaction begins: a hint that comes while it runs must be there afterwards.
        for pump, _ in wanted:
            pump.look = False
        try:
            claimed = await self._exchange(outcomes, wanted)
        except BaseException as error:
            for pump, _ in wanted:
                pump.look = True
                pump.front.reached(None)
            # It may be the answer to the COMMIT that was lost.
            self._claims_in_doubt = self._claims_in_doubt or bool(wanted)
            self._round.set()
            if outcomes and isinstance(error, Exception) and not is_store_trouble(error):
                self._refusals += 1
                if self._refusals >= _MAX_REFUSALS:
                    await self._record_each(outcomes)
                    return
            raise
        if outcomes:
            self._refusals = 0
        for _ in outcomes:
            self._outcomes.popleft()
        now = self._clock()
        for outcome in outcomes:
            self._observe("recorded", max(0.0, now - outcome.claim.enqueued_at))
        for pump, asked, claims, more in claimed:
            pump.feed(asked, claims)
            # The others are looked for when those that crashed have been, and the other way round.
            pump.look = pump.look or more or bool(claims) or asked.crashed or pump.crashed
        if self._wanted():
            self._round.set()

    async def _record_each(self, outcomes: Sequence[Finished | Failed]) -> None:
        """Outcomes that cannot be written together, one by one: what is wrong with one must not hold up the others.

        One that cannot be written even alone becomes a failure for good. Raises where the store is what is in trouble.
        """
        for outcome in outcomes:
            try:
                await self._exchange([outcome], [])
            except Exception as error:
                if is_store_trouble(error):
                    raise
                claim = outcome.claim
                reason = f"what came of it cannot be recorded: {error}"
                _log.error(
                    "an outcome cannot be recorded",
                    processor=claim.processor,
                    message_id=claim.message_id,
                    error=reason,
                )
                try:
                    await self._exchange([Failed(claim, reason, None)], [])
                except Exception as again:
                    if is_store_trouble(again):
                        raise
                    # Its row is taken back at its deadline.
                    _log.error("its failure cannot be recorded either", message_id=claim.message_id, error=str(again))
            self._outcomes.popleft()
        self._refusals = 0

    async def _exchange(
        self, outcomes: Sequence[Finished | Failed], wanted: Sequence[tuple[Pump, Wanted]]
    ) -> list[tuple[Pump, Wanted, list[queue.Claim], bool]]:
        """One transaction: outcomes in, claims out; the flag says that there may be more to claim though none came."""
        exchange = queue.Exchange(
            self.worker_id, _only(outcomes, Finished), _only(outcomes, Failed), finished_at=self._clock()
        )
        ended = self._accounts_of(outcomes)
        limited = {pump.processor.name for pump, _ in wanted if pump.processor.account_concurrency is not None}
        if limited or ended or self._claims_in_doubt or not self._is_proven():
            report, found = await self._exchange_apart(exchange, wanted, limited, ended)
        else:
            asks = [_ask(pump, what) for pump, what in wanted]
            exchange = replace(exchange, asks=asks, may_claim=self._is_proven)
            report, claims, looked = await self._database.transact(exchange)
            found = [(rows, not looked) for rows in claims]
        if report.stale:
            _log.warning("outcomes came too late", worker=self.worker_id, rows=report.stale)
        self._claims_in_doubt = False
        return [(pump, what, *rows) for (pump, what), rows in zip(wanted, found, strict=True)]

    async def _exchange_apart(
        self,
        exchange: queue.Exchange,
        wanted: Sequence[tuple[Pump, Wanted]],
        limited: set[str],
        ended: Mapping[str, set[int]],
    ) -> tuple[queue.FinishReport, list[tuple[list[queue.Claim], bool]]]:
        """The same step by step, with what has to stand before, between and after them."""
        freed: set[str] = set()
        wake: set[WakeName] = set()  # read after the commit
        async with self._database.write(wake=wake) as connection:
            await queue.take_turns(connection, limited | ended.keys())
            if wanted and not self._is_proven():
                await queue.heartbeat(connection, self.worker_id, dialect.now(connection))
            report = (await connection.run_sync(exchange)).report
            for name, account_ids in ended.items():
                if await queue.let_in(connection, name, account_ids, self._limits[name] or 0):
                    freed.add(name)
                    wake.add("work")
            if self._claims_in_doubt and await queue.release_unknown(connection, self.worker_id, self._known()):
                wake.add("work")
            found = [await self._claim(connection, pump, what) for pump, what in wanted]
        for pump in self._pumps:
            if pump.processor.name in freed:
                pump.look = True
                self._round.set()
        return report, found

    def _is_proven(self) -> bool:
        """False where it was stopped or starved for long: given up for dead by now, it would lose at once what it
        claims.
        """
        return _running_clock() - self._proven_at <= self._settings.dead_after_seconds / 2

    def _known(self) -> list[queue.Claim]:
        """All claims that this worker has in hand."""
        held = [claim for pump in self._pumps for claim in pump.held.values()]
        return [*held, *(outcome.claim for outcome in self._outcomes), *self._unbegun]

    async def _claim(self, connection: AsyncConnection, pump: Pump, wanted: Wanted) -> tuple[list[queue.Claim], bool]:
        ask, account_limit = _ask(pump, wanted), pump.processor.account_concurrency
        if account_limit is None:
            return (await connection.run_sync(queue.Exchange(self.worker_id, asks=[ask]))).claims[0], False
        return await queue.claim_limited(
            connection,
            processor=ask.processor,
            version=ask.version,
            worker_id=self.worker_id,
            limit=ask.limit,
            account_limit=account_limit,
            deadline_seconds=ask.deadline_seconds,
            crashed=ask.crashed,
            now=dialect.now(connection),
        )

    def _accounts_of(self, outcomes: Sequence[Finished | Failed]) -> dict[str, set[int]]:
        """By processor that is limited by account: the accounts that have one less in processing."""
        accounts: dict[str, set[int]] = {}
        for outcome in outcomes:
            if self._limits.get(outcome.claim.processor) is not None:
                accounts.setdefault(outcome.claim.processor, set()).add(outcome.claim.account_id)
        return accounts

    def _take_outcome(self, pump: Pump, outcome: Finished | Failed) -> None:
        self._outcomes.append(outcome)
        if isinstance(outcome, Failed):
            _log.warning(
                "a processor failed",
                processor=outcome.claim.processor,
                message_id=outcome.claim.message_id,
                error=outcome.error,
                again=outcome.retry_after_seconds is not None,
            )
            since = max(0.0, self._clock() - outcome.claim.enqueued_at)
            self._observe(f"failed:{outcome.claim.processor}", since)
            if outcome.retry_after_seconds is not None:
                self._upkeep_by(outcome.retry_after_seconds)
            else:
                self._observe(f"gave_up:{outcome.claim.processor}", since)
        if pump.look and pump.wants() is not None:
            self._round.set()
        else:
            self._gather()

    def _gather(self) -> None:
        """Record soon: at once where there is enough or nothing to wait for."""
        if len(self._outcomes) >= _SOON_OUTCOMES or not any(pump.held for pump in self._pumps):
            self._round.set()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(self._settings.gather_seconds, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._round.set()

    async def _take_hints(self, hints: Subscription) -> None:
        while True:
            if await hints.wait(self._settings.poll_seconds * random.uniform(0.5, 1.0)):  # noqa: S311
                # What stored the mail also told of it: whoever is to hear of it is told before the processors begin.
                await asyncio.sleep(self._settings.courtesy_seconds)
            for pump in self._pumps:
                pump.front.doubt()
                pump.look = True
            self._round.set()
            if any(pump.paused for pump in self._pumps):
                await self._obey()

    # -- upkeep -------------------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._upkeep_at - _running_clock())):
                    await self._upkeep.wait()
                    self._upkeep.clear()
                    continue
            await self._look_after(self._settings.dead_after_seconds)

    def _upkeep_by(self, seconds: float) -> None:
        """Have the upkeep come in so many seconds, unless it comes before."""
        at = _running_clock() + seconds
        if at < self._upkeep_at:
            self._upkeep_at = at
            self._upkeep.set()

    async def _look_after(self, dead_after_seconds: float) -> None:
        """Prove life, take back what the dead held, make due what waited, learn what is paused and what crashed."""
        began = _running_clock()
        late = began - self._proven_at > self._settings.dead_after_seconds / 2
        async with write_urgent(self._database) as connection:
            # For itself and first: what follows may wait for others' locks, and takes the dead's rows, its own too.
            await queue.heartbeat(connection, self.worker_id, dialect.now(connection))
        self._proven_at = began
        if late and self._put_offs < _MAX_PUT_OFFS:
            # Suspended, or without the database: then maybe so were the others, who are to prove their lives first. But
            # a machine that is always late must not put it off for ever.
            self._put_offs += 1
            self._reaps_from = began + self._settings.dead_after_seconds
        taken_back = 0
        async with self._database.write() as connection:
            now = dialect.now(connection)
            let_in = await queue.let_in_all(connection, self._limits)
            if began >= self._reaps_from:
                self._put_offs = 0
                taken_back = await queue.reap(
                    connection, dead_after_seconds=dead_after_seconds, now=now, told_at=self._clock()
                )
                # Where all others are dead by definition, so was this one a moment ago.
                await queue.heartbeat(connection, self.worker_id, now)
            came_due, due_in = await queue.promote_due(connection, now)
            crashed = await queue.crashed_processors(connection, list(self._limits))
        self._upkeep_at = began + self._settings.heartbeat_seconds
        if due_in is not None:
            self._upkeep_by(due_in)
        if taken_back:
            _log.warning("took back what dead workers held", rows=taken_back)
            for _ in range(taken_back):
                self._observe("taken_back", 0.0)
        for pump in self._pumps:
            pump.crashed = pump.crashed or pump.processor.name in crashed
            pump.look = pump.look or pump.crashed
        await self._obey(again=True)
        if came_due or taken_back or let_in:
            self._database.wake.work.notify()

    async def _obey(self, *, again: bool = False) -> None:
        """Stop what is paused, or (``again``) cannot be had: what runs may end, what has not begun is given back, and
        what cannot be had may be tried again. Begin what is resumed. One at a time: who read first must not have the
        last word.
        """
        async with self._obeying:
            async with self._database.read() as connection:
                paused = await operated.paused(connection)
            for pump in self._pumps:
                name, pause = pump.processor.name, pump.processor.name in paused
                if pause != pump.paused:
                    _log.info("a processor is paused" if pause else "a processor is resumed", processor=name)
                    pump.paused, pump.look = pause, not pause
                starved = again and pump.starved
                if pause or starved:
                    self._unbegun += pump.give_back()
                if starved:
                    # With nothing in hand it may try again.
                    pump.look = not pause
            if self._unbegun:
                async with self._database.write() as connection:
                    await queue.release(connection, self.worker_id, self._unbegun)
                self._unbegun.clear()
        self._round.set()

    # -- stopping -----------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        self._stopping = True
        unbegun = [claim for pump in self._pumps for claim in pump.give_back()]
        with suppress(TimeoutError, MailmillError):
            async with asyncio.timeout(self._settings.grace_seconds):
                async with self._database.write(wake=_WAKE_WORK) as connection:
                    await queue.release(connection, self.worker_id, unbegun)
                for pump in self._pumps:
                    pump.look = False
                self._quiet.clear()
                self._round.set()
                await self._quiet.wait()

    async def _end(self) -> None:
        """Record what ended, give back what did not; what cannot be written now is reaped later."""
        if self._gathering is not None:
            self._gathering.cancel()
        try:
            async with asyncio.timeout(_END_SECONDS), self._database.write(wake=_WAKE_WORK) as connection:
                outcomes = list(self._outcomes)
                await connection.run_sync(
                    queue.Exchange(
                        self.worker_id, _only(outcomes, Finished), _only(outcomes, Failed), finished_at=self._clock()
                    )
                )
                given_back = await queue.release_all(connection, self.worker_id)
                await queue.retire(connection, self.worker_id)
            if given_back:
                _log.info("gave back work that was not done", rows=given_back)
        except Exception as error:  # noqa: BLE001 - the end is reached in any case
            _log.warning("stopped without giving back the work in hand", error=str(error))
        finally:
            await self._runners.close()

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a loop for ever: when it fails, log it and start it again after a while."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - the boundary of one loop: the others go on
                if time.monotonic() - began > 2 * _MAX_BACK_OFF_SECONDS:
                    failures = 0
                failures += 1
                if isinstance(error, MailmillError):
                    _log.warning("a part of the worker waits", part=name, error=str(error))
                else:
                    # Rendered here: what a logger's own renderer does with an exception may fail, and end this loop.
                    trace = "".join(traceback.format_exception(error))
                    _log.error("a part of the worker failed", part=name, error=str(error), exception=trace)
                await asyncio.sleep(_pause_seconds(failures))


def _ask(pump: Pump, wanted: Wanted) -> queue.Ask:
    return queue.Ask(
        pump.processor.name,
        wanted.limit,
        deadline_seconds=max(_MIN_DEADLINE_SECONDS, 10 * wanted.limit * pump.processor.timeout_seconds),
        version=pump.processor.version,
        crashed=wanted.crashed,
        front=pump.front,
    )


def _pause_seconds(failures: int) -> float:
    return random.uniform(0, min(_MAX_BACK_OFF_SECONDS, 0.1 * 2.0**failures))  # noqa: S311 - spreads load


def _running_clock() -> float:
    """Seconds that only go forward, a suspended machine's included where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _only(outcomes: Sequence[Finished | Failed], kind: type[T]) -> list[T]:
    return [outcome for outcome in outcomes if isinstance(outcome, kind)]
