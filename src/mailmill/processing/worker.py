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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from sqlalchemy.exc import OperationalError

from mailmill.errors import MailmillError, StorageFullError
from mailmill.processing.loader import CACHE_BYTES, MessageLoader, RawMessages
from mailmill.processing.pump import Pump
from mailmill.processing.runners import Runners
from mailmill.processing.threads import DEFAULT_SIZE
from mailmill.store import queue
from mailmill.store.queue import Failed, Finished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mailmill.processing.registry import Processor
    from mailmill.store.database import Database, WakeName
    from mailmill.store.wakeups import Subscription

_MAX_OUTCOMES: Final = 500
_SOON_OUTCOMES: Final = 100
_MIN_DEADLINE_SECONDS: Final = 3600.0
_MAX_BACK_OFF_SECONDS: Final = 10.0
_MAX_REFUSALS: Final = 2
_END_SECONDS: Final = 3.0
_WAKE_WORK: Final[tuple[WakeName, ...]] = ("work",)

_log = structlog.get_logger(__name__)

T = TypeVar("T", Finished, Failed)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works.

    ``threads`` and ``children`` (0: one for each core) are shared by its processors, ``max_stuck_threads`` bounds those
    that outlive their timeout (None: four times ``threads``). ``alone``: no other worker uses this store, so
    whatever another one holds is a dead one's, at once. ``gather_seconds`` is how long an outcome waits for others
    while more are running. ``courtesy_seconds``: how long a hint of new work waits, so that alerts about the same mail
    have the database and the loop for themselves first.
    """

    threads: int = DEFAULT_SIZE
    max_stuck_threads: int | None = None
    children: int = 0
    cache_bytes: int = CACHE_BYTES
    alone: bool = True
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
    long things took: ``picked_up`` (enqueued → claimed), ``ran:PROCESSOR``, ``recorded`` (enqueued → recorded).
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
        self._pumps = [
            Pump(
                processor,
                loader,
                self._runners,
                self._take_outcome,
                authserv_id=authserv_id,
                clock=clock,
                observe=observe,
            )
            for processor in processors
        ]
        self._outcomes: deque[Finished | Failed] = deque()
        self._round = asyncio.Event()
        self._upkeep = asyncio.Event()
        self._quiet = asyncio.Event()
        self._refusals = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._next_due: float | None = None
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

        A cancellation stops without the grace. Raises StoreError where the store cannot be written at the start.
        """
        await self._begin()
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
            pump.look = True
        self._quiet.clear()
        self._round.set()
        await self._quiet.wait()

    async def _begin(self) -> None:
        now = self._clock()
        dead_before = now if self._settings.alone else now - self._settings.dead_after_seconds
        async with self._database.write() as connection:
            await queue.heartbeat(connection, self.worker_id, now)
            await queue.reap(connection, heartbeat_before=dead_before, now=now)
            self._next_due = await queue.promote_due(connection, now)
        self._round.set()

    # -- rounds -------------------------------------------------------------------------------------------------------

    async def _run_rounds(self) -> None:
        while True:
            await self._round.wait()
            self._round.clear()
            await self._one_round()
            if self._outcomes:
                self._gather()
            if not (self._outcomes or any(pump.held or (pump.look and not self._stopping) for pump in self._pumps)):
                self._quiet.set()

    async def _one_round(self) -> None:
        outcomes = [self._outcomes[index] for index in range(min(len(self._outcomes), _MAX_OUTCOMES))]
        wanted = [
            (pump, room) for pump in self._pumps if pump.look and not self._stopping and (room := pump.room()) > 0
        ]
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
            self._round.set()
            if outcomes and isinstance(error, Exception) and not _is_store_trouble(error):
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
        for pump, claims in claimed:
            pump.feed(claims)
            # A row that crashed comes alone, so fewer than asked for does not mean that there are no more.
            pump.look = pump.look or bool(claims)
        if any(pump.look and pump.room() for pump in self._pumps):
            self._round.set()

    async def _record_each(self, outcomes: Sequence[Finished | Failed]) -> None:
        """Outcomes that cannot be written together, one by one: what is wrong with one must not hold up the others.

        One that cannot be written even alone becomes a failure for good. Raises where the store is what is in trouble.
        """
        for outcome in outcomes:
            try:
                await self._exchange([outcome], [])
            except Exception as error:
                if _is_store_trouble(error):
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
                    if _is_store_trouble(again):
                        raise
                    # Its row is taken back at its deadline.
                    _log.error("its failure cannot be recorded either", message_id=claim.message_id, error=str(again))
            self._outcomes.popleft()
        self._refusals = 0

    async def _exchange(
        self, outcomes: Sequence[Finished | Failed], wanted: Sequence[tuple[Pump, int]]
    ) -> list[tuple[Pump, list[queue.Claim]]]:
        now = self._clock()
        async with self._database.write() as connection:
            if outcomes:
                report = await queue.finish(
                    connection, self.worker_id, _only(outcomes, Finished), _only(outcomes, Failed), now
                )
                if report.stale:
                    _log.warning("outcomes came too late", worker=self.worker_id, rows=report.stale)
            return [
                (
                    pump,
                    await queue.claim(
                        connection,
                        processor=pump.processor.name,
                        version=pump.processor.version,
                        worker_id=self.worker_id,
                        limit=room,
                        deadline_seconds=max(_MIN_DEADLINE_SECONDS, 10 * room * pump.processor.timeout_seconds),
                        now=now,
                    ),
                )
                for pump, room in wanted
            ]

    def _take_outcome(self, pump: Pump, outcome: Finished | Failed) -> None:
        self._outcomes.append(outcome)
        if isinstance(outcome, Failed):
            _log.warning(
                "a processor failed",
                processor=outcome.claim.processor,
                message_id=outcome.claim.message_id,
                error=outcome.error,
                again=outcome.retry_at is not None,
            )
            if outcome.retry_at is not None and (self._next_due is None or outcome.retry_at < self._next_due):
                self._next_due = outcome.retry_at
                self._upkeep.set()
        if pump.look and pump.room():
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
                pump.look = True
            self._round.set()

    # -- upkeep -------------------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        while True:
            pause = self._settings.heartbeat_seconds
            if self._next_due is not None:
                pause = min(pause, max(0.0, self._next_due - self._clock()))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._upkeep.wait()
                    self._upkeep.clear()
                    continue
            now = self._clock()
            came_due = self._next_due is not None and self._next_due <= now
            async with self._database.write() as connection:
                await queue.heartbeat(connection, self.worker_id, now)
                taken_back = await queue.reap(
                    connection, heartbeat_before=now - self._settings.dead_after_seconds, now=now
                )
                self._next_due = await queue.promote_due(connection, now)
            if taken_back:
                _log.warning("took back what dead workers held", rows=taken_back)
            if came_due or taken_back:
                self._database.wake.work.notify()

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
                await queue.finish(
                    connection, self.worker_id, _only(outcomes, Finished), _only(outcomes, Failed), self._clock()
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
                # Rendered here: what a logger's own renderer does with an exception may fail, and end this loop.
                trace = "" if isinstance(error, MailmillError) else "".join(traceback.format_exception(error))
                _log.error("a part of the worker failed", part=name, error=str(error), exception=trace)
                await asyncio.sleep(random.uniform(0, min(_MAX_BACK_OFF_SECONDS, 0.1 * 2.0**failures)))  # noqa: S311


def _is_store_trouble(error: Exception) -> bool:
    """Whether the store could do nothing at all (full, locked, not readable), so that none of it is the rows' fault."""
    return isinstance(error, StorageFullError) or isinstance(error.__cause__ or error, OperationalError | TimeoutError)


def _only(outcomes: Sequence[Finished | Failed], kind: type[T]) -> list[T]:
    return [outcome for outcome in outcomes if isinstance(outcome, kind)]
