"""Statements that are given rows: one text for any number of them, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select, bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store.database import Database
from mailmill.store.given_rows import GivenRows
from mailmill.store.statement import Statement
from mailmill.store.tables import message, setting

NAMED = GivenRows("named", setting.c.name, message.c.id)
NASTY = ['a "quoted" name', "comma, {brace}", "back\\slash", "NULL", "naïve ☃", ""]


def _named(connection: AsyncConnection) -> Select[Any]:
    given = NAMED.table(connection)
    return select(given.c.id, given.c.name, bindparam("mark")).order_by(given.c.id)


SELECT_NAMED = Statement(_named)
DELETE_NAMED = Statement(
    lambda connection: delete(setting).where(
        setting.c.name.in_(select(NAMED.table(connection).c.name)), setting.c.value == bindparam("of_value")
    )
)


@pytest.fixture
async def database(database_url: str, data_dir: Path) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, data_dir=data_dir)
    yield opened
    await opened.close()


async def test_rows_arrive_as_they_were_given(database: Database) -> None:
    for names in (NASTY, NASTY[:1], [f"name {n}" for n in range(500)]):
        rows = [(name, 2**53 + number) for number, name in enumerate(names)]
        async with database.read() as connection:
            found = await SELECT_NAMED.rows(connection, **NAMED.parameters(connection, rows), mark="m")
        assert [tuple(row) for row in found] == [(number, name, "m") for name, number in rows]


async def test_constants_stand_and_changed_rows_are_counted(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(insert(setting), [{"name": name, "value": "v"} for name in ("a", "b", "c")])
        given = NAMED.parameters(connection, [("a", 1), ("b", 2), ("missing", 3)])
        assert await DELETE_NAMED.count(connection, **given, of_value="other") == 0
        assert await DELETE_NAMED.count(connection, **given, of_value="v") == 2
        left = await connection.execute(select(setting.c.name).where(setting.c.value == "v"))
        assert left.scalars().all() == ["c"]


async def test_a_parameter_that_is_missing_is_refused(database: Database) -> None:
    async with database.write() as connection:
        with pytest.raises(KeyError, match="of_value"):
            await DELETE_NAMED.count(connection, **NAMED.parameters(connection, [("a", 1)]))
