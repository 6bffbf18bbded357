"""Statements that are given rows: one text for any number of them, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Select, and_, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store.bulk_insert import PIECE_ROWS, BulkInsert
from mailmill.store.database import Database
from mailmill.store.given_rows import GivenRows
from mailmill.store.row_changes import RowChanges, RowDeletions
from mailmill.store.statement import Statement
from mailmill.store.tables import message, setting

NAMED = GivenRows("named", setting.c.name, message.c.id)
NASTY = ['a "quoted" name', "comma, {brace}", "back\\slash", "NULL", "naïve ☃", ""]


def _named(connection: Connection) -> Select[Any]:
    given = NAMED.table(connection)
    return select(given.c.id, given.c.name, bindparam("mark")).order_by(given.c.id)


SELECT_NAMED = Statement(_named)
DELETE_NAMED = Statement(
    lambda connection: (
        delete(setting)
        .where(setting.c.name.in_(select(NAMED.table(connection).c.name)), setting.c.value == bindparam("of_value"))
        .returning(setting.c.name)
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
DELETE = RowDeletions(
    setting,
    lambda given: and_(setting.c.name == given.name, setting.c.value == bindparam("of_value")),
    name=setting.c.name,
)
INSERT = BulkInsert[tuple[str, str]](setting, ("name", "value"), replace=True)
NUMBERS_OF_ROWS = [1, PIECE_ROWS - 1, PIECE_ROWS, PIECE_ROWS + 1, 3 * PIECE_ROWS]


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


async def test_constants_stand_and_changed_rows_are_told(database: Database) -> None:
    def delete_named(connection: Connection, of_value: str) -> list[str]:
        given = NAMED.parameters(connection, [("a", 1), ("b", 2), ("missing", 3)])
        return sorted(row[0] for row in DELETE_NAMED.rows(connection, **given, of_value=of_value))

    async with database.write() as connection:
        await given_settings(connection, "a", "b", "c")
        assert await connection.run_sync(delete_named, "other") == []
        assert await connection.run_sync(delete_named, "v") == ["a", "b"]
        assert await values(connection, "a", "b", "c") == ["v"]


async def test_a_parameter_that_is_missing_is_refused(database: Database) -> None:
    async with database.write() as connection:
        given = NAMED.parameters(connection, [("a", 1)])
        with pytest.raises(KeyError, match="of_value"):
            await connection.run_sync(lambda blocking: DELETE_NAMED.rows(blocking, **given))
        with pytest.raises(KeyError, match="to_value"):
            await connection.run_sync(CHANGE, [("a", "v", "!")])
        for count in NUMBERS_OF_ROWS:
            with pytest.raises(KeyError, match="of_value"):
                await connection.run_sync(DELETE, [(str(each),) for each in range(count)])


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


@pytest.mark.parametrize("count", NUMBERS_OF_ROWS)
async def test_rows_are_deleted_by_their_keys_and_those_that_were_there_are_told(
    database: Database, count: int
) -> None:
    rows = [(f"name {each}",) for each in range(count)]
    async with database.write() as connection:
        await given_settings(connection, *(name for (name,) in rows), "another")
        assert await connection.run_sync(DELETE, rows, of_value="other") == []
        assert await connection.run_sync(DELETE, rows, of_value="v") == rows
        assert (await connection.scalars(select(setting.c.name).where(setting.c.value == "v"))).all() == ["another"]
        assert await connection.run_sync(DELETE, rows, of_value="v") == []


@pytest.mark.parametrize("missing", [0, PIECE_ROWS - 1, PIECE_ROWS, 2 * PIECE_ROWS + 1])
async def test_one_row_that_is_not_there_keeps_no_other_from_being_deleted(database: Database, missing: int) -> None:
    rows = [(f"name {each}",) for each in range(2 * PIECE_ROWS + 2)]
    there = [row for at, row in enumerate(rows) if at != missing]
    async with database.write() as connection:
        await given_settings(connection, *(name for (name,) in there))
        assert await connection.run_sync(DELETE, rows, of_value="v") == there
        assert await values(connection, *(name for (name,) in rows)) == []


@pytest.mark.parametrize("count", NUMBERS_OF_ROWS)
async def test_any_number_of_rows_is_inserted_and_those_that_were_there_take_the_new_values(
    database: Database, count: int
) -> None:
    rows = [(f"name {each:03}", f"value {each:03}") for each in range(count)]
    async with database.write() as connection:
        await given_settings(connection, rows[-1][0])
        await INSERT(connection, rows)
        assert await values(connection, *(name for name, _ in rows)) == [value for _, value in rows]
