"""Where the store of a test keeps its rows: in its folder (SQLite), or in a database of PostgreSQL that belongs to it.

Tests know a store by its folder. A file in there names the database, where it is not the one in the folder; so whatever
is given the folder finds the same store: a second process, a copy for another life, a comparison.

What reads, changes and copies a store here is plain SQL on a connection of its own: no code under test vouches for
itself, and what a store holds in memory is not told. It blocks, and wants a thread in which no loop runs.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from mailmill.store.blobs import ORPHAN_SECONDS, BlobStore
from mailmill.store.database import Database

_NAMED_IN = "database-of-this-test"
_copies = itertools.count(1)


class Rows(list[tuple[Any, ...]]):
    """What a statement answered."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self

    def fetchone(self) -> tuple[Any, ...]:
        return self[0]


class Snapshot:
    """What is committed at one moment. ``execute`` takes SQL that both makes understand."""

    def __init__(self, execute: Callable[[str], Rows]) -> None:
        self.execute = execute


def put_into(folder: Path, url: str) -> None:
    """From now on the rows of the store in ``folder`` are in the database at ``url``."""
    (folder / _NAMED_IN).write_text(url)


async def open_database(folder: Path) -> Database:
    """The store in ``folder``, as the code under test opens it."""
    return await Database.open(await asyncio.to_thread(database_url, folder), data_dir=folder)


async def collected(blobs: BlobStore, named: Collection[str], older_than_seconds: float = ORPHAN_SECONDS) -> int:
    """How many segments go where the database names these."""
    return await blobs.collect_orphans(named, await blobs.orphan_limit(older_than_seconds))


def database_url(folder: Path) -> str:
    """For ``Database.open(…, data_dir=folder)``."""
    named = folder / _NAMED_IN
    return named.read_text() if named.exists() else f"sqlite+aiosqlite:///{folder / 'mailmill.db'}"


@contextmanager
def opened(folder: Path) -> Iterator[Snapshot]:
    """For reading only, whether a service runs on it or not."""
    url = database_url(folder)
    if _is_embedded(url):
        with closing(sqlite3.connect(f"file:{folder}/mailmill.db?mode=ro", uri=True, timeout=10)) as database:
            database.execute("BEGIN")
            yield Snapshot(lambda sql: Rows(database.execute(sql)))
        return
    with asyncio.Runner() as runner:
        connection = runner.run(_connect(url))
        try:
            runner.run(connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            yield Snapshot(lambda sql: Rows(tuple(row) for row in runner.run(connection.fetch(sql))))
        finally:
            runner.run(connection.close())


def change(folder: Path, *statements: str) -> None:
    """Carry out ``statements`` in one transaction; one that changes nothing fails."""
    url = database_url(folder)
    if _is_embedded(url):
        with closing(sqlite3.connect(folder / "mailmill.db", timeout=20)) as database, database:
            database.execute("PRAGMA foreign_keys = ON")
            for statement in statements:
                assert database.execute(statement).rowcount > 0, statement
        return

    async def run(connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            for statement in statements:
                assert not (await connection.execute(statement)).endswith(" 0"), statement

    _on_postgresql(url, run)


def copy(template: Path, folder: Path) -> None:
    """All that the store in ``template`` has, in ``folder``, which is made; nobody may have ``template`` open."""
    shutil.copytree(template, folder)
    url = database_url(template)
    if not _is_embedded(url):
        name = _name(url)
        new = f"{name}_copy{next(_copies)}"
        _on_postgresql(_with(url, "postgres"), f"CREATE DATABASE {new} TEMPLATE {name} STRATEGY file_copy")
        put_into(folder, _with(url, new))


def remove(folder: Path) -> None:
    """The store is gone; nobody may have it open."""
    url = database_url(folder)
    if not _is_embedded(url):
        _on_postgresql(_with(url, "postgres"), f"DROP DATABASE {_name(url)}")
    shutil.rmtree(folder)


def _is_embedded(url: str) -> bool:
    return url.startswith("sqlite")


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def _with(url: str, name: str) -> str:
    return url.rpartition("/")[0] + "/" + name


async def _connect(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(url.replace("+asyncpg", ""), timeout=10)


def _on_postgresql(url: str, what: str | Callable[[asyncpg.Connection], Any]) -> None:
    async def run() -> None:
        connection = await _connect(url)
        try:
            await (connection.execute(what) if isinstance(what, str) else what(connection))
        finally:
            await connection.close()

    asyncio.run(run())
