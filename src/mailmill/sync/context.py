"""What every step of an account's sync needs, passed down as one value."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.messages import MailboxRow, SyncBatch, WorkPlan, apply_batch
from mailmill.sync.holdings import Holdings
from mailmill.sync.report import PassReport


@dataclass(frozen=True, slots=True)
class SyncLimits:
    """Sizes of the steps. A *chunk* is examined at once, and after ``chunk_seconds`` the mailbox is examined anew; a
    *group* is downloaded and stored in one transaction. ``change_messages`` bounds the flag changes and the expunges of
    one transaction. A message that cannot be had is tried again after a minute at first, and after
    ``parked_retry_seconds`` at most.
    """

    chunk_messages: int = 4000
    chunk_seconds: float = 5.0
    group_messages: int = 250
    group_bytes: int = 12 * 1024 * 1024
    flag_window_messages: int = 1000
    flag_sweep_seconds: float = 3600.0
    flag_sweep_messages: int = 5000
    change_messages: int = 2000
    max_message_bytes: int = 100 * 1024 * 1024
    attempts_per_message: int = 3
    parked_retry_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class SyncContext:
    """The account being synced and the doors it goes through. ``clock`` gives seconds since the epoch.

    ``on_stored(messages, arrived_at)`` is told after each commit how many new messages it held and when the hint that
    led to it came in (None for history).
    """

    database: Database
    blobs: BlobStore
    account: str
    account_id: int
    work: WorkPlan
    holdings: Holdings
    limits: SyncLimits = field(default_factory=SyncLimits)
    clock: Callable[[], float] = time.time
    on_stored: Callable[[int, float | None], None] = lambda _messages, _arrived_at: None

    async def commit(self, batch: SyncBatch, report: PassReport, *, arrived_at: float | None = None) -> MailboxRow:
        """One transaction, everything of ``batch`` in it; returns the mailbox row as it now is."""
        try:
            async with self.database.write() as connection:
                outcome = await apply_batch(connection, batch, self.work, self.clock())
        finally:
            if batch.expunged:
                self.holdings.lost_places()
        if outcome.expunged:
            self.holdings.lost_places()
        report.add(new=outcome.new, updated=outcome.updated, expunged=outcome.expunged)
        if outcome.new:
            self.on_stored(outcome.new, arrived_at)
        return self.holdings.committed(batch)
