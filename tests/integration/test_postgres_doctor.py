"""What `mailmill doctor` says of a PostgreSQL server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mailmill.cli.diagnosis import master_key
from mailmill.cli.diagnosis import postgres as diagnosis
from mailmill.settings import load_settings
from mailmill.store.database import Database
from mailmill.store.keys import KeyRing, open_key_ring
from servers.pgbouncer import PgBouncer
from servers.postgres import Postgres


async def looked_at(tmp_path: Path, **environ: str) -> list[tuple[str, str, str]]:
    config = tmp_path / "config.toml"
    await asyncio.to_thread(config.write_text, "")
    settings = await asyncio.to_thread(load_settings, config, environ)
    return [(check.level, check.text, check.remedy) for check in await diagnosis.look(settings)]


async def test_a_server_as_it_should_be(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    [(level, text, _)] = await looked_at(tmp_path, DATABASE_URL=postgres_url)
    assert level == "ok"
    assert text.startswith("PostgreSQL 1")
    assert "schema 0" in text
    empty = await asyncio.to_thread(postgres.new_database)
    [(level, text, _)] = await looked_at(tmp_path, DATABASE_URL=empty)
    assert (level, text.rpartition(", ")[2]) == ("ok", "empty so far")


async def test_what_is_wrong_with_it(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    [(level, text, remedy)] = await looked_at(tmp_path, DATABASE_URL=postgres_url.replace(postgres.password, "hunter2"))
    assert level == "fail"
    assert "hunter2" not in text + remedy
    assert "service.database_url" in remedy
    await postgres.fetch("UPDATE alembic_version SET version_num = '9999'", url=postgres_url)
    [(level, text, _)] = await looked_at(tmp_path, DATABASE_URL=postgres_url)
    assert (level, "newer" in text) == ("fail", True)


async def test_a_pooler_wants_a_listen_url(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    pooler = PgBouncer(postgres)
    await asyncio.to_thread(pooler.__enter__)
    try:
        pooled = pooler.url(postgres_url)
        [_, (level, _, remedy)] = await looked_at(tmp_path, DATABASE_URL=pooled)
        assert (level, "listen_url" in remedy) == ("warn", True)
        [(level, _, _)] = await looked_at(tmp_path, DATABASE_URL=pooled, MAILMILL_SERVICE__LISTEN_URL=postgres_url)
        assert level == "ok"
    finally:
        await asyncio.to_thread(pooler.__exit__, None, None, None)


@pytest.mark.parametrize("url", ["", "sqlite:///some.db"])
async def test_sqlite_is_looked_at_elsewhere(tmp_path: Path, url: str) -> None:
    assert await looked_at(tmp_path, **({"DATABASE_URL": url} if url else {})) == []


async def test_a_node_with_another_master_key_is_told_so(postgres_url: str, tmp_path: Path) -> None:
    right, wrong = KeyRing.generate(), KeyRing.generate()
    database = await Database.open(postgres_url, data_dir=tmp_path / "data")
    await open_key_ring(database, data_dir=tmp_path / "data", explicit=right)
    await database.close()
    for key, level in ((right, "ok"), (wrong, "fail")):
        environ = {"HOME": str(tmp_path), "DATABASE_URL": postgres_url, "MAILMILL_KEY": key}
        settings = await asyncio.to_thread(load_settings, None, environ)
        (check,) = await master_key.look(settings)
        assert check.level == level
        assert key not in check.text + check.remedy
