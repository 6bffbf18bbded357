"""SQLite's own cursor under a blocking connection, for statements of the hot path (`Connection.run_sync`).

For each execution SQLAlchemy makes a context, a result and its events. That takes some 30 µs, in which SQLite deletes a
dozen rows. What is left out besides: values are not converted, errors leave as :class:`sqlite3.Error`, and who listens
to a connection is to be told of inserts (`tell`).
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlalchemy import Connection

LISTENER: Final = "listener"
"""Where `Connection.info` holds who is told of statements, if anybody is."""


def driver_cursor(connection: Connection) -> closing[Any]:
    """A :class:`sqlite3.Cursor`, closed at the end of the block."""
    return closing(connection.connection.cursor())


def tell(connection: Connection, statement: str) -> None:
    """``statement``, an INSERT, was executed by the driver's cursor: who waits for what it inserted is woken."""
    listener = connection.info.get(LISTENER)
    if listener is not None:
        listener(statement)
