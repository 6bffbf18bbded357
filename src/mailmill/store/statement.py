"""Statements of the queue's hot path: Core says what they mean, once; the driver gets their text and plain values.

What Core does for each execution (building the expression, its cache key, its parameters, converting values either way)
costs more than the database takes for a batch. What is left out is the conversion, so values are what drivers take,
and rows hold what they give: on SQLite a truth value is 0 or 1.

They are executed within ``AsyncConnection.run_sync``: on SQLite several of them are one visit to the writer's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mailmill.store import dialect
from mailmill.store.driver_cursor import driver_cursor, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import CompoundSelect, Connection, CursorResult, Delete, Insert, Select, Update

    AnyStatement = Select[Any] | CompoundSelect[Any] | Insert | Update | Delete


class Compiled(NamedTuple):
    """The text of a statement, the names of its parameters in the text's order, and those that never change."""

    text: str
    order: tuple[str, ...]
    constants: Mapping[str, Any]

    def values(self, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        """What the driver takes. Raises KeyError where a parameter is missing."""
        values = {**self.constants, **parameters}
        return tuple([values[name] for name in self.order])


def compiled(statement: AnyStatement, connection: Connection) -> Compiled:
    """``statement`` as the driver of ``connection`` takes it."""
    made: Any = statement.compile(dialect=connection.dialect)
    required = {bind.key for bind in made.binds.values() if bind.required}
    constants = {name: value for name, value in made.params.items() if name not in required}
    return Compiled(str(made), tuple(made.positiontup or ()), constants)


class Statement:
    """A statement that is always the same; what differs between executions are its named parameters."""

    def __init__(self, build: Callable[[Connection], AnyStatement]) -> None:
        """``build`` makes it for the database of a connection; it is asked once for each make."""
        self._build: Final = build
        self._compiled: dict[str, Compiled] = {}

    def rows(self, connection: Connection, **parameters: Any) -> Sequence[Any]:
        """Execute it; all rows of its answer, by position. Raises KeyError where a parameter is missing.

        On SQLite it must not insert: who waits for what is inserted would not be told (`inserted` tells).
        """
        # Fetched at once: to iterate over the answer is a call down to the driver for each row.
        if dialect.is_postgresql(connection):
            return self._execute(connection, parameters).all()
        # The driver's own cursor: a claim's rows would take SQLAlchemy a sixth as long as the claim.
        known = self._known(connection)
        with driver_cursor(connection) as cursor:
            cursor.execute(known.text, known.values(parameters))
            rows: Sequence[Any] = cursor.fetchall()
        return rows

    def inserted(self, connection: Connection, **parameters: Any) -> range:
        """Execute an INSERT on SQLite; the ids that its rows got. Raises KeyError where a parameter is missing."""
        known = self._known(connection)
        with driver_cursor(connection) as cursor:
            cursor.execute(known.text, known.values(parameters))
            tell(connection, known.text)
            return range(cursor.lastrowid - cursor.rowcount + 1, cursor.lastrowid + 1) if cursor.rowcount else range(0)

    def _execute(self, connection: Connection, parameters: Mapping[str, Any]) -> CursorResult[Any]:
        known = self._known(connection)
        return connection.exec_driver_sql(known.text, known.values(parameters))

    def _known(self, connection: Connection) -> Compiled:
        known = self._compiled.get(connection.dialect.name)
        if known is None:
            known = self._compiled[connection.dialect.name] = compiled(self._build(connection), connection)
        return known
