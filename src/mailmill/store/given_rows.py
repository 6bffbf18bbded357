"""Rows that a statement is given to work on, as a table within it, so that its text does not depend on their number.

A list of a hundred keys in a statement is a text of its own for each length, to be rendered, parsed and planned again,
with hundreds of parameters. Here they are one parameter: JSON on SQLite, an array for each column on PostgreSQL.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, String, Text, bindparam, func, select

from mailmill.store import dialect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Column, FromClause
    from sqlalchemy.types import TypeEngine

    from mailmill.store.dialect import AnyConnection


class GivenRows:
    """Rows of ``columns`` (whole numbers and text). ``name`` tells the tables of one statement apart."""

    def __init__(self, name: str, *columns: Column[Any]) -> None:
        self._name = name
        self._columns = columns

    def table(self, connection: AnyConnection) -> FromClause:
        """To select from; its columns are named as those given."""
        names = [column.name for column in self._columns]
        if dialect.is_postgresql(connection):
            arrays = [bindparam(self._parameter(each), type_=ARRAY(element(each))) for each in self._columns]
            return func.unnest(*arrays).table_valued(*names, name=self._name).render_derived()
        each = func.json_each(bindparam(self._name, type_=Text)).table_valued("value", name=f"{self._name}_each")
        if len(names) == 1:
            return select(each.c.value.label(names[0])).subquery(self._name)
        fields = (func.json_extract(each.c.value, f"$[{at}]").label(name) for at, name in enumerate(names))
        return select(*fields).subquery(self._name)

    def parameters(self, connection: AnyConnection, rows: Sequence[tuple[Any, ...]]) -> Mapping[str, Any]:
        """What a statement with :meth:`table` in it is executed with. There must be a row."""
        if dialect.is_postgresql(connection):
            by_column = zip(*rows, strict=True)
            return {self._parameter(column): list(each) for column, each in zip(self._columns, by_column, strict=True)}
        return {self._name: json.dumps([row[0] for row in rows] if len(self._columns) == 1 else rows)}

    def _parameter(self, column: Column[Any]) -> str:
        return f"{self._name}_{column.name}"


def element(column: Column[Any]) -> TypeEngine[Any]:
    """What an array of its values holds. A cast to VARCHAR(40) cuts what is longer; as TEXT it is for the column to
    refuse.
    """
    return Text() if isinstance(column.type, String) else column.type
