"""Bytes that arrive again: which of two places their row of ``blob`` names from then on.

Laws:

* A sound place stays. A row moves to the fresh copy from the very place that was read and found lost, and from no
  other: a dump of PostgreSQL names segments as of its snapshot, and a backup copies those that are named a moment
  later. If the newest place won, that backup would lack mail that was never in danger.
* A lost place goes. Unless the row names the fresh copy it is an orphan, and a message that its server has just sent
  stays unreadable.
* The old place is read before the transaction, since that takes time; whether the row still names it is seen within.
  Meanwhile the row may have been forgotten (`blob_references`): it is inserted anew, with the fresh copy. Or another
  writer has moved it: it stays there. The segment of a sound place cannot go: a row that is forgotten is not there.
* For new mail this is one look at a key. What is known is read back once for each time it is downloaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, String, and_, bindparam, case, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store import dialect
from mailmill.store.blobs import BlobRef, BlobStore
from mailmill.store.tables import blob

if TYPE_CHECKING:
    from mailmill.store.database import Database

_PLACE: Final = ("segment", "offset_bytes", "size_bytes")
_IS_LOST = and_(
    blob.c.segment == bindparam("lost_segment", type_=String),
    blob.c.offset_bytes == bindparam("lost_offset", type_=BigInteger),
    blob.c.size_bytes == bindparam("lost_size", type_=BigInteger),
)
_KNOWN = select(blob).where(blob.c.sha256.in_(bindparam("some", expanding=True)))


async def lost_places(database: Database, blobs: BlobStore, fresh: Iterable[BlobRef]) -> list[BlobRef]:
    """Where the contents of ``fresh`` lay before, and lie no more. To be asked outside of a transaction.

    Raises as `BlobStore.lost` does.
    """
    digests = list({ref.sha256 for ref in fresh})
    if not digests:
        return []
    async with database.read() as connection:
        rows = [
            row for some in dialect.chunks(digests) for row in await connection.execute(_KNOWN, {"some": list(some)})
        ]
    known = [BlobRef(bytes(row.sha256), row.segment, row.offset_bytes, row.size_bytes) for row in rows]
    return await blobs.lost(known) if known else []


async def name_blobs(
    connection: AsyncConnection, fresh: Iterable[BlobRef], lost: Collection[BlobRef], now: float
) -> None:
    """The contents of ``fresh`` have a row, touched: at its old place, at the fresh one where the old is in ``lost``.

    The segments of ``fresh`` must be synced already.
    """
    adding = dialect.insert(connection, blob)
    given = adding.excluded
    moved = {column: case((_IS_LOST, given[column]), else_=blob.c[column]) for column in _PLACE}
    statement = adding.on_conflict_do_update(index_elements=["sha256"], set_={**moved, "created_at": given.created_at})
    instead = {ref.sha256: ref for ref in lost}
    nowhere = BlobRef(b"", "", 0, 0)
    rows = []
    for _, ref in sorted({ref.sha256: ref for ref in fresh}.items()):  # rows are locked in this order
        old = instead.get(ref.sha256, nowhere)
        rows.append(
            {
                "sha256": ref.sha256,
                "segment": ref.segment,
                "offset_bytes": ref.offset_bytes,
                "size_bytes": ref.size_bytes,
                "created_at": now,
                "lost_segment": old.segment,
                "lost_offset": old.offset_bytes,
                "lost_size": old.size_bytes,
            }
        )
    if rows:
        await connection.execute(statement, rows)
