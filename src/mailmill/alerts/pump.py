"""One destination: claims what it can send now, sends it, writes in small batches what became of it.

Laws:

- A claim is in ``_held`` from the transaction that took it until its outcome is written or it is given back.
- No more is claimed than is sent at once: rows that wait here could be sent by another node, and could be cut here.
- What cannot be written (the store fails) is kept and written later; nothing is sent again for it before its deadline.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from mailmill.alerts.health import Health
from mailmill.alerts.rules import is_refusal, retry_after
from mailmill.alerts.senders import Outgoing
from mailmill.alerts.turning import trace_of, turn_until
from mailmill.errors import DeliveryError
from mailmill.store import dialect, outbox
from mailmill.store.outbox import DeliveryClaim, DeliveryOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mailmill.alerts.envelopes import Envelope, Envelopes
    from mailmill.alerts.rules import Destination
    from mailmill.alerts.senders import Sender
    from mailmill.store.database import Database
    from mailmill.store.wakeups import Subscription

POLL_SECONDS: Final = 15.0
STOP_SECONDS: Final = 5.0
GATHER_SECONDS: Final = 0.005
DEADLINE_SLACK_SECONDS: Final = 60.0
"""A claim is another's to take this long after its exchange must have ended: rendering and the write come besides."""

_log = structlog.get_logger(__name__)


