"""The database's clock, told without asking it each time: what nodes write for one another to compare goes by it.

A node's own wall clock may be hours off, or jump. A request that waits until its "tomorrow" would wait there for all
nodes, and a place that was lost in its "yesterday" would look as if a pass had begun since, and its message be taken
for deleted on its way to another mailbox.

Laws:

- Between two looks at the database this clock goes by CLOCK_BOOTTIME, so it never jumps on its own, sleep included.
- An answer that was long on its way does not say when the database looked at its clock: it is off by up to half of
  that. It is not believed once there is a better one; the next look comes.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from typing import TYPE_CHECKING, Final

import structlog

from mailmill.clock import boot_seconds
from mailmill.errors import MailmillError
from mailmill.store import dialect

if TYPE_CHECKING:
    from mailmill.store.database import Database

LOOK_SECONDS: Final = 60.0
_QUICK_SECONDS: Final = 1.0
_FIRST_LOOKS: Final = 3

_log = structlog.get_logger(__name__)


class StoreClock:
    """Called, it gives seconds since the epoch. Where one process has the store to itself it is that one's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ahead_seconds: float | None = None

    def __call__(self) -> float:
        return time.time() if self._ahead_seconds is None else boot_seconds() + self._ahead_seconds

    async def look(self) -> None:
        """Compare with the database's. Raises StoreError, and goes on as before."""
        if self._database.alone:
            return
        first = self._ahead_seconds is None
        quickest, ahead_seconds = await self._compare()
        for _ in range(_FIRST_LOOKS - 1 if first else 0):
            if quickest <= _QUICK_SECONDS:
                break
            quickest, ahead_seconds = min((quickest, ahead_seconds), await self._compare())
        if first or quickest <= _QUICK_SECONDS:
            self._ahead_seconds = ahead_seconds
        else:
            _log.info("the database was too slow to tell its time", seconds=round(quickest, 3))

    async def _compare(self) -> tuple[float, float]:
        """How long the answer took, and how far the database's clock is ahead of the machine's run; seconds."""
        async with self._database.read() as connection:
            asked_at = boot_seconds()
            now = await dialect.read_now(connection)
            answered_at = boot_seconds()
        # It looked at its clock somewhere between the question and the answer.
        return answered_at - asked_at, now - (asked_at + answered_at) / 2

    async def keep(self) -> None:
        """Compare now and then, for ever: clocks drift, and a failover brings another one."""
        while True:
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311 - jitter
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - the boundary: a look is not worth the service's life
                known = isinstance(error, MailmillError)
                _log.warning(
                    "the database's clock was not seen",
                    error=str(error),
                    hint=error.hint if isinstance(error, MailmillError) else "",
                    exception="" if known else "".join(traceback.format_exception(error)),
                )
