"""A worker's round with the queue: outcomes in, claims out, as one transaction or one step of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mailmill.store import dialect
from mailmill.store.queue_claims import Ask, claim_within
from mailmill.store.queue_outcomes import finish_within
from mailmill.store.queue_rows import Claim, Failed, Finished, FinishReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


_NOTHING: Final = FinishReport(0, 0, ())


@dataclass(frozen=True, slots=True)
class Exchange:
    """To be called within ``run_sync``, or as a whole transaction (`Database.transact`).

    ``finished_at`` is when, as recorded. The answer: what was recorded, and the claims of each of ``asks``, which are
    looked for in their order; their deadlines begin by the database's clock.
    """

    worker_id: str
    finished: Sequence[Finished] = ()
    failed: Sequence[Failed] = ()
    finished_at: float = 0.0
    asks: Sequence[Ask] = ()

    def __call__(self, connection: Connection) -> tuple[FinishReport, list[list[Claim]]]:
        report = _NOTHING
        if self.finished or self.failed:
            report = finish_within(connection, self.worker_id, self.finished, self.failed, self.finished_at)
        now = dialect.now(connection)
        return report, [claim_within(connection, self.worker_id, ask, now) for ask in self.asks]
