"""A loop that nothing but its stop ends: what fails is logged, and done again after a while."""

from __future__ import annotations

import asyncio
import random
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from mailmill.errors import MailmillError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from mailmill.store.wakeups import Subscription

MAX_PAUSE_SECONDS: Final = 30.0


async def turn_until(
    stop: asyncio.Event, turn: Callable[[], Awaitable[float]], hint: Subscription, what: str, log: Any
) -> None:
    """Call ``turn`` until ``stop``. It returns for how long at most to wait for a hint; 0: turn again at once.

    ``what`` is what its turns do, as the log names it. Can be cancelled.
    """
    failures = 0
    with _told(stop, hint):
        while not stop.is_set():
            try:
                pause = await turn()
            except Exception as error:  # noqa: BLE001 - the boundary of one loop: all else goes on
                failures += 1
                if isinstance(error, MailmillError):
                    log.warning(f"{what} waits for the store", error=str(error), hint=error.hint)
                else:
                    log.error(f"{what} failed in an unforeseen way", exception=trace_of(error))  # noqa: TRY400 - rendered here
                await _stopped_within(stop, _pause_after(failures))
                continue
            failures = 0
            if pause > 0:
                await hint.wait(pause)


def trace_of(error: Exception) -> str:
    """The traceback as text: what a logger's own rendering of an exception does may fail, and end its task."""
    return "".join(traceback.format_exception(error))


@contextmanager
def _told(stop: asyncio.Event, hint: Subscription) -> Iterator[None]:
    """Gives ``hint`` when ``stop`` is set."""

    async def tell() -> None:
        await stop.wait()
        hint.notify()

    teller = asyncio.create_task(tell())
    try:
        yield
    finally:
        teller.cancel()


def _pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row, with jitter."""
    return min(MAX_PAUSE_SECONDS, 2.0 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311 - jitter


async def _stopped_within(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
