"""Stores of every schema there was, with data: what was written before an upgrade is there after it, and code that is a
version behind runs on the newer schema while the nodes are upgraded one by one.
"""

from __future__ import annotations

import ast
import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from store_mail import Store, arrival, new_store, open_database

from mailmill.errors import StoreError
from mailmill.model import Uid
from mailmill.store import accounts, event_log, message_queries, migrate, queue_view, requests, sender_counts
from mailmill.store.database import Database
from mailmill.store.request_rows import NewRequest, Place, RequestKind

SHA = bytes(range(32))

Rows = dict[str, dict[str, Any]]

# A row for each table, every column given.
FIRST: Rows = {
    "setting": {"name": "canary", "value": "sealed"},
    "worker": {"id": "host:1", "started_at": 1.5, "heartbeat_at": 2.5},
    "account": {
        "id": 4, "tenant_id": "default", "name": "me", "email": "me@example.org", "shard": 9, "backlog": "process",
        "state": "connected", "state_reason": "", "state_changed_at": 1.0, "announced": "", "paused": False,
        "credential_mark": "m", "added_at": 1.0, "initialized_at": 2.0,
    },
    "mailbox": {
        "id": 5, "account_id": 4, "path": "INBOX", "delimiter": "/", "special_use": None, "selectable": True,
        "uid_validity": 7, "uid_next": 3, "messages": 2, "highest_mod_seq": 12, "uncovered": "", "historical_below": 0,
        "flags_swept_at": 1.0, "synced_at": 2.0, "deleted_at": None,
    },
    "blob": {"sha256": SHA, "segment": "ab/0-0.seg", "offset_bytes": 3, "size_bytes": 10, "created_at": 1.0},
    "message": {
        "id": 1, "account_id": 4, "sha256": SHA, "email_id": "M1", "x_gm_msgid": None, "thread_id": None,
        "size_bytes": 10, "internal_date": 1.0, "date_header": 1.0, "subject": "one", "from_name": "A",
        "from_address": "a@b", "message_id_header": "<1@b>", "in_reply_to": "", "historical": False, "stored_at": 1.0,
        "processed_at": 2.0, "deleted_at": None,
    },
    "place": {
        "mailbox_id": 5, "uid_validity": 7, "uid": 1, "message_id": 1, "flags": "\\Seen", "mod_seq": 11, "seen_at": 1.0,
        "expunged_at": None,
    },
    "parked": {
        "mailbox_id": 5, "uid_validity": 7, "uid": 2, "reason": "too large", "attempts": 1, "retry_at": 9.0,
    },
    "work": {
        "message_id": 1, "processor": "summary", "version": 2, "account_id": 4, "shard": 9, "state": "failed",
        "priority": 0, "vt": 1.0, "run_at": 1.0, "attempt": 5, "crashes": 1, "fence": 6, "worker_id": "",
        "deadline_at": 0.0, "enqueued_at": 1.0, "last_error": "boom",
    },
    "result": {
        "message_id": 1, "processor": "threat", "version": 1, "value": '{"verdict":"clean"}', "attempts": 1,
        "seconds": 0.1, "finished_at": 2.0,
    },
    "event": {
        "id": 3, "tenant_id": "default", "event": "messageNew", "account_id": 4, "path": "INBOX", "special_use": None,
        "message_id": 1, "historical": False, "data": '{"uid":1}', "created_at": 1.0,
    },
    "delivery": {
        "id": 2, "tenant_id": "default", "destination": "hook", "event_id": 3, "state": "pending", "attempt": 1,
        "run_at": 1.0, "fence": 1, "worker_id": "", "deadline_at": 0.0, "last_status": 500, "last_error": "no",
        "created_at": 1.0, "finished_at": None,
    },
}  # fmt: skip
SECOND: Rows = {
    "request": {
        "id": 8, "tenant_id": "default", "account_id": 4, "kind": "flags", "message_id": 1, "path": "INBOX",
        "uid_validity": 7, "uid": 1, "data": '{"add": ["todo"], "remove": []}', "state": "pending", "step": "",
        "target_path": None, "target_uid_validity": None, "target_uid_next": None, "target_uid": None, "attempts": 0,
        "run_at": 1.0, "error_code": "", "last_error": "", "error_hint": "", "note": "", "idempotency_key": "k",
        "created_at": 1.0, "finished_at": None,
    },
}  # fmt: skip
THIRD: Rows = {
    "account": FIRST["account"] | {
        "keep_raw_seconds": None, "keep_results_seconds": 86400.0, "keep_deleted_seconds": None, "removing_at": None,
    },
    "message": FIRST["message"] | {"raw_expired_at": None},
    "work": FIRST["work"] | {"errors": '[{"at":1.0,"kind":"attempt","error":"boom"}]'},
    "result": FIRST["result"] | {"errors": "[]"},
    "node": {
        "id": "host:1:x", "host": "host", "roles": "sync process", "version": "0.1", "started_at": 1.0,
        "heartbeat_at": 2.0, "stopping": False,
    },
    "processor": {"name": "category", "paused_at": 3.0},
    "reprocess": {
        "id": 1, "processor": "summary", "version": 2, "asked": "{}", "state": "done", "position": 1, "last_id": 1,
        "busy_from": None, "total": 1, "queued": 1, "created_at": 1.0, "finished_at": 2.0,
    },
    "errand": {"id": 1, "account_id": 4, "kind": "check", "asked_at": 1.0, "answer": "{}"},
}  # fmt: skip
FOURTH: Rows = {"lane": {"processor": "summary", "priority": 0, "account_id": 4, "last_message_id": 1}}
FIFTH: Rows = {
    "message": THIRD["message"] | {"recipients": "me@example.org", "answers": None},
    "sender": {
        "account_id": 4, "address_key": "b@a", "name": "a", "received": 1, "received_since": 1.0, "sent": 0,
        "sent_since": None,
    },
}  # fmt: skip
# By revision: the rows of its tables, with the columns of its time.
HELD: dict[str, Rows] = {
    "0001": FIRST,
    "0002": FIRST | SECOND,
    "0003": FIRST | SECOND | THIRD,
    "0004": FIRST | SECOND | THIRD | FOURTH,
    "0005": FIRST | SECOND | THIRD | FOURTH | FIFTH,
}
# What migrations fill, or the service at its start.
FILLED = {"tenant", "id_block", "shard"}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, data_dir: Path) -> str:
    """A database of each make without any schema."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}"
    url: str = request.getfixturevalue("postgres").new_database()
    return url


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection]:
    engine = await asyncio.to_thread(create_async_engine, url)  # looks for the file
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def insert(connection: AsyncConnection, rows: Rows) -> None:
    for table, values in rows.items():
        names = ", ".join(f'"{name}"' for name in values)
        given = ", ".join(f":{name}" for name in values)
        await connection.execute(text(f'INSERT INTO "{table}" ({names}) VALUES ({given})'), values)
    if connection.dialect.name == "postgresql":
        for table in ("account", "mailbox", "message", "event", "delivery", "request"):
            if "id" in rows.get(table, {}):
                await connection.execute(
                    text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {rows[table]['id']})")
                )


async def held(connection: AsyncConnection, rows: Rows) -> Rows:
    """Of each table of ``rows`` its one row, with the columns given there."""
    found: Rows = {}
    for table, values in rows.items():
        where = " WHERE name = 'canary'" if table == "setting" else ""
        names = ", ".join(f'"{name}"' for name in values)
        [row] = await connection.execute(text(f'SELECT {names} FROM "{table}"{where}'))
        found[table] = dict(zip(values, row, strict=True))
        for name, value in values.items():
            if isinstance(value, bool):
                found[table][name] = bool(found[table][name])
    return found


@pytest.mark.parametrize("revision", sorted(HELD))
async def test_a_store_with_data_is_brought_to_head(empty_url: str, data_dir: Path, revision: str) -> None:
    rows = HELD[revision]
    async with connected(empty_url) as connection:
        await connection.run_sync(migrate.upgrade, revision)
        assert set(await connection.run_sync(tables_of)) - FILLED == {*rows}
        await insert(connection, rows)
        await connection.execute(text("UPDATE id_block SET next_id = 2"))
    database = await Database.open(empty_url, data_dir=data_dir)
    try:
        async with database.read() as connection:
            assert await connection.run_sync(migrate.revision_of) == migrate.HEAD
            assert await held(connection, rows) == rows
        await use(database)
        async with database.write() as connection:
            assert await sender_counts.count_older(connection) == (revision < "0005")
            known = await connection.execute(text("SELECT address_key, name, received FROM sender"))
            assert [tuple(row) for row in known] == [("b@a", "a", 1)]
            assert await sender_counts.count_older(connection) == 0
    finally:
        await database.close()


async def use(database: Database) -> None:
    """The program works on what it found: it reads every table through its own doors, and goes on writing."""
    async with database.read() as connection:
        account = await accounts.get_account(connection, "me")
        message = await message_queries.get_message(connection, 1)
        assert (message.subject, message.raw_expired_at, message.blob.offset_bytes) == ("one", None, 3)
        assert [each.value for each in await message_queries.results_of(connection, 1)] == [{"verdict": "clean"}]
        assert [each.state for each in await queue_view.list_work(connection, state=None, processor=None, limit=9)]
    store = Store(database, account)
    outcome = await store.apply([arrival(1, "one", r"\Seen"), arrival(3, "three")], expunged=[2])
    assert outcome.new == 2  # the first UID stands for another content now
    asked = NewRequest("default", account.id, RequestKind.FLAGS, 1, Place("INBOX", 7, Uid(1)), add=frozenset({"x"}))
    async with database.write() as connection:
        await requests.add(connection, asked, 5.0)
    async with database.read() as connection:
        events = await event_log.read_after(connection, 0, 100)
    assert events[0].message_id == 1


@pytest.mark.parametrize("revision", sorted(HELD))
async def test_code_of_a_version_before_runs_on_the_new_schema(empty_url: str, revision: str) -> None:
    """Its INSERTs name the columns of its time, its UPDATEs and SELECTs too; what came since has defaults."""
    rows = HELD[revision]
    async with connected(empty_url) as connection:
        await connection.run_sync(migrate.upgrade)
        await insert(connection, rows)
        for table, values in rows.items():
            given = ", ".join(f'"{name}" = :{name}' for name in values)
            await connection.execute(text(f'UPDATE "{table}" SET {given}'), values) if table != "setting" else None
        assert await held(connection, rows) == rows
        [status] = (await connection.execute(text("SELECT processing_status FROM email_status"))).scalars()
        assert status == "failed"
        if "errors" not in rows["work"]:
            assert (await connection.execute(text("SELECT errors FROM work"))).scalar_one() == "[]"


async def test_every_table_and_column_of_the_past_has_a_value_here(empty_url: str) -> None:
    """So a column that a later change of an old migration adds cannot slip through the two tests above."""
    for revision, rows in HELD.items():
        async with connected(empty_url) as connection:
            await connection.run_sync(migrate.upgrade, revision)
            for table in await connection.run_sync(tables_of):
                if table in rows:
                    # An event has its number from the sequencer.
                    assert {*await connection.run_sync(columns_of, table)} - {"seq"} == set(rows[table]), table


async def test_every_revision_but_the_newest_is_held() -> None:
    assert sorted(HELD) == sorted(path.name[:4] for path in MIGRATIONS if path.name[:4] < migrate.HEAD)


async def test_where_accounts_stand_in_line_is_taken_from_what_waits(empty_url: str) -> None:
    """Fair order goes on after an upgrade: from 0004 on the last of each account's rows in line is kept by itself."""
    rows = HELD["0003"]
    async with connected(empty_url) as connection:
        await connection.run_sync(migrate.upgrade, "0003")
        await insert(connection, rows)
        for number, (processor, state, vt) in enumerate(
            [
                ("summary", "pending", 5.0),
                ("summary", "throttled", 7.0),
                ("summary", "waiting", 9.0),
                ("a", "pending", 1.0),
            ]
        ):
            sha256 = bytes([number]) * 32
            await insert(connection, {"message": rows["message"] | {"id": 10 + number, "sha256": sha256}})
            other = {"message_id": 10 + number, "processor": processor, "state": state, "vt": vt}
            await insert(connection, {"work": rows["work"] | other})
        await connection.run_sync(migrate.upgrade)
        lanes = await connection.execute(text("SELECT processor, priority, account_id, last_message_id FROM lane"))
        assert sorted(tuple(row) for row in lanes) == [("a", 0, 4, 13), ("summary", 0, 4, 11)]


