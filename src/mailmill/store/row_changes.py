"""Rows that are changed or deleted one by one, each by its key and values of its own, many at once.

PostgreSQL is given an array for each value and joins it to the table: one statement for all. SQLite executes the
statement for each of them, and deletes in pieces where all rows are there.
"""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import ARRAY, Integer, bindparam, column, delete, func, select, values

from mailmill.store import dialect
from mailmill.store.bulk_insert import PIECE_ROWS
from mailmill.store.driver_cursor import driver_cursor
from mailmill.store.given_rows import element
from mailmill.store.statement import Compiled, compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Column, ColumnElement, Connection, Delete, Table, Update

RowType = TypeVar("RowType", bound=tuple[object, ...])


class RowChanges:
    """One change, for any number of given rows."""

    def __init__(self, build: Callable[[Connection, Any], Update | Delete], **values: Column[Any]) -> None:
        """``values`` names what is given of each row, with a column of its type.

        ``build(connection, given)`` makes the statement for one row, whose values are attributes of ``given``; its
        condition must name one row of the table at most. It is asked once for each make of database.
        """
        self._build: Final = build
        self._values: Final = values
        self._compiled: dict[str, Compiled] = {}

    def __call__(self, connection: Connection, rows: Sequence[RowType], **parameters: Any) -> list[RowType]:
        """Make the change; those of ``rows`` that named a row which was there. No two may name the same.

        ``rows`` hold the values in their order and are at most :data:`dialect.MAX_ROWS`; ``parameters`` are those of
        the statement besides. Raises KeyError where one is missing.
        """
        if not rows:
            return []
        if dialect.is_postgresql(connection):
            return self._all_at_once(connection, rows, parameters)
        return self._on_sqlite(connection, rows, parameters)

    def _on_sqlite(
        self, connection: Connection, rows: Sequence[RowType], parameters: Mapping[str, Any]
    ) -> list[RowType]:
        return self._one_by_one(connection, rows, parameters)

    def _all_at_once(
        self, connection: Connection, rows: Sequence[RowType], parameters: Mapping[str, Any]
    ) -> list[RowType]:
        statement = self._statement(connection)
        columns = zip(*rows, strict=True)
        given = {f"given_{name}": list(each) for name, each in zip(self._values, columns, strict=True)}
        given["given_at"] = list(range(len(rows)))
        changed = connection.exec_driver_sql(statement.text, statement.values({**given, **parameters})).all()
        return [rows[at] for at in sorted([row[0] for row in changed])]

    def _one_by_one(
        self, connection: Connection, rows: Sequence[RowType], parameters: Mapping[str, Any]
    ) -> list[RowType]:
        statement = self._statement(connection)
        places = {f"given_{name}": at for at, name in enumerate(self._values)}
        fixed = {**statement.constants, **parameters}
        order = [(places.get(name), None if name in places else fixed[name]) for name in statement.order]
        changed = []
        with driver_cursor(connection) as cursor:
            for row in rows:
                values = [fixed_value if place is None else row[place] for place, fixed_value in order]
                cursor.execute(statement.text, values)
                if cursor.rowcount:
                    changed.append(row)
        return changed

    def _statement(self, connection: Connection) -> Compiled:
        known = self._compiled.get(connection.dialect.name)
        if known is None:
            known = self._compiled[connection.dialect.name] = self._compile(connection)
        return known

    def _compile(self, connection: Connection) -> Compiled:
        if not dialect.is_postgresql(connection):
            given = {name: bindparam(f"given_{name}", type_=column.type) for name, column in self._values.items()}
            return compiled(self._build(connection, SimpleNamespace(**given)), connection)
        arrays = [bindparam(f"given_{name}", type_=ARRAY(element(column))) for name, column in self._values.items()]
        place = bindparam("given_at", type_=ARRAY(Integer))
        table = func.unnest(*arrays, place).table_valued(*self._values, "at", name="given").render_derived()
        return compiled(self._build(connection, table.c).returning(table.c.at), connection)


class RowDeletions(RowChanges):
    """Rows deleted: as `RowChanges`, with what it takes to do it in pieces on SQLite."""

    def __init__(self, table: Table, condition: Callable[[Any], ColumnElement[bool]], **values: Column[Any]) -> None:
        """``condition(given)`` is true of one row of ``table`` at most, found by its key; ``given`` is as there."""
        super().__init__(lambda _connection, given: delete(table).where(condition(given)), **values)
        self._table: Final = table
        self._condition: Final = condition
        self._of_piece: Compiled | None = None

    def _on_sqlite(
        self, connection: Connection, rows: Sequence[RowType], parameters: Mapping[str, Any]
    ) -> list[RowType]:
        whole = len(rows) - len(rows) % PIECE_ROWS
        pieces, rest = rows[:whole], rows[whole:]
        gone = list(pieces)
        if not self._all_gone(connection, pieces, parameters):
            gone = self._one_by_one(connection, pieces, parameters)
        return gone + self._one_by_one(connection, rest, parameters) if rest else gone

    def _all_gone(self, connection: Connection, rows: Sequence[RowType], parameters: Mapping[str, Any]) -> bool:
        """Delete whole pieces; False, and nothing is done, where a row was not there: it is not told which."""
        if not rows:
            return True
        if self._of_piece is None:
            self._of_piece = self._compile_piece(connection)
        fixed = {**self._of_piece.constants, **parameters}
        after = [fixed[name] for name in self._of_piece.order[PIECE_ROWS * len(self._values) :]]
        with driver_cursor(connection) as cursor:
            cursor.execute("SAVEPOINT pieces")
            deleted = 0
            for start in range(0, len(rows), PIECE_ROWS):
                piece = chain.from_iterable(rows[start : start + PIECE_ROWS])
                cursor.execute(self._of_piece.text, (*piece, *after))
                deleted += cursor.rowcount
            if deleted != len(rows):
                cursor.execute("ROLLBACK TO pieces")
            cursor.execute("RELEASE pieces")
        return deleted == len(rows)

    def _compile_piece(self, connection: Connection) -> Compiled:
        names = [[f"given_{name}_{at}" for name in self._values] for at in range(PIECE_ROWS)]
        columns = [column(name, each.type) for name, each in self._values.items()]
        # Within the condition: the driver counts what a statement deleted only where DELETE is its first word.
        given = (
            values(*columns, name="given")
            .data([tuple(map(bindparam, row)) for row in names])
            .cte("given", nesting=True)
        )
        place = dialect.row_id(connection, self._table, column("rowid"))
        found = select(place).select_from(given, self._table).where(self._condition(given.c)).correlate(None)
        made = compiled(delete(self._table).where(place.in_(found)), connection)
        # The rows come first in the text, so they are handed over as they are.
        if made.order[: PIECE_ROWS * len(names[0])] != tuple(chain.from_iterable(names)):
            raise TypeError(f"the given rows do not come first: {made.text}")
        return made
