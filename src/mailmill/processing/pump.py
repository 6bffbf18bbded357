"""One pump per processor: it holds what was claimed for it, loads the messages, and runs them a few at a time.

Laws:

- A claim that was fed in is in ``held`` until its outcome is handed over: no end of a lane or the feeder loses one.
- What the machine or the store fails to give is not the processor's fault: it counts as no attempt, and the row waits.
- A pump asks for more before it runs dry, but takes no more ahead than it works off in a moment: rows that wait here
  could be running on another node, and newer mail of a quiet account could be before them.
- A row whose worker died is run while nothing else of the processor runs in this process, and in a child process where
  the function can be imported there, its message parsed there too: what kills it kills nothing else. Such rows and the
  others take turns, one against one handful, so that neither waits for all of the other.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import structlog

from mailmill.errors import MailmillError, NotStartedError, ProcessorError, StorageUnavailableError
from mailmill.model import NO_HISTORY
from mailmill.processing.failures import describe
from mailmill.processing.rate import Rate
from mailmill.processing.registry import Context, can_be_imported
from mailmill.processing.retry import retry_after
from mailmill.store.queue import Claim, Failed, Finished
from mailmill.store.queue_front import Front

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mailmill.model import SenderHistory
    from mailmill.processing.loader import LoadedMessage, MessageLoader
    from mailmill.processing.registry import Processor
    from mailmill.processing.runners import Runners

BATCH: Final = 300
"""Rows claimed at once at most."""

_AHEAD_SECONDS: Final = 0.1
_GATHER_SECONDS: Final = 0.02
_MAX_BACK_OFF_SECONDS: Final = 10.0

_NO_HISTORIES: Final[Mapping[int, SenderHistory]] = MappingProxyType({})

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a pump would take now: ``crashed``, one row that is to be run alone; else up to ``limit`` others."""

    limit: int
    crashed: bool = False