def tables_of(connection: Connection) -> list[str]:
    return [name for name in inspect(connection).get_table_names() if name != "alembic_version"]


def columns_of(connection: Connection, table: str) -> list[str]:
    return [column["name"] for column in inspect(connection).get_columns(table)]


async def test_code_of_a_version_before_starts_on_the_new_schema_where_that_says_so(
    database_url: str, data_dir: Path
) -> None:
    """A node that is not upgraded yet may be restarted, and an upgrade may be taken back."""
    async with open_database(data_dir, database_url) as database, database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9998'"))
        await connection.execute(text("DELETE FROM setting WHERE name = :name"), {"name": migrate.OLDEST_CODE})
    with pytest.raises(StoreError, match="cannot be brought to this version"):
        async with open_database(data_dir, database_url):
            pass
    async with connected(database_url) as connection:
        values = {"name": migrate.OLDEST_CODE, "value": migrate.HEAD}
        await connection.execute(text("INSERT INTO setting (name, value) VALUES (:name, :value)"), values)
    async with open_database(data_dir, database_url) as database:
        assert await new_store(database)
    async with connected(database_url) as connection:
        await connection.execute(text("UPDATE setting SET value = '9998' WHERE name = :name"), {"name": values["name"]})
    with pytest.raises(StoreError):
        async with open_database(data_dir, database_url):
            pass


