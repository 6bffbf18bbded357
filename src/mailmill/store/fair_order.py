"""The order of the queue: start-time fair queueing, decided when a row is enqueued (Goyal, Vin, Cheng 1996).

Each row gets a tag ``vt``; a claim takes the lowest tags of its lane (one processor at one priority), which is one scan
of an index. A row's tag is one step above the later of

- the front of the lane: the lowest tag that is waiting. A newcomer starts beside whoever is being served now, however
  long the queue behind is;
- the account's own last waiting tag: a noisy account queues behind itself, one step a row, and so shares with others.

An empty lane starts from the clock. Steps are so small that tags do not outrun it, so a row that comes back (retried,
released) with the tag it had is served soon. Rows that were tried before do not count as the front: thousands of them
coming due at once must not draw newcomers ahead of everybody who has waited.

An account's last tag is that of the row which was queued last for it, and which that is stands in the table ``lane``:
an index that finds it would be written at each enqueue and each claim. Where that row waits no more, nothing of the
account waits (or an operator dropped it, which costs others a moment), and its next row starts at the front.

The front is looked for from where it was seen last (:mod:`mailmill.store.queue_front`), which each connection
remembers. A row that came back before that place is seen a moment later; until then newcomers stand behind it, and not
beside it.

Law: a transaction calls :func:`read_tags` once. It locks rows of ``lane``, in their order; taken in two goes, two
transactions could wait for each other. It does so after messages and their work are locked (`row_locks`).
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, literal_column, select, union_all

from mailmill.store.bulk_insert import BulkInsert
from mailmill.store.queue_front import BEGINNING, Front, Turn
from mailmill.store.tables import lane as lanes_table
from mailmill.store.tables import work
from mailmill.store.work_state import PENDING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import CompoundSelect
    from sqlalchemy.ext.asyncio import AsyncConnection

STEP_SECONDS: Final = 1e-6
"""What a row costs its account. A float of this century still tells steps of a quarter of it apart."""

_LANES_PER_STATEMENT = 50
_FRONTS = "fronts of lanes"

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


async def read_tags(connection: AsyncConnection, rows: Iterable[tuple[Lane, int]], now: float) -> Tags:
    """Tags for new rows, each given by its lane and its message, in the order in which they will be given tags.

    Two statements, three index look-ups for each lane. Two transactions that enqueue for one account at once may be
    given the same tags, which harms nobody.
    """
    last_messages = dict(rows)
    starts: dict[Lane, float] = {}
    ordered = sorted(last_messages)
    fronts: dict[tuple[str, int], Front] = connection.info.setdefault(_FRONTS, {})
    for first in range(0, len(ordered), _LANES_PER_STATEMENT):
        some = ordered[first : first + _LANES_PER_STATEMENT]
        asked: dict[str, str | int | float] = {}
        turns = []
        for number, (processor, priority, account_id) in enumerate(some):
            turns.append(fronts.setdefault((processor, priority), Front()).turn())
            asked |= {
                f"processor_{number}": processor,
                f"priority_{number}": priority,
                f"account_{number}": account_id,
                f"from_{number}": turns[-1].vt,
            }
        began = time.monotonic()
        standing = (await connection.execute(_standing(len(some)), asked)).all()
        seconds_each = (time.monotonic() - began) / len(some)
        for number, seen, last in standing:
            processor, priority, _ = lane = some[number]
            front = fronts[processor, priority]
            looked = turns[number] == BEGINNING
            begins = seen if seen is not None else now if looked else turns[number].vt
            front.reached(Turn(priority, begins))
            if looked:
                front.looked(seconds_each)
            if seen is None:
                # Who read the front before it went may still commit rows there.
                front.doubt()
            starts[lane] = begins if last is None else max(begins, last)
    await _KEEP(connection, [(*lane, last_messages[lane]) for lane in ordered])
    return Tags(starts)


_KEEP: Final = BulkInsert[tuple[str, int, int, int]](
    lanes_table, ("processor", "priority", "account_id", "last_message_id"), replace=True
)


@lru_cache(maxsize=_LANES_PER_STATEMENT)
def _standing(lanes: int) -> CompoundSelect[Any]:
    """For each of so many lanes its number, the lane's front and the account's own last waiting tag.

    Made once for each count: to build it costs several times what it takes to run, and every push asks.
    """
    branches = []
    for number in range(lanes):
        processor = bindparam(f"processor_{number}", type_=work.c.processor.type)
        priority = bindparam(f"priority_{number}", type_=work.c.priority.type)
        front = (
            select(work.c.vt)
            .where(
                PENDING,
                work.c.processor == processor,
                work.c.priority == priority,
                work.c.vt >= bindparam(f"from_{number}", type_=work.c.vt.type),
                work.c.attempt == 0,
                work.c.crashes == 0,
            )
            .order_by(work.c.vt)
            .limit(1)
            .scalar_subquery()
        )
        last_message = (
            select(lanes_table.c.last_message_id)
            .where(
                lanes_table.c.processor == processor,
                lanes_table.c.priority == priority,
                lanes_table.c.account_id == bindparam(f"account_{number}", type_=lanes_table.c.account_id.type),
            )
            .scalar_subquery()
        )
        last = (
            select(work.c.vt)
            .where(
                work.c.message_id == last_message,
                work.c.processor == processor,
                work.c.priority == priority,
                work.c.state.in_((literal_column("'pending'"), literal_column("'throttled'"))),
            )
            .scalar_subquery()
        )
        branches.append(select(literal_column(str(number)), front, last))
    return union_all(*branches)
