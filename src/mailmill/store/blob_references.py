"""Which raw bytes are still needed, and forgetting those that are not.

A blob is needed by a message whose raw bytes have not expired, in whatever account, and by an upload that waits for its
server. A row of ``blob`` that nothing needs is forgotten; a segment that no row names any more is then removed by
`BlobStore.collect_orphans`.

Laws:

* Whoever comes to need a blob touches its row in the transaction that says so (``created_at`` becomes now), and only
  rows that were not touched for a day are forgotten. A row that such a transaction holds is passed over. One whose
  transaction has just committed is too young by now; where the clock has jumped since it is not, and on PostgreSQL the
  statement that locks it may not see the message or the upload that came with it, so both are looked for anew under
  the lock. The other way round, whoever waited for the deletion inserts the row anew, with the segment that it has just
  written.
* While a hold lies on the bytes (a backup copies what its snapshot names) no row is forgotten and no segment removed.
  It lies in the database, since the nodes of a fleet share the segments, and ends by itself where its holder died.
* A database that was restored is held until an operator adopts it: it may stand on the segments of the store that it
  was copied from, and all that came there since would be an orphan to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Delete, and_, delete, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store import dialect, marks
from mailmill.store.tables import blob, message, request

HELD_UNTIL: Final = "blobs_held_until"

UNTIL_ADOPTED: Final = 253_402_300_800
"""The hold of a restored database: the year 10000."""

HOLD_UNTIL_ADOPTED: Final = (
    f"INSERT INTO setting (name, value) VALUES ('{HELD_UNTIL}', '{UNTIL_ADOPTED}')"  # noqa: S608 - constants
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
"""Lays that hold, for who restores a database and is no code of the store's: both databases understand it."""

HOLD_SECONDS: Final = 600.0
"""How long raw mail is kept from being collected after the last word of a backup that runs."""

_NEEDED_BY_MESSAGE = exists().where(message.c.sha256 == blob.c.sha256, message.c.raw_expired_at.is_(None))


async def unneeded(
    connection: AsyncConnection, touched_before: float, after: bytes = b"", limit: int = 2000
) -> list[bytes]:
    """SHA-256 of blobs that no message needs, in ascending order from above ``after``; fewer than ``limit`` at the end.

    What is found may be needed a moment later: `forget` looks again.
    """
    wanted = (
        select(blob.c.sha256)
        .where(blob.c.sha256 > after, blob.c.created_at < touched_before, ~_NEEDED_BY_MESSAGE)
        .order_by(blob.c.sha256)
        .limit(limit)
    )
    return [bytes(digest) for digest in (await connection.execute(wanted)).scalars()]


async def forget(connection: AsyncConnection, digests: Sequence[bytes], touched_before: float) -> int:
    """Delete those rows that are still unneeded; returns how many. Nothing happens under a hold."""
    # Locked: a hold that is being laid waits for this transaction, and one that was laid before is seen.
    held_until = await marks.lock(connection, HELD_UNTIL)
    now: float = (await connection.execute(select(dialect.now(connection)))).scalar_one()
    if held_until > now:
        return 0
    forgotten = 0
    for some in dialect.chunks(sorted(set(digests))):
        free = select(blob.c.sha256).where(
            blob.c.sha256.in_(some), blob.c.created_at < touched_before, ~_NEEDED_BY_MESSAGE
        )
        locked = (await connection.execute(dialect.skip_locked(connection, free, of=blob))).scalars().all()
        if locked:
            # Asked for now: under the lock, no upload can come to need them any more.
            uploads = await _awaited_uploads(connection)
            unawaited = [digest for digest in locked if digest not in uploads]
            forgotten += (await connection.execute(_forgetting(unawaited))).rowcount
    return forgotten


async def hold(connection: AsyncConnection, seconds: float) -> None:
    """Keep all raw bytes for so long, by the database's clock. Holds do not add up: the latest end counts."""
    now: float = (await connection.execute(select(dialect.now(connection)))).scalar_one()
    held_until = await marks.lock(connection, HELD_UNTIL)
    await marks.move(connection, HELD_UNTIL, max(held_until, int(now + seconds) + 1))


async def is_held(connection: AsyncConnection) -> bool:
    now: float = (await connection.execute(select(dialect.now(connection)))).scalar_one()
    return (await marks.get(connection, HELD_UNTIL) or 0) > now


async def awaits_adoption(connection: AsyncConnection) -> bool:
    """Whether it was restored, and nobody has said since that the raw mail is its own."""
    return (await marks.get(connection, HELD_UNTIL) or 0) >= UNTIL_ADOPTED


async def adopt(connection: AsyncConnection) -> bool:
    """End the hold of a restored database; whether there was one. What a backup that runs may have laid goes on."""
    if await marks.lock(connection, HELD_UNTIL) < UNTIL_ADOPTED:
        return False
    now: float = (await connection.execute(select(dialect.now(connection)))).scalar_one()
    await marks.move(connection, HELD_UNTIL, int(now + HOLD_SECONDS) + 1)
    return True


def _forgetting(locked: Sequence[bytes]) -> Delete:
    """Of these, which are locked, those that are unneeded by now."""
    return delete(blob).where(blob.c.sha256.in_(locked), ~_NEEDED_BY_MESSAGE)


async def _awaited_uploads(connection: AsyncConnection) -> set[bytes]:
    waiting: ColumnElement[bool] = or_(request.c.state == "pending", request.c.state == "applying")
    wanted = select(request.c.data).where(and_(request.c.kind == "append", waiting))
    uploads = (json.loads(data).get("upload") for data in (await connection.execute(wanted)).scalars())
    return {bytes.fromhex(upload["sha256"]) for upload in uploads if upload}
