"""Statements of the queue's hot path: Core says what they mean, once; the driver gets their text and plain values.

What Core does for each execution (building the expression, its cache key, its parameters, converting values either way)
costs more than the database takes for a batch. What is left out is the conversion, so values are what drivers take,
and rows hold what they give: on SQLite a truth value is 0 or 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import CursorResult, Delete, Select, Update
    from sqlalchemy.ext.asyncio import AsyncConnection


class Statement:
    """A statement that is always the same; what differs between executions are its named parameters."""

    def __init__(self, build: Callable[[AsyncConnection], Select[Any] | Update | Delete]) -> None:
        """``build`` makes it for the database of a connection; it is asked once for each make."""
        self._build: Final = build
        self._compiled: dict[str, tuple[str, tuple[str, ...], Mapping[str, Any]]] = {}

    async def rows(self, connection: AsyncConnection, **parameters: Any) -> Sequence[Any]:
        """Execute it; all rows of its answer. Raises KeyError where a parameter is missing."""
        # Fetched at once: to iterate over the answer is a call down to the driver for each row.
        return (await self._execute(connection, parameters)).all()

    async def count(self, connection: AsyncConnection, **parameters: Any) -> int:
        """Execute it; how many rows it changed. Raises KeyError where a parameter is missing."""
        return (await self._execute(connection, parameters)).rowcount

    async def _execute(self, connection: AsyncConnection, parameters: Mapping[str, Any]) -> CursorResult[Any]:
        known = self._compiled.get(connection.dialect.name)
        if known is None:
            known = self._compiled[connection.dialect.name] = self._compile(connection)
        text, order, constants = known
        values = {**constants, **parameters}
        return await connection.exec_driver_sql(text, tuple([values[name] for name in order]))

    def _compile(self, connection: AsyncConnection) -> tuple[str, tuple[str, ...], Mapping[str, Any]]:
        compiled: Any = self._build(connection).compile(dialect=connection.dialect)
        required = {bind.key for bind in compiled.binds.values() if bind.required}
        constants = {name: value for name, value in compiled.params.items() if name not in required}
        return str(compiled), tuple(compiled.positiontup or ()), constants
