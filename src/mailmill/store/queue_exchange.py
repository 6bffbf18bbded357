"""A worker's round with the queue: outcomes in, claims out, as one transaction or one step of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from mailmill.store import dialect
from mailmill.store.queue_claims import Ask, claim_within
from mailmill.store.queue_outcomes import finish_within
from mailmill.store.queue_rows import Claim, Failed, Finished, FinishReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection


_NOTHING: Final = FinishReport(0, 0, ())


class Exchanged(NamedTuple):
    """What was recorded, and the claims of each `Ask`. ``looked`` is False where nothing was looked for."""

    report: FinishReport
    claims: list[list[Claim]]
    looked: bool


@dataclass(frozen=True, slots=True)
class Exchange:
    """To be called within ``run_sync``, or as a whole transaction (`Database.transact`).

    ``finished_at`` is when, as recorded. ``asks`` are looked for in their order, and the deadlines of what is claimed
    begin by the database's clock; unless ``may_claim``, called in the transaction, says no: it may have waited long.
    """

    worker_id: str
    finished: Sequence[Finished] = ()
    failed: Sequence[Failed] = ()
    finished_at: float = 0.0
    asks: Sequence[Ask] = ()
    may_claim: Callable[[], bool] = lambda: True

    def __call__(self, connection: Connection) -> Exchanged:
        report = _NOTHING
        if self.finished or self.failed:
            report = finish_within(connection, self.worker_id, self.finished, self.failed, self.finished_at)
        if not self.may_claim():
            return Exchanged(report, [[] for _ in self.asks], looked=False)
        now = dialect.now(connection)
        claims = [claim_within(connection, self.worker_id, ask, now) for ask in self.asks]
        return Exchanged(report, claims, looked=True)
