"""Whose fault it is that a transaction failed: the store's, or that of the rows that it was given (pure).

Rows at fault are tried one by one, and the one that is refused becomes a failure of its own. What is the store's fault
(full, gone, locked, without its tables, without rights) is the same for all rows: it is waited for, and no row suffers.
So what cannot be told from the error counts as the store's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError

from mailmill.errors import StoreError

# By class of SQLSTATE (PostgreSQL manual, appendix A): cardinality, data, integrity, and what is beyond the limits of
# the program (a row too big for an index).
_CLASSES_OF_ROWS: Final = ("21", "22", "23", "54")


def is_store_trouble(error: BaseException) -> bool:
    """Whether the store failed, so that none of it is the fault of its rows.

    False also for what no store raises: a bug is not waited out.

    The answer is the driver's. Its SQLSTATE is what counts, where it has one: SQLAlchemy's asyncpg dialect tells data
    that is refused by its base class, and a missing table or right (class 42) by the same class with which SQLite tells
    a value that it cannot bind.
    """
    for cause in _causes(error):
        if state := str(getattr(cause, "sqlstate", None) or ""):
            return not state.startswith(_CLASSES_OF_ROWS)
    if any(_is_of_rows(cause) for cause in _causes(error)):
        return False
    return isinstance(error, StoreError | DBAPIError | OSError)  # a TimeoutError is an OSError


def _is_of_rows(error: BaseException) -> bool:
    # The driver's own where its cursor was used (`store.statement`), else SQLAlchemy's.
    if isinstance(error, IntegrityError | DataError | sqlite3.IntegrityError | sqlite3.DataError):
        return True
    # Of SQLite, a value of no type that it knows. That the database is closed it tells by the same class.
    if isinstance(error, ProgrammingError | InterfaceError):
        return "binding parameter" in str(error.orig)
    return isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError) and "binding parameter" in str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (seen.orig if isinstance(seen, DBAPIError) else None)
