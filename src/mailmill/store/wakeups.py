"""Hints within one process that there is something to look at. A hint carries nothing and may come for nothing.

Law: whoever waits for a hint also polls. `Database.write` gives hints after the commit, never before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, get_args

WakeName = Literal["work", "events", "deliveries", "requests", "nodes"]
WAKE_NAMES: Final[tuple[WakeName, ...]] = get_args(WakeName)


class Subscription:
    """One reader's own hint flag: a hint given while it was busy is there at its next `wait`."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()

    async def wait(self, timeout_seconds: float) -> bool:
        """True as soon as a hint came since the last True; False at the timeout. Can be cancelled, loses nothing."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._event.wait()
        except TimeoutError:
            if not self._event.is_set():
                return False
        self._event.clear()
        return True


class Hint:
    """A hint for any number of readers. To be called from the event loop's thread."""

    __slots__ = ("_pending", "_subscriptions", "_waiters")

    def __init__(self) -> None:
        self._pending = False
        self._subscriptions: set[Subscription] = set()
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake all who wait. While nobody waits, the hint is kept for the next who calls `wait`."""
        for subscription in self._subscriptions:
            subscription.notify()
        woken = False
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
                woken = True
        self._waiters.clear()
        if not woken:
            self._pending = True

    async def wait(self, timeout_seconds: float) -> bool:
        """True on a hint, also one kept from before; False at the timeout.

        For a single reader. Where several read, one that is busy misses what another was woken for: each takes a
        `subscribe` of its own.
        """
        if self._pending:
            self._pending = False
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter
        except TimeoutError:
            return waiter.done() and not waiter.cancelled()
        except asyncio.CancelledError:
            # The hint was given to a reader that is going away: it is for the next one.
            if waiter.done() and not waiter.cancelled():
                self._pending = True
            raise
        finally:
            self._waiters.discard(waiter)
        return True

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """A flag of one's own for the length of the block; it starts without a hint."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)


class Wakeups:
    """The hints of one store: new work, new events, new deliveries, requests that came or moved on, nodes that came,
    went or gave something up.
    """

    __slots__ = ("deliveries", "events", "nodes", "requests", "work")

    def __init__(self) -> None:
        self.work = Hint()
        self.events = Hint()
        self.deliveries = Hint()
        self.requests = Hint()
        self.nodes = Hint()

    def notify(self, names: Iterable[WakeName] = WAKE_NAMES) -> None:
        """Give the hints called ``names``."""
        for name in names:
            hint: Hint = getattr(self, name)
            hint.notify()
