"""A processor run again over the past: what was asked for, a row each, and how far it has come.

::

    create ──▶ running ──▶ done           ``reprocess_pieces`` puts it into the queue, piece by piece
                  └──▶ cancelling ──▶ cancelled      ``reprocess_cancel`` takes it back
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, insert, literal_column, select, update

from mailmill.errors import NotFoundError
from mailmill.store.tables import mailbox, message, reprocess, work
from mailmill.store.work_state import FAILED, NOT_PENDING, PENDING

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

KEPT_SECONDS: Final = 30 * 86400.0
"""How long one that is done can be asked about."""

_NEWEST: Final = select(func.coalesce(func.max(message.c.id), 0))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages. Empty sequences mean all; ``since`` and ``until`` (epoch seconds, the end not included) are about
    the date at which the server received a message.

    Of these, the messages are taken whose newest result is of a version below ``below`` (None: the version that runs
    now) or that have none; with ``everything`` also those that have one; with ``failed`` only those whose work failed
    for good, whatever results they have unless ``below`` is given.
    """

    account_ids: tuple[int, ...] = ()
    mailboxes: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    failed: bool = False
    below: int | None = None
    everything: bool = False


@dataclass(frozen=True, slots=True)
class ReprocessRow:
    """One that was asked for. ``total`` messages are to be queued (None: not counted yet), ``queued`` are; it has
    looked at all messages up to the id ``position``, of those up to ``last_id``."""

    id: int
    processor: str
    version: int
    wanted: Wanted
    state: str
    position: int
    last_id: int
    busy_from: int | None
    total: int | None
    queued: int
    created_at: float
    finished_at: float | None

    @property
    def done(self) -> bool:
        """Whether all is in the queue."""
        return self.state == "done"

    @property
    def cancelled(self) -> bool:
        """Whether it was taken back (``reprocess_cancel``), or is about to be."""
        return self.state in ("cancelling", "cancelled")


@dataclass(frozen=True, slots=True)
class Lane:
    """Of all that a processor has in the queue: when the oldest row that waits or runs was queued (None: there is
    none), and how many failed for good."""

    oldest_at: float | None
    failed: int


async def create(connection: AsyncConnection, processor: str, version: int, wanted: Wanted, now: float) -> ReprocessRow:
    """Note what is asked for. Nothing is queued yet: ``reprocess_pieces`` does that. Forgets what was done long ago."""
    await connection.execute(reprocess.delete().where(reprocess.c.finished_at < now - KEPT_SECONDS))
    made = await connection.execute(
        insert(reprocess)
        .values(
            processor=processor,
            version=version,
            asked=_as_text(wanted),
            state="running",
            last_id=_NEWEST.scalar_subquery(),
            created_at=now,
        )
        .returning(reprocess)
    )
    return row_of(made.one())


async def preview(
    connection: AsyncConnection, processor: str, version: int, wanted: Wanted, now: float
) -> ReprocessRow:
    """What :func:`create` would note, for a look without consequences."""
    newest = await newest_message(connection)
    return ReprocessRow(0, processor, version, wanted, "running", 0, newest, None, None, 0, now, None)


async def newest_message(connection: AsyncConnection) -> int:
    """The highest id; 0 where there is no message."""
    return await connection.scalar(_NEWEST) or 0


async def get(connection: AsyncConnection, reprocess_id: int) -> ReprocessRow:
    """Raises NotFoundError."""
    row = (await connection.execute(select(reprocess).where(reprocess.c.id == reprocess_id))).first()
    if row is None:
        raise NotFoundError(
            f"there is no reprocessing {reprocess_id}", hint="GET /v1/reprocess lists those of the last 30 days"
        )
    return row_of(row)


async def list_all(connection: AsyncConnection, limit: int = 100) -> list[ReprocessRow]:
    """The newest first."""
    rows = await connection.execute(select(reprocess).order_by(reprocess.c.id.desc()).limit(limit))
    return [row_of(row) for row in rows]


async def list_of(connection: AsyncConnection, processor: str, wanted: Wanted | None = None) -> list[ReprocessRow]:
    """Those of a processor that are not cancelled (of these for the messages of ``wanted``), the newest first."""
    mine = [reprocess.c.processor == processor, reprocess.c.state != "cancelled"]
    if wanted is not None:
        mine.append(reprocess.c.asked == _as_text(wanted))
    rows = await connection.execute(select(reprocess).where(*mine).order_by(reprocess.c.id.desc()))
    return [row_of(row) for row in rows]


async def list_running(connection: AsyncConnection) -> list[ReprocessRow]:
    """Those that are not all in the queue, or not all taken back; the oldest first."""
    at_work = reprocess.c.state.in_(("running", "cancelling"))
    return [row_of(row) for row in await connection.execute(select(reprocess).where(at_work).order_by(reprocess.c.id))]


async def missing_mailboxes(connection: AsyncConnection, wanted: Wanted) -> list[str]:
    """Those of ``wanted.mailboxes`` that no wanted account has."""
    known = select(mailbox.c.path).where(mailbox.c.path.in_(wanted.mailboxes), mailbox.c.deleted_at.is_(None))
    if wanted.account_ids:
        known = known.where(mailbox.c.account_id.in_(wanted.account_ids))
    paths = set((await connection.execute(known)).scalars())
    return [path for path in wanted.mailboxes if path not in paths]


async def set_total(connection: AsyncConnection, reprocess_id: int, total: int) -> None:
    """Note how many messages are to be queued; the first count stands."""
    await connection.execute(
        update(reprocess).where(reprocess.c.id == reprocess_id, reprocess.c.total.is_(None)).values(total=total)
    )


async def extend(connection: AsyncConnection, row: ReprocessRow, last_id: int, more: int) -> ReprocessRow:
    """Make it look up to ``last_id``, where ``more`` messages are to be queued; not where it was cancelled or extended
    meanwhile."""
    still = (reprocess.c.state.in_(("running", "done")), reprocess.c.last_id == row.last_id)
    await connection.execute(
        update(reprocess)
        .where(reprocess.c.id == row.id, *still)
        .values(state="running", last_id=last_id, total=reprocess.c.total + more, finished_at=None)
    )
    return await get(connection, row.id)


async def lane(connection: AsyncConnection, processor: str) -> Lane:
    """Of what the processor has in the queue."""
    mine = work.c.processor == processor
    # Pending or not: each has an index of its own, and both together have none.
    not_over = (PENDING, NOT_PENDING & (work.c.state != literal_column("'failed'")))
    oldest = [await connection.scalar(select(func.min(work.c.enqueued_at)).where(mine, state)) for state in not_over]
    failed = await connection.scalar(select(func.count()).select_from(work).where(FAILED, mine))
    return Lane(min((each for each in oldest if each is not None), default=None), failed or 0)


def row_of(row: Row[Any]) -> ReprocessRow:
    """A row of the table ``reprocess``."""
    asked = json.loads(row.asked)
    wanted = Wanted(**asked | {name: tuple(asked[name]) for name in ("account_ids", "mailboxes")})
    return ReprocessRow(
        row.id,
        row.processor,
        row.version,
        wanted,
        row.state,
        row.position,
        row.last_id,
        row.busy_from,
        row.total,
        row.queued,
        row.created_at,
        row.finished_at,
    )


def _as_text(wanted: Wanted) -> str:
    return json.dumps(asdict(wanted))
