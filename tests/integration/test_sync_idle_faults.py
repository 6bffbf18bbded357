"""Logins that are refused and IDLEs that fail: what is for good and what is not, and no mail missed meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.fake_imap import QRESYNC, Answer, Client, FakeImap
from harness.fake_imap_faults import deaf, refused
from harness.on_fake_imap import account_on, arrived, check, raw
from mailmill.imap.connection import ConnectionSettings
from mailmill.model import AccountState
from servers.scripted import Command

pytestmark = pytest.mark.both_databases

# -- logging in -------------------------------------------------------------------------------------------------------


async def test_a_refused_login_is_not_tried_again(data_dir: Path) -> None:
    async with FakeImap() as server:
        server.fault(rb"AUTHENTICATE", refused("NO", "[AUTHENTICATIONFAILED] wrong"), times=None)
        async with account_on(server, data_dir, poll_interval_seconds=0.01) as account:
            rows = await account.wait_for(lambda rows: any(row.event == "authenticationError" for row in rows))
            reports = await asyncio.gather(*(account.sync.sync_now() for _ in range(5)))
            assert {report.error.code for report in reports if report.error} == {"authentication"}
            assert account.sync.view().state is AccountState.AUTHENTICATION_ERROR
            assert (server.logins, server.connections) == (1, 1)
            assert [row.event for row in rows if row.event == "connectError"] == []
            server.heal()
            account.sync.resume()
            await account.wait_for(lambda rows: any(row.event == "authenticationSuccess" for row in rows))
            assert server.logins == 2


@pytest.mark.parametrize("text", ["[UNAVAILABLE] try later", "[INUSE] busy", "[LIMIT] too many"])
async def test_a_server_that_cannot_log_us_in_just_now_is_asked_again(text: str, data_dir: Path) -> None:
    async with FakeImap() as server:
        server.inbox.add(raw(1))
        server.fault(rb"AUTHENTICATE", refused("NO", text), times=2)
        async with account_on(server, data_dir) as account:
            rows = await account.wait_for(arrived(1))
            await account.once()
            assert account.sync.view().state is AccountState.CONNECTED
            assert server.logins == 3
            names = {row.event for row in rows}
            assert "authenticationError" not in names
            assert "connectError" in names
            await check(server, data_dir)


# -- IDLE -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("polite", [True, False], ids=["bye", "cut"])
async def test_goodbye_in_idle(polite: bool, data_dir: Path) -> None:
    idling = asyncio.Event()

    async def leave(client: Client, _command: Command, _answer: Answer) -> None:
        await client.send([b"+ idling\r\n"])
        idling.set()
        await client.news_came.wait()
        if polite:
            await client.talk.bye("Autologout")
        else:
            client.talk.abort()
        raise ConnectionResetError("gone")

    async with FakeImap() as server:
        server.fault(rb"IDLE", leave)
        async with account_on(server, data_dir) as account:
            await idling.wait()
            server.inbox.add(raw(1))
            await account.wait_for(arrived(1))
            await account.once()
            await check(server, data_dir)
            assert (server.connections, server.logins) == (2, 2)
            assert account.sync.view().state is AccountState.CONNECTED


async def test_an_idle_that_goes_silent_is_found_out_by_the_poll(data_dir: Path) -> None:
    reached = asyncio.Event()
    async with FakeImap() as server:
        server.fault(rb"IDLE", deaf(reached, b"+ idling\r\n"))
        settings = ConnectionSettings(command_timeout_seconds=0.2)
        async with account_on(server, data_dir, poll_interval_seconds=0.2, connection=settings) as account:
            await reached.wait()
            server.inbox.add(raw(1))
            await account.wait_for(arrived(1))
            await account.once()
            await check(server, data_dir)
            assert server.connections >= 2


async def test_an_idle_that_is_never_answered(data_dir: Path) -> None:
    reached = asyncio.Event()
    async with FakeImap() as server:
        server.fault(rb"IDLE", deaf(reached))
        settings = ConnectionSettings(command_timeout_seconds=0.2)
        async with account_on(server, data_dir, connection=settings) as account:
            await reached.wait()
            server.inbox.add(raw(1))
            await account.wait_for(arrived(1))
            await account.once()
            await check(server, data_dir)


@pytest.mark.parametrize("status", ["NO", "BAD"])
async def test_where_idle_is_refused_the_mailbox_is_polled(status: str, data_dir: Path) -> None:
    async with FakeImap() as server:
        server.fault(rb"IDLE", refused(status, "no idling here"), times=None)
        async with account_on(server, data_dir, poll_interval_seconds=0.05) as account:
            await account.once()
            for number in range(3):
                server.inbox.add(raw(number))
                await account.wait_for(arrived(number + 1))
            await account.once()
            await check(server, data_dir)
            assert account.sync.view().push == "poll"
            assert account.sync.view().state is AccountState.CONNECTED
            assert server.connections == 1
            assert server.count(rb"IDLE") == 1


@pytest.mark.parametrize("status", ["OK", "NO", "BAD"])
async def test_an_idle_that_ends_early_is_begun_again(status: str, data_dir: Path) -> None:
    """With what came meanwhile never told: the end itself is the hint."""
    idling = asyncio.Queue[Client]()

    async def end(client: Client, command: Command, _answer: Answer) -> None:
        client.news_came.clear()
        await client.send([b"+ idling\r\n"])
        idling.put_nowait(client)
        await client.news_came.wait()
        client.news()
        await client.talk.tagged(command, status, "long enough")

    async with FakeImap() as server:
        server.fault(rb"IDLE", end, times=None)
        async with account_on(server, data_dir) as account:
            for number in range(3):
                await idling.get()
                server.inbox.add(raw(number))
                await account.wait_for(arrived(number + 1))
            assert account.sync.view().push == "idle"
            assert account.sync.view().state is AccountState.CONNECTED
            assert server.connections == 1
            await check(server, data_dir)
            # Out of the last one, so that the goodbye is answered.
            await idling.get()
            server.heal()
            server.inbox.changed()


async def test_where_there_is_no_idle_the_mailbox_is_polled(data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=QRESYNC.replace(" IDLE", "")) as server,
        account_on(server, data_dir, poll_interval_seconds=0.05) as account,
    ):
        await account.once()
        server.inbox.add(raw(1))
        await account.wait_for(arrived(1))
        assert account.sync.view().push == "poll"
        assert server.count(rb"IDLE") == 0