# -- the law ----------------------------------------------------------------------------------------------------------

REMOVING = {
    "drop_column", "drop_table", "drop_constraint", "drop_table_comment", "alter_column", "rename_table",
    "batch_alter_table", "create_check_constraint", "create_unique_constraint", "create_foreign_key",
}  # fmt: skip

_ONE_PROCESS = "on SQLite, where no code of another version has the file open"
ALLOWED: dict[tuple[str, str], str] = {
    ("0004_lean_queue.py", "op.execute(f'DROP INDEX {index}')"): "an index: code without it is right, and slower",
    ("0004_lean_queue.py", "op.execute('DROP VIEW email_status')"): _ONE_PROCESS,
    ("0004_lean_queue.py", "op.execute(f'ALTER TABLE {table} RENAME TO old_{table}')"): _ONE_PROCESS,
    ("0004_lean_queue.py", "op.execute(f'DROP TABLE old_{table}')"): _ONE_PROCESS,
    ("0006_unmarked_messages.py", "op.execute('DROP VIEW email_status')"): "made anew in the same transaction",
    (
        "0006_unmarked_messages.py",
        "op.drop_constraint('fk_result_message_id', 'result', type_='foreignkey')",
    ): "what code before relies on, that results go with their message, a trigger does",
}
"""(file, call) → why it may: of what code uses, the release from which on none did; two releases after that it may go.
"""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


