"""At most so many rows of one account in processing for a processor, over all nodes, without claims that search.

A claim that meets a row of an account that has enough moves it from ``pending`` to ``throttled``, where no claim looks:
each row is passed over once, so a million rows of a busy account cost later claims nothing. For each row of the
account that leaves processing another is let in again, the first in its order, with the tag it had.

Laws:

- Who counts, throttles or lets in holds the processor's turn (:func:`take_turns`): two claims that count at once would
  both see room, and a claim that throttles while the last row ends would leave rows that nobody lets in.
- A transaction takes all the turns it needs at once, before it touches any row: so no two wait for each other.
- What was missed (a crash, another limit, no limit any more) is mended by :func:`let_in_all`, now and then.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, update

from mailmill.store import dialect
from mailmill.store.queue_claims import claimable, not_paused, recheck, take
from mailmill.store.tables import processor as operated
from mailmill.store.tables import work
from mailmill.store.work_state import PROCESSING, THROTTLED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.queue_rows import Claim, Moment

_LOOKED_AT: Final = 100
_LOOKS: Final = 10
_LET_IN_AT_ONCE: Final = 5000


async def take_turns(connection: AsyncConnection, names: Collection[str]) -> None:
    """Be the only one, until the transaction ends, who counts the rows of these processors. Does nothing on SQLite."""
    if not names or not dialect.is_postgresql(connection):
        return
    ordered = sorted(set(names))
    known = operated.alias()
    # None of them where one is not there: it is made by who holds no other yet.
    complete = select(func.count()).select_from(known).where(known.c.name.in_(ordered)).scalar_subquery() == len(
        ordered
    )
    mine = select(operated.c.name).where(operated.c.name.in_(ordered), complete).order_by(operated.c.name)
    mine = mine.with_for_update(of=operated)
    if not (await connection.execute(mine)).all():
        adding = dialect.insert(connection, operated).on_conflict_do_nothing()
        await connection.execute(adding, [{"name": name} for name in ordered])
        await connection.execute(mine)


async def claim_limited(
    connection: AsyncConnection,
    *,
    processor: str,
    worker_id: str,
    limit: int,
    account_limit: int,
    deadline_seconds: float,
    now: Moment,
    version: int | None = None,
    crashed: bool = False,
) -> tuple[list[Claim], bool]:
    """:func:`mailmill.store.queue_claims.claim_within`, with at most ``account_limit`` rows of an account in
    processing.

    Also says whether there may be more to find: a claim looks at no more than some rows. In the processor's turn.
    """
    claims: list[Claim] = []
    if limit < 1:
        return claims, False
    free = claimable(processor, version, crashed=crashed)
    still = recheck(processor, version, crashed=crashed)
    for _ in range(_LOOKS):
        wanted = 1 if crashed else limit - len(claims)
        looked_at = max(wanted, _LOOKED_AT)
        head = (
            await connection.execute(
                dialect.skip_locked(
                    connection,
                    select(work.c.message_id, work.c.account_id)
                    .where(*free, not_paused(processor))
                    .order_by(work.c.priority, work.c.vt)
                    .limit(looked_at),
                    of=work,
                )
            )
        ).all()
        accounts = [row.account_id for row in head]
        busy = await _in_processing(connection, processor, accounts)
        chosen, over = share(accounts, busy, account_limit=account_limit, wanted=wanted)
        for some in dialect.chunks([head[index].message_id for index in over]):
            await connection.execute(update(work).where(*still, work.c.message_id.in_(some)).values(state="throttled"))
        for some in dialect.chunks([head[index].message_id for index in chosen]):
            rows = [*still, work.c.message_id.in_(some)]
            claims += await take(connection, rows, worker_id, version, deadline_seconds, now)
        if len(head) < looked_at:
            return claims, False
        if len(claims) >= (1 if crashed else limit):
            break
    return claims, True


def share(
    accounts: Sequence[int], busy: Mapping[int, int], *, account_limit: int, wanted: int
) -> tuple[list[int], list[int]]:
    """Which of the rows, given by their accounts in order, to take, and which are over their account's limit (pure).

    ``busy`` counts what each account has in processing. Rows behind the last that is taken are left as they are.
    """
    counted = Counter(busy)
    chosen: list[int] = []
    over: list[int] = []
    for index, account_id in enumerate(accounts):
        if len(chosen) == wanted:
            break
        if counted[account_id] < account_limit:
            counted[account_id] += 1
            chosen.append(index)
        else:
            over.append(index)
    return chosen, over


async def let_in(connection: AsyncConnection, processor: str, account_ids: Iterable[int], account_limit: int) -> int:
    """Make throttled rows of these accounts pending again, as many as each has room for; returns how many.

    In the processor's turn, after what left processing has left it.
    """
    wanted = sorted(set(account_ids))
    busy = await _in_processing(connection, processor, wanted)
    let_in = 0
    for account_id in wanted:
        room = account_limit - busy[account_id]
        if room > 0:
            let_in += await _make_pending(connection, processor, account_id, room)
    return let_in


async def let_in_all(connection: AsyncConnection, limits: Mapping[str, int | None]) -> int:
    """Let in what there is room for, for each processor and its limit (None: it has none). Returns how many rows.

    Takes the turns of those that have throttled rows. Behind every :func:`let_in` this stands as the guarantee.
    """
    throttled = []
    for name in sorted(limits):
        one = select(work.c.message_id).where(THROTTLED, work.c.processor == name).limit(1)
        if await connection.scalar(one) is not None:
            throttled.append(name)
    await take_turns(connection, throttled)
    rows = 0
    for name in throttled:
        limit = limits[name]
        if limit is None:
            rows += await _make_pending(connection, name, None, _LET_IN_AT_ONCE)
        else:
            rows += await let_in(connection, name, await _throttled_accounts(connection, name), limit)
    return rows


async def _in_processing(connection: AsyncConnection, processor: str, account_ids: Collection[int]) -> Counter[int]:
    """How many rows of each account are in processing."""
    if not account_ids:
        return Counter()
    # All of the processor's: these are few, and no index leads to those of one account.
    rows = await connection.execute(
        select(work.c.account_id, func.count())
        .where(PROCESSING, work.c.processor == processor)
        .group_by(work.c.account_id)
    )
    return Counter({row[0]: row[1] for row in rows})


async def _make_pending(connection: AsyncConnection, processor: str, account_id: int | None, rows: int) -> int:
    """The next throttled rows, of one account or of any."""
    of_account = [] if account_id is None else [work.c.account_id == account_id]
    next_rows = (
        select(work.c.message_id)
        .where(THROTTLED, work.c.processor == processor, *of_account)
        .order_by(work.c.account_id, work.c.priority, work.c.vt)
        .limit(rows)
    )
    changed = await connection.execute(
        update(work)
        .where(THROTTLED, work.c.processor == processor, work.c.message_id.in_(next_rows))
        .values(state="pending")
    )
    return changed.rowcount


async def _throttled_accounts(connection: AsyncConnection, processor: str) -> list[int]:
    """Accounts that have throttled rows: one look into the index for each, however many rows there are."""
    of_processor = (THROTTLED, work.c.processor == processor)
    first = select(func.min(work.c.account_id).label("account_id")).where(*of_processor)
    found = first.cte("found", recursive=True)
    following = (
        select(func.min(work.c.account_id))
        .where(*of_processor, work.c.account_id > found.c.account_id)
        .scalar_subquery()
    )
    found = found.union_all(select(following).where(found.c.account_id.is_not(None)))
    rows = await connection.execute(select(found.c.account_id).where(found.c.account_id.is_not(None)))
    return list(rows.scalars())