class Pump:
    """Runs one processor. ``record`` takes each outcome, at once and without blocking; ``ask`` is called when it may
    want more before there is an outcome.
    """

    def __init__(
        self,
        processor: Processor,
        loader: MessageLoader,
        runners: Runners,
        record: Callable[[Pump, Finished | Failed], None],
        *,
        ask: Callable[[], None],
        authserv_id: Callable[[str], str | None],
        clock: Callable[[], float],
        observe: Callable[[str, float], None],
    ) -> None:
        self.processor = processor
        self.look = True
        """Whether there may be rows to claim."""
        self.crashed = False
        """Whether there may be rows among them that crashed."""
        self.front: Final = Front()
        self.paused = False
        self.held: dict[int, Claim] = {}
        self._loader = loader
        self._runners = runners
        self._record = record
        self._ask = ask
        self._authserv_id = authserv_id
        self._clock = clock
        self._observe = observe
        self._inbox: deque[Claim] = deque()
        self._not_started: list[Claim] = []
        self._without_messages = False
        self._fed = asyncio.Event()
        self._ready: asyncio.Queue[tuple[Claim, LoadedMessage | None, SenderHistory]] = asyncio.Queue()
        self._begun = asyncio.Event()
        self._seconds_each: float | None = None
        self._crashed_next = True
        self._rate = Rate(processor.rate_per_minute) if processor.rate_per_minute is not None else None
        self._can_run_apart = can_be_imported(processor.function)

    @property
    def starved(self) -> bool:
        """Whether it cannot run anything: raw messages cannot be had at all, or no process or thread to run one in. It
        takes no more, and what it holds is given back now and then: so no deadline ends while it waits, and a node that
        is better off may take it.
        """
        return self._without_messages or bool(self._not_started)

    def wants(self) -> Wanted | None:
        """What it would take now; None while it has enough in hand."""
        if self.paused or self.starved or (self.crashed and self.held):
            return None
        if self.crashed and self._crashed_next:
            return Wanted(1, crashed=True)
        room = self._room()
        return Wanted(room) if room > 0 else None

    def feed(self, wanted: Wanted, claims: Sequence[Claim]) -> None:
        """Take over what was claimed for ``wanted``, in its order."""
        self._crashed_next = not wanted.crashed
        if wanted.crashed:
            self.crashed = bool(claims)
        for claim in claims:
            self.held[claim.message_id] = claim
            self._observe("picked_up", max(0.0, self._clock() - claim.enqueued_at))
        self._inbox.extend(claims)
        self._fed.set()

    def give_back(self) -> list[Claim]:
        """The claims that no lane has begun, taken out of its hands. With nothing in hand it is not starved."""
        unbegun = self._not_started + self._take_out()
        self._not_started = []
        self._without_messages = False
        for claim in unbegun:
            self.held.pop(claim.message_id, None)
        return unbegun

    async def run(self) -> None:
        """Feed the lanes until cancelled. To be called again after it raised: it takes up what it held."""
        self._take_up()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feed_lanes(), name=f"feeder of {self.processor.name}")
            for number in range(self.processor.concurrency):
                tasks.create_task(self._lane(), name=f"lane {number} of {self.processor.name}")

    def _take_up(self) -> None:
        self._take_out()
        self._not_started = []
        self._inbox = deque(self.held.values())
        self._fed.set()

    def _take_out(self) -> list[Claim]:
        """What waits for a lane, out of its way."""
        waiting = list(self._inbox)
        self._inbox.clear()
        while not self._ready.empty():
            waiting.append(self._ready.get_nowait()[0])
        # The feeder waits for lanes that will begin nothing now.
        self._begun.set()
        return waiting

    def _room(self) -> int:
        target = self._target()
        room = target - len(self.held)
        if room < min(target - target // 2, self._worth_asking()):
            room = 0
        if self._rate is not None:
            room = min(room, self._rate.burst - len(self._inbox) - self._ready.qsize())
        return room

    def _target(self) -> int:
        concurrency = self.processor.concurrency
        if self._seconds_each is None:
            return concurrency
        ahead = int(concurrency * _AHEAD_SECONDS / max(self._seconds_each, 1e-6))
        return max(concurrency, min(ahead, BATCH))

    def _worth_asking(self) -> int:
        """How much room is worth a transaction: what comes free in a moment. Where a run takes long (a model that is
        asked, say) that is a few lanes; they would wait empty for half of the others.
        """
        if self._seconds_each is None:
            return self.processor.concurrency
        return max(1, int(self.processor.concurrency * _GATHER_SECONDS / max(self._seconds_each, 1e-6)))

    async def _feed_lanes(self) -> None:
        failures = 0
        while True:
            await self._fed.wait()
            self._fed.clear()
            while self._inbox:
                batch = list(self._inbox)
                try:
                    loaded = await self._loader.load([claim.message_id for claim in batch])
                    histories = await self._histories(batch[: len(loaded)])
                except MailmillError as error:
                    # The store's trouble is not the processor's: no attempt is counted.
                    failures += 1
                    self._without_messages = isinstance(error, StorageUnavailableError)
                    _log.warning("messages cannot be read", processor=self.processor.name, error=str(error))
                    await asyncio.sleep(random.uniform(0, min(_MAX_BACK_OFF_SECONDS, 0.1 * 2.0**failures)))  # noqa: S311
                    continue
                failures = 0
                if self._without_messages:
                    self._without_messages = False
                    self._ask()
                for claim, message in zip(batch, loaded, strict=False):
                    if self._rate is not None:
                        await self._wait_for_its_start(self._rate)
                    if not self._inbox or self._inbox[0] is not claim:
                        break  # given back while it was read
                    self._inbox.popleft()
                    self._ready.put_nowait((claim, message, histories.get(claim.message_id, NO_HISTORY)))
                # The next are read when the lanes have begun these, so that raw bytes do not pile up.
                if self._inbox:
                    await self._wait_until_begun()

    async def _histories(self, claims: Sequence[Claim]) -> Mapping[int, SenderHistory]:
        if not self.processor.wants_history:
            return _NO_HISTORIES
        return await self._loader.histories([claim.message_id for claim in claims])

    async def _wait_until_begun(self) -> None:
        while not self._ready.empty():
            self._begun.clear()
            await self._begun.wait()

    async def _wait_for_its_start(self, rate: Rate) -> None:
        """A start is reserved only when a lane takes it at once: starts that were saved up would come together."""
        await self._wait_until_begun()
        await asyncio.sleep(rate.reserve(asyncio.get_running_loop().time()))

    async def _lane(self) -> None:
        while True:
            claim, message, history = await self._ready.get()
            self._begun.set()
            if self._rate is not None:
                self._ask()
            try:
                outcome = await self._run(claim, message, history)
            except NotStartedError as error:
                self._stand_still(claim, error)
                continue
            self.held.pop(claim.message_id, None)
            self._record(self, outcome)

    def _stand_still(self, claim: Claim, error: NotStartedError) -> None:
        """Begin nothing until all that has not begun was given back."""
        if not self._not_started:
            _log.warning("runs cannot be started", processor=self.processor.name, error=error.message, hint=error.hint)
        self._not_started += [claim, *self._take_out()]

    async def _run(self, claim: Claim, message: LoadedMessage | None, history: SenderHistory) -> Finished | Failed:
        """What came of it, whatever it was. Raises NotStartedError where there was no run."""
        started = perf_counter()
        try:
            if message is None:
                raise ProcessorError("the message is not there any more, or its raw bytes are not", permanent=True)
            apart = claim.crashes > 0 and self._can_run_apart
            if claim.crashes:
                _log.info(
                    "a row whose worker died is run alone",
                    processor=self.processor.name,
                    message_id=claim.message_id,
                    crashes=claim.crashes,
                    child=apart or self.processor.kind == "process",
                )
            content = message.unparsed() if apart else await message.parsed(self._loader.parse)
            context = Context(
                account=message.account,
                account_email=message.account_email,
                message_id=message.message_id,
                paths=message.paths,
                authserv_id=self._authserv_id(message.account),
                attempt=claim.attempt + 1,
                historical=message.historical,
                history=history,
            )
            outcome = await self._runners.run(
                self.processor, content, context, size_bytes=message.size_bytes, apart=apart
            )
        except NotStartedError:
            raise
        except Exception as error:  # noqa: BLE001 - a row's failure is recorded, whatever it is; the lane goes on
            failure = describe(error)
            self._note(perf_counter() - started)
            return Failed(claim, failure.message, self._retry_after(claim, failure))
        seconds = perf_counter() - started
        self._note(seconds)
        return Finished(claim, outcome.value, seconds, outcome.announce)

    def _retry_after(self, claim: Claim, failure: ProcessorError) -> float | None:
        return retry_after(
            failures=claim.attempt + 1,
            max_attempts=self.processor.max_attempts,
            permanent=failure.permanent,
            jitter=random.random(),  # noqa: S311 - spreads load, guards nothing
        )

    def _note(self, seconds: float) -> None:
        known = self._seconds_each
        self._seconds_each = seconds if known is None else 0.8 * known + 0.2 * seconds
        self._observe(f"ran:{self.processor.name}", seconds)
