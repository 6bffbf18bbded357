"""Which configuration decides about an account, where nodes and commands have different ones; and who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from mailmill.app import account_tasks
from mailmill.app.application import Application, open_application
from mailmill.app.supervisor import engines
from mailmill.app.use_cases import UseCases
from mailmill.errors import MailmillError
from mailmill.model import AccountState
from mailmill.settings import Settings, load_settings
from mailmill.store import accounts, dialect
from mailmill.store.accounts import AccountRow
from mailmill.store.tables import mailbox
from mailmill.sync.account_sync import AccountSync
from servers.ports import free_ports

Configure = Callable[..., Settings]

PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def processors_are_imported_at_the_start(blockbuster: BlockBuster) -> None:
    """Before anything runs, imports and their metadata may be read on the loop."""
    for function in blockbuster.functions.values():
        function.can_block_in("mailmill/app/wiring.py", {"processors"})


@pytest.fixture
def configured(tmp_path: Path, database_url: str) -> Configure:
    """``configured(*accounts, node=…)``: the settings of a node, or of a command beside it. Nobody answers at the
    accounts' server.
    """
    [nobody] = free_ports(1)

    def load(*names: str, node: str = "node", roles: str = '["sync"]', password: str = "x") -> Settings:
        listed = "".join(
            f'[accounts.{name}]\nusername = "u"\npassword = "{password}"\n'
            f'imap = {{ host = "127.0.0.1", port = {nobody}, tls = "none" }}\n'
            for name in names
        )
        path = tmp_path / f"{node}.toml"
        path.write_text(
            f'[service]\ndata_dir = "{tmp_path / node}"\ndatabase_url = "{database_url}"\nroles = {roles}\n'
            f'blob_url = "{(tmp_path / "blobs").as_uri()}"\n{listed}'
        )
        path.chmod(0o600)
        return load_settings(path, {"HOME": str(tmp_path), "MAILMILL_KEY": "A" * 43 + "="})

    return load


async def stored(application: Application) -> dict[str, AccountRow]:
    async with application.database.read() as connection:
        return {row.name: row for row in await accounts.list_accounts(connection)}


async def paused(application: Application) -> set[str]:
    return {name for name, row in (await stored(application)).items() if row.paused}


async def start(settings: Settings, **options: Any) -> set[str]:
    """As at the start of a service: which accounts are paused then."""
    async with open_application(settings, **options) as application:
        await account_tasks.pause_missing(application)
        return await paused(application)


async def test_a_command_that_looks_pauses_nothing_and_lets_nothing_go_on(configured: Configure) -> None:
    assert await start(await asyncio.to_thread(configured, "work", "home")) == set()
    assert await start(await asyncio.to_thread(configured, "work")) == {"home"}
    for names in ((), ("home",), ("work", "home")):
        settings = await asyncio.to_thread(configured, *names)
        async with open_application(settings, for_command=True) as application:
            use_cases = UseCases(application)
            await use_cases.status()
            await use_cases.accounts()
            assert await paused(application) == {"home"}
    # A service is another matter: what it is given counts.
    assert await start(await asyncio.to_thread(configured, "home")) == {"work"}


async def test_a_node_that_does_not_sync_decides_about_no_account(configured: Configure) -> None:
    assert await start(await asyncio.to_thread(configured, "work", "home")) == set()
    assert await start(await asyncio.to_thread(configured, "work")) == {"home"}
    settings = await asyncio.to_thread(configured, "work", "home", roles='["process", "api"]')
    async with open_application(settings) as application, engines(application):
        assert await paused(application) == {"home"}


async def test_a_command_leaves_refused_credentials_refused(configured: Configure) -> None:
    async with open_application(await asyncio.to_thread(configured, "work")) as application:
        row = application.accounts["work"].row
        async with application.database.write() as connection:
            await accounts.set_state(connection, row.id, AccountState.AUTHENTICATION_ERROR, "no", 1.0)
    settings = await asyncio.to_thread(configured, "work", password="other")
    async with open_application(settings, for_command=True) as application:
        assert (await stored(application))["work"].state is AccountState.AUTHENTICATION_ERROR
        # What syncs it takes it as it is configured, and asks the server again.
        report = await UseCases(application).sync(["work"], process=False)
        assert report["accounts"][0]["error"]["code"] == "connect"
        assert (await stored(application))["work"].state is AccountState.CONNECT_ERROR


async def test_what_logs_in_takes_changed_credentials_as_a_sync_does(configured: Configure) -> None:
    for attempt in ("verify", "append"):
        async with open_application(await asyncio.to_thread(configured, "work", password=attempt)) as application:
            row = application.accounts["work"].row
            async with application.database.write() as connection:
                await accounts.set_state(connection, row.id, AccountState.CONNECTED, "", 1.0)
                await accounts.set_state(connection, row.id, AccountState.AUTHENTICATION_ERROR, "no", 1.0)
                await connection.execute(
                    dialect.insert(connection, mailbox)
                    .values(account_id=row.id, path="INBOX", selectable=True)
                    .on_conflict_do_nothing()
                )
        for password, code in ((attempt, "authentication"), ("other", "connect")):
            settings = await asyncio.to_thread(configured, "work", password=password)
            async with open_application(settings, for_command=True) as application:
                assert await refusal(UseCases(application), attempt) == code


async def refusal(use_cases: UseCases, attempt: str) -> str:
    if attempt == "verify":
        answer = await use_cases.verify(["work"], full=False, repair=False, seed=None)
        return str(answer["accounts"][0]["error"]["code"])
    with pytest.raises(MailmillError) as raised:
        await use_cases.changes.append("work", "INBOX", b"Subject: one\r\n\r\n1\r\n", wait_seconds=PATIENCE_SECONDS)
    return raised.value.code


async def test_a_command_that_syncs_an_account_lets_that_one_go_on(configured: Configure) -> None:
    assert await start(await asyncio.to_thread(configured, "work", "home", "attic")) == set()
    assert await start(await asyncio.to_thread(configured, "work")) == {"home", "attic"}
    settings = await asyncio.to_thread(configured, "work", "home", "attic")
    async with open_application(settings, for_command=True) as application:
        report = await UseCases(application).sync(["home"], process=False)
        assert report["accounts"][0]["error"]["code"] == "connect"
        assert await paused(application) == {"attic"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_removing_an_account_pauses_no_other(configured: Configure) -> None:
    assert await start(await asyncio.to_thread(configured, "work", "home", "attic")) == set()
    async with open_application(await asyncio.to_thread(configured, "work"), for_command=True) as application:
        removals = UseCases(application).removals
        assert (await removals.remove("home", purge=False))["purged"] is False
        assert await paused(application) == {"home"}
        assert (await removals.remove("home", purge=True))["purged"]
        assert set(await stored(application)) == {"work", "attic"}


class Kept:
    """Whose tasks run, in place of talking to servers."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.changed = asyncio.Condition()

    async def run(self, name: str) -> None:
        await self._note(lambda: self.running.append(name))
        try:
            await asyncio.Event().wait()
        finally:
            self.running.remove(name)
            async with self.changed:
                self.changed.notify_all()

    async def _note(self, change: Callable[[], None]) -> None:
        change()
        async with self.changed:
            self.changed.notify_all()

    async def until(self, *names: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self.changed:
            await self.changed.wait_for(lambda: sorted(self.running) == sorted(names))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_owner_stops_an_account_that_another_node_paused_and_begins_it_again(
    configured: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a hint and in its next round, and not when it is started anew."""
    kept = Kept()
    monkeypatch.setattr(AccountSync, "run", lambda sync: kept.run(sync._context.account))
    settings = await asyncio.to_thread(configured, "work", "home")
    async with open_application(settings) as owner, engines(owner):
        await kept.until("work", "home")
        assert await start(await asyncio.to_thread(configured, "work", node="other")) == {"home"}
        await kept.until("work")
        assert not owner.accounts["home"].kept
        assert (await stored(owner))["home"].state is AccountState.PAUSED
        assert await start(await asyncio.to_thread(configured, "work", "home", node="other")) == set()
        await kept.until("work", "home")
        async with owner.accounts["home"].database.write():
            pass  # under the lease that it has


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_owner_stops_an_account_that_was_deleted(
    configured: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    monkeypatch.setattr(AccountSync, "run", lambda sync: kept.run(sync._context.account))
    settings = await asyncio.to_thread(configured, "work", "home")
    async with open_application(settings) as owner, engines(owner):
        await kept.until("work", "home")
        async with owner.database.write(wake=("nodes",)) as connection:
            await connection.exec_driver_sql("DELETE FROM event")
            await connection.exec_driver_sql("DELETE FROM account WHERE name = 'home'")
        await kept.until("work")
