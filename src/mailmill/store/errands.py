"""Errands: what one node asks of the node that owns an account. Rows of ``errand``; PostgreSQL only.

An errand is short-lived: who asks waits for the answer and takes the row away. One that nobody answered or fetched in
`KEPT_SECONDS` is void. Carried out at least once: an owner that dies with it leaves it to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store import dialect
from mailmill.store.tables import errand, request

KEPT_SECONDS: Final = 600.0


class ErrandKind(StrEnum):
    """``PASS``: a full pass, and what it brought. ``RESUME``: the credentials were found good, try again."""

    PASS = "pass"  # noqa: S105  # no password
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Errand:
    id: int
    account_id: int
    kind: ErrandKind


async def add(connection: AsyncConnection, account_id: int, kind: ErrandKind) -> int:
    """Ask; returns the errand's id."""
    new = dialect.insert(connection, errand).values(
        account_id=account_id, kind=str(kind), asked_at=dialect.now(connection)
    )
    errand_id: int = (await connection.execute(new.returning(errand.c.id))).scalar_one()
    return errand_id


async def unanswered(connection: AsyncConnection) -> list[Errand]:
    """All that wait for an owner, oldest first."""
    rows = await connection.execute(
        select(errand.c.id, errand.c.account_id, errand.c.kind)
        .where(errand.c.answer.is_(None), errand.c.asked_at > dialect.now(connection) - KEPT_SECONDS)
        .order_by(errand.c.id)
    )
    return [Errand(row.id, row.account_id, ErrandKind(row.kind)) for row in rows]


async def answer(connection: AsyncConnection, errand_id: int, text: str) -> None:
    await connection.execute(update(errand).where(errand.c.id == errand_id).values(answer=text))


async def answer_of(connection: AsyncConnection, errand_id: int) -> str | None:
    """None while nobody has answered."""
    text: str | None = await connection.scalar(select(errand.c.answer).where(errand.c.id == errand_id))
    return text


async def remove(connection: AsyncConnection, errand_id: int) -> None:
    """It is over for who asked, and so are all that are void."""
    void = errand.c.asked_at <= dialect.now(connection) - KEPT_SECONDS
    await connection.execute(delete(errand).where((errand.c.id == errand_id) | void))


async def accounts_with_due_requests(connection: AsyncConnection, now: float) -> frozenset[int]:
    """Ids of the accounts for which a change of the server waits to be made."""
    rows = await connection.scalars(
        select(request.c.account_id).where(request.c.state == "pending", request.c.run_at <= now).distinct()
    )
    return frozenset(rows)
