"""Whose raw messages lie in a place: a text there, and the same in the database.

It keeps three things from happening: a service writes into the empty folder under a mount that is not mounted; it
starts with the bucket of another environment and cannot read its own mail; two stores share a place, and each takes the
other's mail for orphans.

Laws: the database knows the text before the place does, as *pending*, so that a crash in between leaves what the next
start completes; from then on a place with another text is refused, and one without it unless it holds our mail (it was
copied there without the text).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from mailmill.errors import StorageUnavailableError, StoreError
from mailmill.store import dialect
from mailmill.store.segments import MARKER_NAME, Segments
from mailmill.store.tables import blob, setting

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.database import Database

_NAME: Final = "blob_place"
_PENDING: Final = "pending "


async def prove_place(database: Database, segments: Segments) -> None:
    """Prove that ``segments`` can be read and written and are this database's; an empty place becomes so.

    Raises StorageUnavailableError where it cannot be reached, StoreError where it is another's or does not hold what
    the database names.
    """
    async with database.read() as connection:
        known = await _known(connection)
    if known is None:
        async with database.write() as connection:
            made = f"{_PENDING}{uuid.uuid4().hex}"
            await connection.execute(
                dialect.insert(connection, setting).values(name=_NAME, value=made).on_conflict_do_nothing()
            )
            known = await _known(connection) or made
    text = known.removeprefix(_PENDING)
    found = await segments.read_marker()
    if found is None:
        if text == known and not await _holds_our_mail(database, segments):
            raise StoreError(
                f"{segments.shown} does not hold the raw messages of this store",
                hint="is the folder mounted, and is service.blob_url (or service.data_dir) the one it was? Messages"
                " that are to lie elsewhere are copied there first, with their folder 'segments'",
            )
        found = await segments.write_marker(text)
    if found != text:
        raise StoreError(
            f"{segments.shown} holds the raw messages of another store ({MARKER_NAME!r} there says {found[:40]!r},"
            f" ours is {text!r})",
            hint="correct service.blob_url, or use an empty folder or prefix: two stores in one place would delete each"
            " other's mail",
        )
    if text != known:
        async with database.write() as connection:
            await connection.execute(
                update(setting).where(setting.c.name == _NAME, setting.c.value == known).values(value=text)
            )


async def _holds_our_mail(database: Database, segments: Segments) -> bool:
    """Whether a segment that the database names is there; a database that names none is at home everywhere."""
    async with database.read() as connection:
        row = (await connection.execute(select(blob.c.segment, blob.c.offset_bytes).limit(1))).first()
    if row is None:
        return True
    try:
        await segments.read_raw(row.segment, row.offset_bytes, 1)
    except StorageUnavailableError:
        raise
    except StoreError:
        return False
    return True


async def _known(connection: AsyncConnection) -> str | None:
    value: str | None = await connection.scalar(select(setting.c.value).where(setting.c.name == _NAME))
    return value
