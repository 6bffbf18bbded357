"""Where SQLite and PostgreSQL differ in what the statements of the queue, the event log and the outbox need.

Law: a statement says what it means once; only these functions look at the name of the database.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Float, Integer, cast, extract, func, literal, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import BindParameter, ColumnElement, Connection, FromClause, Select, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    AnyConnection = AsyncConnection | Connection

MAX_ROWS = 500
"""Rows that one statement names by value: SQLite allows 32,766 variables (999 before 3.32)."""

T = TypeVar("T")


def chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """``rows`` in pieces that one statement can name."""
    for start in range(0, len(rows), MAX_ROWS):
        yield rows[start : start + MAX_ROWS]


def is_postgresql(connection: AnyConnection) -> bool:
    """True where rows are locked one by one; on SQLite the one writer's transaction is the lock."""
    return connection.dialect.name == "postgresql"


def now(connection: AnyConnection) -> ColumnElement[float]:
    """The database's clock as it runs, in seconds since the epoch: what nodes whose own clocks differ agree on.

    It moves within a transaction. SQLite has one process, so there the clock is that process's own.
    """
    if is_postgresql(connection):
        # Within a SELECT of its own it is read once for each statement. The function by itself is volatile: no index
        # serves a comparison with it.
        return select(cast(extract("epoch", func.clock_timestamp()), Float)).scalar_subquery()
    return literal(time.time(), Float)


async def read_now(connection: AsyncConnection) -> float:
    """What `now` says at this moment."""
    read: float = (await connection.execute(select(now(connection)))).scalar_one()
    return read


def insert(connection: AnyConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    return postgresql.insert(table) if is_postgresql(connection) else sqlite.insert(table)


def row_id(connection: AnyConnection, table: Table, key: ColumnElement[int]) -> ColumnElement[int]:
    """What leads to a row again within the statement that has found it: on SQLite its place, which spares the look into
    the index of the key. PostgreSQL goes by ``key`` (by its own place, the ctid, it is no faster).
    """
    return key if is_postgresql(connection) else literal_column(f"{table.name}.rowid", Integer)


def skip_locked(connection: AnyConnection, rows: Select[Any], of: FromClause) -> Select[Any]:
    """Lock the rows that are free and pass over those that another transaction holds."""
    return rows.with_for_update(skip_locked=True, of=of) if is_postgresql(connection) else rows


def first_free(connection: AnyConnection, rows: Select[Any], limit: BindParameter[int], of: FromClause) -> Select[Any]:
    """The first ``limit`` of ``rows`` in their order, locked as by :func:`skip_locked`; on PostgreSQL no more than
    :data:`MAX_ROWS`.

    PostgreSQL takes a limit that it does not know for a tenth of all rows. A plan for that looks so dear, where there
    are many, that it would make one for each execution, which takes as long as the claim. So it is told a bound.
    """
    if not is_postgresql(connection):
        return rows.limit(limit)
    free = skip_locked(connection, rows.limit(literal_column(str(MAX_ROWS))), of).subquery("free")
    return select(*free.c).limit(limit)


def found_first(connection: AnyConnection, rows: Select[Any], name: str) -> FromClause:
    """``rows``, found before anything is joined to them. PostgreSQL would make a subquery part of the join, and look up
    what stands in its columns as often as the join's plan names it.

    The name is known within the SELECT that it stands in: before an INSERT it would hide what that inserts into.
    """
    if not is_postgresql(connection):
        return rows.subquery(name)
    return rows.cte(name, nesting=True).prefix_with("MATERIALIZED")


def lock(connection: AnyConnection, rows: Select[Any], of: FromClause) -> Select[Any]:
    """Lock the rows against change until the transaction ends, waiting for whoever holds them."""
    return rows.with_for_update(of=of, key_share=True) if is_postgresql(connection) else rows


def lock_out(connection: AnyConnection, rows: Select[Any], of: FromClause) -> Select[Any]:
    """Lock the rows that are free against everybody, `lock_shared` included, and pass over the others."""
    return rows.with_for_update(skip_locked=True, of=of) if is_postgresql(connection) else rows


def lock_shared(connection: AnyConnection, rows: Select[Any], of: FromClause) -> Select[Any]:
    """Keep the rows from being locked out or deleted until the transaction ends. Any number may; an UPDATE of other
    than the key goes on meanwhile.
    """
    if not is_postgresql(connection):
        return rows
    return rows.with_for_update(read=True, key_share=True, of=of)


def storable(text: str) -> str:
    """``text`` without what a database or UTF-8 refuses: NUL and lone surrogates become U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text