class Pump:
    """Delivers to one destination until it is stopped."""

    def __init__(
        self,
        destination: Destination,
        sender: Sender,
        database: Database,
        envelopes: Envelopes,
        worker_id: str,
        observe: Callable[[str, float], None],
        clock: Callable[[], float],
    ) -> None:
        self._destination = destination
        self._sender = sender
        self._database = database
        self._envelopes = envelopes
        self._worker_id = worker_id
        self._observe = observe
        self._clock = clock
        self._health = Health(destination.concurrency)
        self._held: dict[int, DeliveryClaim] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._ended: list[DeliveryOutcome] = []
        self._more = False  # the last claim took all it asked for: there is probably more
        self._log = _log.bind(destination=destination.name)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; then what is on its way has ``STOP_SECONDS`` to arrive, and the rest is given back."""
        with self._database.wake.deliveries.subscribe() as hint:
            try:
                await turn_until(stop, lambda: self._turn(hint, stop), hint, "delivering", self._log)
                if self._sending:
                    await asyncio.wait(self._sending, timeout=STOP_SECONDS)
            finally:
                await self._wind_down()

    async def _turn(self, hint: Subscription, stop: asyncio.Event) -> float:
        """Write what ended, claim what is due, start to send it. Returns how long to wait for a hint; 0: look again."""
        if len(self._sending) > self._destination.concurrency // 2:
            # Under load answers come in bursts: one transaction for a few of them. Never while slots are free.
            await asyncio.sleep(GATHER_SECONDS)
        clock = asyncio.get_running_loop().time()
        room = self._health.allowance(len(self._sending), clock)
        due_seconds: float | None = 0.0 if self._more else None
        if room and not self._more:
            async with self._database.read() as connection:
                due_seconds = await outbox.next_due_seconds(connection, self._destination.name, dialect.now(connection))
        due = not stop.is_set() and room > 0 and due_seconds is not None and due_seconds <= 0
        claims: list[DeliveryClaim] = []
        ended = self._ended[:]
        if ended or due:
            async with self._database.write() as connection:
                if ended:
                    await outbox.finish(connection, self._worker_id, ended, dialect.now(connection))
                if due and not stop.is_set():
                    claims = await outbox.claim(
                        connection,
                        destination=self._destination.name,
                        worker_id=self._worker_id,
                        limit=room,
                        deadline_seconds=self._destination.timeout_seconds + DEADLINE_SLACK_SECONDS,
                        now=dialect.now(connection),
                    )
            del self._ended[: len(ended)]
            if due:
                self._more = len(claims) == room
            self._held |= {claim.id: claim for claim in claims}
        if claims:
            await self._start(claims, hint)
            return 0.0
        waits = [POLL_SECONDS * random.uniform(0.7, 1)]  # noqa: S311 - jitter
        # What was written just now is tried again at a time that `next_due_seconds` could not know yet.
        next_tries = [
            wait for wait in (due_seconds, *(outcome.retry_after_seconds for outcome in ended)) if wait is not None
        ]
        if room and next_tries:
            waits.append(min(next_tries))
        if not self._health.well and not self._sending:
            waits.append(self._health.resume_at - clock)
        return max(0.01, min(waits))

    async def _start(self, claims: Sequence[DeliveryClaim], hint: Subscription) -> None:
        try:
            envelopes = await self._envelopes.get([claim.event_id for claim in claims])
        except Exception:
            await self._give_back(claims)
            raise
        for claim in claims:
            envelope = envelopes.get(claim.event_id)
            if envelope is None:
                gone = DeliveryError("the event is no longer in the log", permanent=True)
                self._end(claim, self._failed(claim, gone))
                continue
            task = asyncio.create_task(self._send(claim, envelope), name=f"delivery {claim.id}")
            self._sending.add(task)
            task.add_done_callback(partial(self._landed, hint))

    async def _send(self, claim: DeliveryClaim, envelope: Envelope) -> None:
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        was_well = self._health.well
        try:
            status = await self._sender.send(Outgoing(envelope.key, envelope.body))
        except DeliveryError as error:
            outcome = self._failed(claim, error)
            if is_refusal(error):
                self._health.succeeded()
            else:
                self._health.failed(sent_at, loop.time(), random.random(), error.retry_after_seconds or 0.0)  # noqa: S311
        except Exception as error:  # noqa: BLE001 - a sender's bug costs its delivery a try, never the pump
            self._log.error("sending failed in an unforeseen way", event_key=envelope.key, exception=trace_of(error))
            outcome = self._failed(claim, DeliveryError(f"unforeseen {type(error).__name__}"))
        else:
            outcome = DeliveryOutcome(claim, delivered=True, status=status)
            self._health.succeeded()
            self._observe("processed_to_delivered", self._clock() - envelope.created_at)
        if was_well and not self._health.well:
            self._log.warning("destination left alone for a while", error=outcome.error)
        elif not was_well and self._health.well:
            self._log.info("destination is back")
        self._end(claim, outcome)

    def _failed(self, claim: DeliveryClaim, error: DeliveryError) -> DeliveryOutcome:
        again = retry_after(self._destination, error, claim.attempt + 1, random.random())  # noqa: S311 - jitter
        text = f"{error} ({error.hint})" if error.hint else str(error)
        if again is None:
            self._log.warning("delivery given up", event_id=claim.event_id, attempts=claim.attempt + 1, error=text)
        return DeliveryOutcome(claim, delivered=False, retry_after_seconds=again, status=error.status, error=text)

    def _end(self, claim: DeliveryClaim, outcome: DeliveryOutcome) -> None:
        del self._held[claim.id]
        self._ended.append(outcome)

    def _landed(self, hint: Subscription, task: asyncio.Task[None]) -> None:
        # First its slot is free, then the loop is told: told from within the task, it would still count it as flying,
        # claim nothing, and sleep until the next poll.
        self._sending.discard(task)
        hint.notify()

    async def _give_back(self, claims: Sequence[DeliveryClaim]) -> None:
        async with self._database.write() as connection:
            await outbox.release(connection, self._worker_id, claims)
        for claim in claims:
            self._held.pop(claim.id, None)

    async def _wind_down(self) -> None:
        """Cut what is still on its way, write what ended, give the rest back; what cannot be written is recovered."""
        for task in self._sending:
            task.cancel()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                if self._sending:
                    await asyncio.wait(set(self._sending))
                # Each locks its rows upwards (`row_locks`), so both in one transaction would not. Cut in between, what
                # is not given back is recovered: its worker is no longer known.
                if self._ended:
                    async with self._database.write() as connection:
                        await outbox.finish(connection, self._worker_id, self._ended, dialect.now(connection))
                if self._held:
                    await self._give_back(list(self._held.values()))
                await self._sender.close()
        except Exception as error:  # noqa: BLE001 - as above; what is not written now is recovered
            self._log.warning("deliveries were not closed in order; they are made again", error=str(error))
