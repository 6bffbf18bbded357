"""One pump per processor: it holds what was claimed for it, loads the messages, and runs them a few at a time.

Laws:

- A claim that was fed in is in ``held`` until its outcome is handed over: no end of a lane or the feeder loses one.
- A pump asks for more before it runs dry, but takes no more ahead than it works off in a moment: rows that wait here
  could be running on another node, and newer mail of a quiet account could be before them.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Final

import structlog

from mailmill.errors import MailmillError, ProcessorError
from mailmill.processing.failures import describe
from mailmill.processing.registry import Context
from mailmill.processing.retry import retry_at
from mailmill.store.queue import Claim, Failed, Finished

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mailmill.processing.loader import LoadedMessage, MessageLoader
    from mailmill.processing.registry import Processor
    from mailmill.processing.runners import Runners

BATCH: Final = 100
_AHEAD_SECONDS: Final = 0.1
_MAX_BACK_OFF_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


class Pump:
    """Runs one processor. ``record`` takes each outcome, at once and without blocking."""

    def __init__(
        self,
        processor: Processor,
        loader: MessageLoader,
        runners: Runners,
        record: Callable[[Pump, Finished | Failed], None],
        *,
        authserv_id: Callable[[str], str | None],
        clock: Callable[[], float],
        observe: Callable[[str, float], None],
    ) -> None:
        self.processor = processor
        self.look = True
        """Whether there may be rows to claim."""
        self.held: dict[int, Claim] = {}
        self._loader = loader
        self._runners = runners
        self._record = record
        self._authserv_id = authserv_id
        self._clock = clock
        self._observe = observe
        self._inbox: deque[Claim] = deque()
        self._fed = asyncio.Event()
        self._ready: asyncio.Queue[tuple[Claim, LoadedMessage | None]] = asyncio.Queue()
        self._begun = asyncio.Event()
        self._seconds_each: float | None = None

    def room(self) -> int:
        """How many claims it would take now; 0 while it has enough in hand."""
        target = self._target()
        in_hand = len(self.held)
        return target - in_hand if in_hand <= target // 2 else 0

    def feed(self, claims: Sequence[Claim]) -> None:
        """Take over claims, in their order."""
        for claim in claims:
            self.held[claim.message_id] = claim
            self._observe("picked_up", max(0.0, self._clock() - claim.enqueued_at))
        self._inbox.extend(claims)
        self._fed.set()

    def give_back(self) -> list[Claim]:
        """The claims that no lane has begun, taken out of its hands."""
        unbegun = list(self._inbox)
        self._inbox.clear()
        while not self._ready.empty():
            unbegun.append(self._ready.get_nowait()[0])
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
        while not self._ready.empty():
            self._ready.get_nowait()
        self._inbox = deque(self.held.values())
        self._fed.set()

    def _target(self) -> int:
        concurrency = self.processor.concurrency
        if self._seconds_each is None:
            return concurrency
        ahead = int(concurrency * _AHEAD_SECONDS / max(self._seconds_each, 1e-6))
        return max(concurrency, min(ahead, BATCH))

    async def _feed_lanes(self) -> None:
        failures = 0
        while True:
            await self._fed.wait()
            self._fed.clear()
            while self._inbox:
                batch = list(self._inbox)
                try:
                    loaded = await self._loader.load([claim.message_id for claim in batch])
                except MailmillError as error:
                    # The store's trouble is not the processor's: no attempt is counted.
                    failures += 1
                    _log.warning("messages cannot be read", processor=self.processor.name, error=str(error))
                    await asyncio.sleep(random.uniform(0, min(_MAX_BACK_OFF_SECONDS, 0.1 * 2.0**failures)))  # noqa: S311
                    continue
                failures = 0
                for claim, message in zip(batch, loaded, strict=False):
                    if not self._inbox or self._inbox[0] is not claim:
                        break  # given back while it was read
                    self._inbox.popleft()
                    self._ready.put_nowait((claim, message))
                # The next are read when the lanes have begun these, so that raw bytes do not pile up.
                while self._inbox and not self._ready.empty():
                    self._begun.clear()
                    await self._begun.wait()

    async def _lane(self) -> None:
        while True:
            claim, message = await self._ready.get()
            self._begun.set()
            outcome = await self._run(claim, message)
            self.held.pop(claim.message_id, None)
            self._record(self, outcome)

    async def _run(self, claim: Claim, message: LoadedMessage | None) -> Finished | Failed:
        started = perf_counter()
        try:
            if message is None:
                raise ProcessorError("the message is not there any more", permanent=True)
            parsed = await message.parsed(self._loader.parse)
            context = Context(
                account=message.account,
                account_email=message.account_email,
                message_id=message.message_id,
                paths=message.paths,
                authserv_id=self._authserv_id(message.account),
                attempt=claim.attempt + 1,
                historical=message.historical,
            )
            outcome = await self._runners.run(self.processor, parsed, context, size_bytes=message.size_bytes)
        except Exception as error:  # noqa: BLE001 - a row's failure is recorded, whatever it is; the lane goes on
            failure = describe(error)
            return Failed(claim, failure.message, self._retry_at(claim, failure))
        finally:
            self._note(perf_counter() - started)
        return Finished(claim, outcome.value, perf_counter() - started, outcome.announce)

    def _retry_at(self, claim: Claim, failure: ProcessorError) -> float | None:
        return retry_at(
            failures=claim.attempt + 1,
            max_attempts=self.processor.max_attempts,
            permanent=failure.permanent,
            now=self._clock(),
            jitter=random.random(),  # noqa: S311 - spreads load, guards nothing
        )

    def _note(self, seconds: float) -> None:
        known = self._seconds_each
        self._seconds_each = seconds if known is None else 0.8 * known + 0.2 * seconds
        self._observe(f"ran:{self.processor.name}", seconds)
