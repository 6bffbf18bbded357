"""Whose raw messages lie in a place: a text there, and the same in the database.

It keeps four things from happening: a service writes into the empty folder under a mount that is not mounted; it starts
with the bucket of another environment and cannot read its own mail; two stores share a place, and each takes the
other's mail for orphans; two nodes of one store each keep their mail in a folder of their own, where the other cannot
read it.

The text is ``STORE.PLACE``: the first part is the database's, the second is made by the node that writes it.

Laws:

* The database knows the first part before the place knows anything, as *pending*, so that a crash in between leaves
  what the next start completes. Nodes that start at once in one place agree on what is written there; of those that
  start in several, the first to tell the database has the store's place, and the others are refused.
* From then on a place with another text is refused, and one without it unless it holds our mail: that was copied there
  without the text. A database that names no mail yet is at home everywhere, but only where no other node can be.
* To write the text there by hand is how an operator says: this is the place.
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
    found = await segments.read_marker()
    if known.startswith(_PENDING):
        store = known.removeprefix(_PENDING)
        if found is None:
            found = await segments.write_marker(f"{store}.{uuid.uuid4().hex}")
        if _store_of(found) == store:
            known = await _settle(database, known, found)
    elif found is None:
        if not await _may_be_ours(database, segments):
            raise StoreError(
                f"{segments.shown} does not hold the raw messages of this store",
                hint=_wanted(database, known),
            )
        found = await segments.write_marker(known)
    if found == known:
        return
    if _store_of(found) == _store_of(known):
        raise StoreError(
            f"{segments.shown} is not where this store's raw messages lie: another node keeps them at another place",
            hint=_wanted(database, known),
        )
    raise StoreError(
        f"{segments.shown} holds the raw messages of another store ({MARKER_NAME!r} there says {found[:40]!r},"
        f" ours is {known.removeprefix(_PENDING)[:40]!r})",
        hint="correct service.blob_url, or use an empty folder or prefix: two stores in one place would delete each"
        " other's mail",
    )


def _store_of(text: str) -> str:
    return text.removeprefix(_PENDING).partition(".")[0]


async def _settle(database: Database, pending: str, found: str) -> str:
    """Make ``found`` the store's text, unless another node did with its own; what it is then."""
    async with database.write() as connection:
        await connection.execute(
            update(setting).where(setting.c.name == _NAME, setting.c.value == pending).values(value=found)
        )
    async with database.read() as connection:
        return await _known(connection) or found


def _wanted(database: Database, known: str) -> str:
    """What to do about a place that is not the store's."""
    if database.alone:
        return (
            "is the folder mounted, and is service.blob_url (or service.data_dir) the one it was? Messages that are to"
            " lie elsewhere are copied there first, with their folder 'segments'"
        )
    return (
        "all nodes of one database need one place for raw mail: set service.blob_url to an object store or to"
        " file:///FOLDER of a mount that all of them share. Where it moved to this one, copy its folder 'segments', and"
        f" the file {MARKER_NAME!r} with the line {known}"
    )


async def _may_be_ours(database: Database, segments: Segments) -> bool:
    """Whether a place that says nothing may be the one: a segment that the database names is there."""
    async with database.read() as connection:
        row = (await connection.execute(select(blob.c.segment, blob.c.offset_bytes).limit(1))).first()
    if row is None:
        # Of several nodes, the one before may be about to store mail in the place where the text is.
        return database.alone
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
