"""Counting messages, for the status page and for who keeps house. Nothing here writes."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, and_, exists, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.model import VerdictName
from mailmill.store import dialect
from mailmill.store.json_text import json_text
from mailmill.store.tables import blob, mailbox, message, place, result


async def count_messages(connection: AsyncConnection) -> dict[int, int]:
    """Account id → how many messages it has that are not deleted; accounts without any are left out."""
    wanted = (
        select(message.c.account_id, func.count()).where(message.c.deleted_at.is_(None)).group_by(message.c.account_id)
    )
    return {row[0]: row[1] for row in await connection.execute(wanted)}


async def count_places(connection: AsyncConnection, account_id: int) -> dict[int, int]:
    """Mailbox id → how many living places it has; empty mailboxes are left out."""
    wanted = (
        select(place.c.mailbox_id, func.count())
        .join(mailbox, mailbox.c.id == place.c.mailbox_id)
        .where(mailbox.c.account_id == account_id, place.c.expunged_at.is_(None))
        .group_by(place.c.mailbox_id)
    )
    return {row[0]: row[1] for row in await connection.execute(wanted)}


async def count_verdicts(connection: AsyncConnection) -> dict[str, int]:
    """Verdict → how many messages have it, by the newest version of the threat processor; all verdicts are there."""
    verdict = json_text(result.c.value, "verdict")
    wanted = (
        select(verdict.label("verdict"), func.count())
        .join(message, message.c.id == result.c.message_id)
        .where(newest_result("threat"), message.c.deleted_at.is_(None))
        .group_by(verdict)
    )
    counts = {str(name): 0 for name in VerdictName}
    for name, count in await connection.execute(wanted):
        if name in counts:
            counts[name] = count
    return counts


async def count_messages_in(connection: AsyncConnection, segments: Collection[str]) -> int:
    """How many messages have their raw bytes in these segments; none whose bytes expired."""
    found = 0
    for some in dialect.chunks(sorted(segments)):
        wanted = (
            select(func.count())
            .select_from(message.join(blob, blob.c.sha256 == message.c.sha256))
            .where(blob.c.segment.in_(some), message.c.raw_expired_at.is_(None))
        )
        found += (await connection.execute(wanted)).scalar_one()
    return found


async def referenced_segments(connection: AsyncConnection) -> set[str]:
    """The segments that hold raw messages (for `BlobStore.collect_orphans`)."""
    return set((await connection.execute(select(blob.c.segment).distinct())).scalars())


def newest_result(processor: str) -> ColumnElement[bool]:
    """Of a row of ``result``: it is that of the newest version of ``processor``, for its message."""
    newer = result.alias("newer")
    return and_(
        # As a literal: which partial index covers it cannot be told from a parameter.
        result.c.processor == literal_column(f"'{processor}'"),
        ~exists().where(
            newer.c.message_id == result.c.message_id,
            newer.c.processor == processor,
            newer.c.version > result.c.version,
        ),
    )
