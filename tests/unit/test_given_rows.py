"""Statements that are given rows: one text for any number of them, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Select, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store.database import Database
from mailmill.store.given_rows import GivenRows
from mailmill.store.row_changes import RowChanges
from mailmill.store.statement import Statement
from mailmill.store.tables import message, setting

NAMED = GivenRows("named", setting.c.name, message.c.id)
NASTY = ['a "quoted" name', "comma, {brace}", "back\\slash", "NULL", "naïve ☃", ""]


def _named(connection: Connection) -> Select[Any]:
    given = NAMED.table(connection)
    return select(given.c.id, given.c.name, bindparam("mark")).order_by(given.c.id)


SELECT_NAMED = Statement(_named)
DELETE_NAMED = Statement(
    lambda connection: delete(setting).where(
        setting.c.name.in_(select(NAMED.table(connection).c.name)), setting.c.value == bindparam("of_value")
    )
)
CHANGE = RowChanges(
    lambda _connection, given: (
        update(setting)
        .where(setting.c.name == given.name, setting.c.value == given.before)
        .values(value=bindparam("to_value", type_=setting.c.value.type) + given.suffix)
    ),
    name=setting.c.name,
    before=setting.c.value,
    suffix=setting.c.value,
)


@pytest.fixture
async def database(database_url: str, data_dir: Path) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    yield opened
    await opened.close()


async def given_settings(connection: AsyncConnection, *names: str) -> None:
    await connection.execute(insert(setting), [{"name": name, "value": "v"} for name in names])


async def values(connection: AsyncConnection, *names: str) -> list[str]:
    found = await connection.execute(select(setting.c.value).where(setting.c.name.in_(names)).order_by(setting.c.name))
    return list(found.scalars())


async def test_rows_arrive_as_they_were_given(database: Database) -> None:
    def ask(connection: Connection, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        found = SELECT_NAMED.rows(connection, **NAMED.parameters(connection, rows), mark="m")
        return [tuple(row) for row in found]

    for names in (NASTY, NASTY[:1], [f"name {n}" for n in range(500)]):
        rows = [(name, 2**53 + number) for number, name in enumerate(names)]
        async with database.read() as connection:
            assert await connection.run_sync(ask, rows) == [(number, name, "m") for name, number in rows]


async def test_constants_stand_and_changed_rows_are_counted(database: Database) -> None:
    def delete_named(connection: Connection, of_value: str) -> int:
        given = NAMED.parameters(connection, [("a", 1), ("b", 2), ("missing", 3)])
        return DELETE_NAMED.count(connection, **given, of_value=of_value)

    async with database.write() as connection:
        await given_settings(connection, "a", "b", "c")
        assert await connection.run_sync(delete_named, "other") == 0
        assert await connection.run_sync(delete_named, "v") == 2
        assert await values(connection, "a", "b", "c") == ["v"]


async def test_a_parameter_that_is_missing_is_refused(database: Database) -> None:
    async with database.write() as connection:
        given = NAMED.parameters(connection, [("a", 1)])
        with pytest.raises(KeyError, match="of_value"):
            await connection.run_sync(lambda blocking: DELETE_NAMED.count(blocking, **given))
        with pytest.raises(KeyError, match="to_value"):
            await connection.run_sync(CHANGE, [("a", "v", "!")])


async def test_each_row_is_changed_by_its_own_values_and_those_that_were_there_are_told(database: Database) -> None:
    rows = [("a", "v", "1"), ("b", "other", "2"), ("missing", "v", "3"), ("c", "v", "4"), ("a", "never", "5")]
    async with database.write() as connection:
        await given_settings(connection, "a", "b", "c")
        assert await connection.run_sync(CHANGE, rows, to_value="new ") == [rows[0], rows[3]]
        assert await values(connection, "a", "b", "c") == ["new 1", "v", "new 4"]
        assert await connection.run_sync(CHANGE, [], to_value="new ") == []


async def test_odd_text_arrives_in_a_change(database: Database) -> None:
    async with database.write() as connection:
        await given_settings(connection, *NASTY)
        rows = [(name, "v", name) for name in NASTY]
        assert await connection.run_sync(CHANGE, rows, to_value="") == rows
        assert await values(connection, *NASTY) == sorted(NASTY)