def offences(path: Path) -> list[str]:
    """What in a migration would break code of the version before."""
    found = []
    for name, call in calls(path):
        line = f"{path.name}:{call.lineno}"
        written = ast.unparse(call)
        if name in REMOVING:
            found.append(f"{line} {written}")
        if name == "execute" and any(
            word in written.upper() for word in ("DROP ", "RENAME ", "SET NOT NULL", "ALTER COLUMN")
        ):
            found.append(f"{line} {written}")
        if name == "add_column" and "nullable=True" not in written and "server_default=" not in written:
            found.append(f"{line} a column that old INSERTs leave out: {written}")
    return [each for each in found if (path.name, each.split(" ", 1)[1]) not in ALLOWED]


MIGRATIONS = sorted((migrate.MIGRATIONS / "versions").glob("*.py"))


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.stem)
def test_migrations_only_add(path: Path) -> None:
    assert offences(path) == []


@pytest.mark.parametrize(
    "body",
    [
        'op.drop_column("message", "subject")',
        'op.alter_column("message", "subject", nullable=True)',
        'op.execute("ALTER TABLE message RENAME COLUMN subject TO title")',
        'op.execute("DROP TABLE parked")',
        'op.add_column("message", sa.Column("size", sa.Integer(), nullable=False))',
        'with op.batch_alter_table("message") as batch:\n    batch.drop_column("subject")',
    ],
)
def test_a_migration_that_takes_away_is_found(tmp_path: Path, body: str) -> None:
    path = tmp_path / "0099_removal.py"
    path.write_text(body, encoding="utf-8")
    assert offences(path)


# -- apart ------------------------------------------------------------------------------------------------------------


def test_a_child_brings_the_file_to_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mailmill.db"
    (tmp_path / "alembic.py").write_text("raise SystemExit('not the module that was meant')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(migrate, "upgrade", lambda *_: pytest.fail("it was done here"))
    migrate.migrate_sqlite(path, apart=True)
    assert migrate._revision(path) == migrate.HEAD


def test_where_no_child_can_do_it_it_is_done_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mailmill.db"
    monkeypatch.setattr(migrate.sys, "executable", "/bin/false")
    migrate.migrate_sqlite(path, apart=True)
    assert migrate._revision(path) == migrate.HEAD


def test_what_a_child_cannot_do_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mailmill.db"
    migrate.migrate_sqlite(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("DELETE FROM setting WHERE name = 'schema_oldest_code'")
    with pytest.raises(StoreError, match="cannot be brought to this version"):
        migrate.migrate_sqlite(path, apart=True)
