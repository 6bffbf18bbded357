"""The order of the queue: start-time fair queueing, decided when a row is enqueued (Goyal, Vin, Cheng 1996).

Each row gets a tag ``vt``; a claim takes the lowest tags of its lane (one processor at one priority), which is one scan
of an index. A row's tag is one step above the later of

- the front of the lane: the lowest tag that is waiting. A newcomer starts beside whoever is being served now, however
  long the queue behind is;
- the account's own last waiting tag: a noisy account queues behind itself, one step a row, and so shares with others.

An empty lane starts from the clock. Steps are so small that tags do not outrun it, so a row that comes back (retried,
released) with the tag it had is served soon. Rows that were tried before do not count as the front: thousands of them
coming due at once must not draw newcomers ahead of everybody who has waited.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, literal_column, select, union_all

from mailmill.store.tables import work
from mailmill.store.work_state import PENDING, THROTTLED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import CompoundSelect
    from sqlalchemy.ext.asyncio import AsyncConnection

STEP_SECONDS: Final = 1e-6
"""What a row costs its account. A float of this century still tells steps of a quarter of it apart."""

_LANES_PER_STATEMENT = 50

Lane = tuple[str, int, int]
"""processor, priority, account id"""


class Tags:
    """Hands out tags; made by :func:`read_tags` for the lanes of one batch."""

    def __init__(self, starts: dict[Lane, float]) -> None:
        self._last = starts

    def next(self, lane: Lane) -> float:
        """The next tag of ``lane``, above all it gave before."""
        tag = self._last[lane] + STEP_SECONDS
        self._last[lane] = tag
        return tag


async def read_tags(connection: AsyncConnection, lanes: Iterable[Lane], now: float) -> Tags:
    """Where each of ``lanes`` stands; one statement, three index look-ups for each lane."""
    starts: dict[Lane, float] = {}
    ordered = sorted(set(lanes))
    for first in range(0, len(ordered), _LANES_PER_STATEMENT):
        some = ordered[first : first + _LANES_PER_STATEMENT]
        asked: dict[str, str | int] = {}
        for number, (processor, priority, account_id) in enumerate(some):
            asked |= {
                f"processor_{number}": processor,
                f"priority_{number}": priority,
                f"account_{number}": account_id,
            }
        for number, *tags in await connection.execute(_standing(len(some)), asked):
            known = [tag for tag in tags if tag is not None]
            starts[some[number]] = max(known, default=now)
    return Tags(starts)


@lru_cache(maxsize=_LANES_PER_STATEMENT)
def _standing(lanes: int) -> CompoundSelect[Any]:
    """For each of so many lanes its number, the lane's front and the account's own last tags, pending and throttled.

    Made once for each count: to build it costs several times what it takes to run, and every push asks.
    """
    branches = []
    for number in range(lanes):
        lane = (
            work.c.processor == bindparam(f"processor_{number}"),
            work.c.priority == bindparam(f"priority_{number}"),
        )
        own = (*lane, work.c.account_id == bindparam(f"account_{number}"))
        front = (
            select(work.c.vt)
            .where(PENDING, *lane, work.c.attempt == 0, work.c.crashes == 0)
            .order_by(work.c.vt)
            .limit(1)
            .scalar_subquery()
        )
        own_last = [
            select(work.c.vt).where(state, *own).order_by(work.c.vt.desc()).limit(1).scalar_subquery()
            for state in (PENDING, THROTTLED)
        ]
        branches.append(select(literal_column(str(number)), front, *own_last))
    return union_all(*branches)
