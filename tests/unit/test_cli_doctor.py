"""``mailmill doctor``: each look on its own, and the whole without changing anything. On SQLite; what it says of
PostgreSQL is in `test_postgres_doctor`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_service import CannedUseCases, running_service

from mailmill.cli.diagnosis import findings, machine, master_key, network, storage
from mailmill.cli.main import main
from mailmill.settings import AccountSettings, DestinationSettings, load_settings
from mailmill.store.database import Database
from mailmill.store.keys import KeyRing, open_key_ring
from mailmill.store.migrate import HEAD


def account(port: int, **imap: Any) -> AccountSettings:
    return AccountSettings.model_validate(
        {"username": "u", "password": "p", "imap": {"host": "127.0.0.1", "port": port, "tls": "none", **imap}}
    )


def database(path: Path, revision: str | None) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        if revision:
            connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        connection.commit()


def everything_in(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(each): (each.stat().st_mtime_ns, each.stat().st_mode) for each in [folder, *folder.rglob("*")]}


def test_machine() -> None:
    assert [check.level for check in machine.look() if check.subject in ("Python", "Packages", "Clock")] == ["ok"] * 3
    assert machine.python_version((3, 10)).level == "fail"
    assert machine.clock(0.0).level == "fail"


def test_data_folder(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.data_folder(data_dir)[0].level == "ok"
    assert "made at the first start" in storage.data_folder(data_dir / "a" / "b")[0].text
    data_dir.chmod(0o755)
    assert storage.data_folder(data_dir)[0] == findings.warn(
        "Data folder", f"{data_dir} is open to other users", f"chmod 700 {data_dir}"
    )
    (data_dir / "file").touch()
    assert storage.data_folder(data_dir / "file")[0].level == "fail"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "not writable" in storage.data_folder(data_dir)[0].text
    assert "cannot be made" in storage.data_folder(data_dir / "a")[0].text


def test_database(data_dir: Path) -> None:
    path = data_dir / "mailmill.db"
    assert "made at the first start" in storage.sqlite_database(path, data_dir).text
    database(path, HEAD)
    before = everything_in(data_dir)
    assert storage.sqlite_database(path, data_dir).level == "ok"
    assert everything_in(data_dir) == before
    path.unlink()
    database(path, "9999")
    assert "newer than" in storage.sqlite_database(path, data_dir).text
    path.write_bytes(b"no database at all" * 100)
    assert storage.sqlite_database(path, data_dir).level == "fail"
    assert "folder" in storage.sqlite_database(data_dir / "none" / "x.db", data_dir).text


def test_a_database_in_use_is_read_with_its_log(data_dir: Path) -> None:
    path = data_dir / "mailmill.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE alembic_version (version_num TEXT)")
        writer.execute("INSERT INTO alembic_version VALUES (?)", (HEAD,))
        writer.commit()
        assert f"schema {HEAD}" in storage.sqlite_database(path, data_dir).text


def test_master_key(data_dir: Path) -> None:
    def look(**environ: str) -> findings.Check:
        return master_key.place(load_settings(None, {"MAILMILL_SERVICE__DATA_DIR": str(data_dir), **environ}))

    assert "made at the first start" in look().text
    assert look(MAILMILL_KEY="k").text == "from MAILMILL_KEY"
    assert look(MAILMILL_SERVICE__KEY_FILE=str(data_dir / "key")).code == "masterKey"
    (data_dir / "mailmill.db").touch()
    assert look().level == "warn"
    (data_dir / "master.key").touch(mode=0o600)
    assert look().level == "ok"
    (data_dir / "master.key").chmod(0o644)
    assert look().remedy == f"chmod 600 {data_dir / 'master.key'}"


def test_the_master_key_is_the_one_that_the_store_was_written_with(data_dir: Path) -> None:
    settings = load_settings(None, {"MAILMILL_SERVICE__DATA_DIR": str(data_dir)})

    async def make_store() -> None:
        opened = await Database.open(f"sqlite+aiosqlite:///{data_dir}/mailmill.db", data_dir=data_dir)
        await open_key_ring(opened, data_dir=data_dir)
        await opened.close()

    def look() -> findings.Check:
        (check,) = asyncio.run(master_key.look(settings))
        return check

    file = data_dir / "master.key"
    asyncio.run(make_store())
    right, before = file.read_text(), everything_in(data_dir)
    assert look().level == "ok"
    assert everything_in(data_dir) == before
    file.write_text(KeyRing.generate())
    wrong = look()
    assert (wrong.level, wrong.code) == ("fail", "masterKey")
    assert "not the one this store was written with" in wrong.text
    file.unlink()
    assert (look().level, look().code) == ("fail", "masterKey")
    assert not file.exists()
    file.write_text(right)
    (data_dir / "mailmill.db").write_bytes(b"no database at all" * 100)
    assert look().level != "fail", "what is wrong with the database is said of the database"


async def test_a_server_that_is_not_there() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    (check,) = await network.account_checks("work", account(port), {}, None)
    assert (check.level, check.code) == ("fail", "connect") and f"127.0.0.1:{port}" in check.text


async def test_a_name_that_is_not_found_names_both_places_where_it_is_set() -> None:
    host = "no-such-host.invalid"
    unknown = AccountSettings.model_validate({"username": "me@example.org", "password": "x", "imap": {"host": host}})
    (check,) = await network.account_checks("default", unknown, {}, None)
    assert (check.level, check.code) == ("fail", "connect") and host in check.text
    assert "accounts.*.imap.host or IMAP_SERVER" in check.remedy


async def test_a_password_that_is_missing_is_told_before_its_server_is_found() -> None:
    unset = {"username": "u", "password_env": "NO_SUCH_VARIABLE", "imap": {"host": "no-such-host.invalid"}}
    reached, password = await network.account_checks("work", AccountSettings.model_validate(unset), {}, None)
    assert (reached.level, reached.code, password.level) == ("fail", "connect", "fail")
    assert "NO_SUCH_VARIABLE" in password.text


async def test_a_certificate_nobody_trusts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any, ssl: ssl.SSLContext | None = None, **__: Any) -> tuple[Any, asyncio.StreamWriter]:
        if ssl is not None:
            raise untrusted()
        return await connect("127.0.0.1", port)

    connect = asyncio.open_connection
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(asyncio, "open_connection", refused)
    reached, checked = await network.account_checks("work", account(port, tls="implicit"), {}, None)
    server.close()
    assert reached.level == "ok"
    assert (checked.level, checked.code) == ("fail", "certificate") and "imap.ca_file" in checked.remedy


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("bad")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"url": "https://example.org/secret-path"}, "ok"),
        ({"url": "http://example.org/x"}, "warn"),
        ({"url": "http://localhost/x"}, "fail"),
        ({"url": "http://localhost/x", "allow_private": True}, "ok"),
        ({"url": "https://example.org", "secret": None, "secret_env": "NONE"}, "fail"),
    ],
)
def test_destinations(changes: dict[str, Any], level: str) -> None:
    given = {"kind": "webhook", "secret": "whsec_" + "A" * 32, **changes}
    destination = DestinationSettings.model_validate(
        {name: value for name, value in given.items() if value is not None}
    )
    check = network.destination_check("hook", destination, {})
    assert check.level == level and "secret-path" not in check.text


def test_exit_code_is_that_of_the_worst() -> None:
    ok, warn = findings.ok("a", "b"), findings.warn("a", "b")
    assert findings.exit_code_of([ok, warn]) == 0
    assert findings.exit_code_of([ok, findings.fail("a", "b", code="authentication"), findings.fail("a", "b")]) == 4
    assert findings.exit_code_of([findings.fail("a", "b", code="connect")]) == 5


@pytest.fixture
def configured(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MAILMILL_SERVICE__DATA_DIR", str(data_dir))
    yield data_dir


def test_the_whole_changes_nothing(configured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything_in(configured)
    assert main(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["worst"] == "warn"  # no account
    assert {check["subject"] for check in answer["checks"]} >= {"Python", "Data folder", "Database", "Accounts"}
    assert everything_in(configured) == before
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "✓ Python" in out and "→ set IMAP_SERVER" in out


def test_processors_of_the_users_own(
    configured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[processors]\nimport = ["doctored_shop:invoice"]\n')
    config.chmod(0o600)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["doctor", "--config", str(config)]) == 2
    out = capsys.readouterr().out
    assert "✗ Processors" in out and "'doctored_shop:invoice' cannot be imported" in out and "→ the module must" in out
    with running_service(configured / "mailmill.sock", CannedUseCases()):
        assert main(["doctor", "--config", str(config)]) == 0, "the service has them"
    capsys.readouterr()
    (tmp_path / "doctored_shop.py").write_text(
        "from mailmill import processor\n\n\n@processor('invoice', version=3)\ndef invoice(message, context): ...\n"
    )
    assert main(["doctor", "--config", str(config)]) == 0
    assert "invoice 3" in capsys.readouterr().out


def test_a_running_service_is_asked_for_the_login(
    configured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def reached(subject: str, _: Any) -> findings.Check:
        return findings.ok(subject, "answers")

    monkeypatch.setattr(network, "_reach", reached)
    for name, value in {"HOST": "localhost", "TLS": "none"}.items():
        monkeypatch.setenv(f"MAILMILL_ACCOUNTS__WORK__IMAP__{name}", value)
    monkeypatch.setenv("MAILMILL_ACCOUNTS__WORK__USERNAME", "u")
    monkeypatch.setenv("MAILMILL_ACCOUNTS__WORK__PASSWORD_ENV", "NOT_SET_HERE")
    use_cases = CannedUseCases()
    with running_service(configured / "mailmill.sock", use_cases):
        assert main(["doctor"]) == 0
        assert "login accepted, 3 mailboxes, qresync sync" in capsys.readouterr().out
        use_cases.check_error = {"code": "authentication", "message": "refused", "hint": "use an app password"}
        assert main(["doctor"]) == 4
        assert "→ use an app password" in capsys.readouterr().out


def test_a_certificates_last_days_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    soon = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(time.time() + 5 * 86_400))
    assert network.certificate_check("a", {"notAfter": soon}, time.time()).level == "warn"
    later = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(time.time() + 50 * 86_400))
    assert network.certificate_check("a", {"notAfter": later}, time.time()).level == "ok"
