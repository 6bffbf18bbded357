"""An account in sync with real servers: the store equals the server, whatever happened meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from harness.syncing import synced_account
from mailmill.model import AccountState, Backlog, Credentials, Endpoint, Tls
from mailmill.sync.context import SyncLimits
from servers.dovecot import Dovecot
from servers.proxy import Proxy

TIERS = ("qresync", "condstore", "plain")


def raw(number: int, body: str = "") -> bytes:
    return (
        f"From: Ann <ann{number}@example.org>\r\nTo: me@example.org\r\nSubject: number {number}\r\n"
        f"Message-ID: <{number}@example.org>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\r\n{body or number}\r\n"
    ).encode()


@pytest.fixture(params=TIERS)
def server(request: pytest.FixtureRequest) -> Iterator[Dovecot]:
    name = {"qresync": "dovecot", "condstore": "dovecot_condstore", "plain": "dovecot_plain"}[request.param]
    yield request.getfixturevalue(name)


async def test_a_first_sync_holds_all_that_the_server_has(server: Dovecot, data_dir: Path) -> None:
    user = server.new_user()
    sent = [raw(number) for number in range(1, 41)]
    await server.add_messages(user, "INBOX", sent, [r"\Seen"])
    await server.add_messages(user, "Archive", [raw(100), raw(101)])
    limits = SyncLimits(chunk_messages=15, group_messages=4)
    async with synced_account(data_dir, server.endpoint(), server.credentials(user), limits=limits) as account:
        report = await account.once()
        assert report.new == 42
        for path in ("INBOX", "Archive"):
            assert await account.held(path) == await server.flags(user, path)
        contents = await account.contents()
        assert [contents[uid] for uid in sorted(contents)] == sent
        events = Counter(event.event for event in await account.events())
        assert events["messageNew"] == 42
        assert events["accountInitialized"] == 1
        assert await account.scalar("select count(*) from work") == 84
        assert await account.scalar("select count(*) from event where event = 'messageNew' and not historical") == 0
        again = await account.once()
        assert (again.new, again.updated, again.expunged) == (0, 0, 0)


async def test_what_changes_on_the_server_changes_in_the_store(server: Dovecot, data_dir: Path) -> None:
    user = server.new_user()
    await server.add_messages(user, "INBOX", [raw(number) for number in range(1, 11)])
    async with synced_account(data_dir, server.endpoint(), server.credentials(user)) as account:
        await account.once()
        ids = await account.message_ids()
        await server.append(user, "INBOX", raw(50), [r"\Flagged"])
        await server.set_flags(user, "INBOX", "uid 2:3", [r"\Seen", "todo"])
        await server.expunge(user, "INBOX", "uid 4")
        await server.move(user, "INBOX", "Archive", "uid 5")
        await account.once()
        for path in ("INBOX", "Archive"):
            assert await account.held(path) == await server.flags(user, path)
        assert set((await account.message_ids("Archive")).values()) == {ids[5]}
        rows = await account.wait_for(lambda rows: any(row.event == "messageDeleted" for row in rows))
        assert [row.message_id for row in rows if row.event == "messageDeleted"] == [ids[4]]
        new = [row.message_id for row in rows if row.event == "messageNew"]
        assert len(new) == len(set(new)) == 11


async def test_a_message_is_pushed_without_asking(server: Dovecot, data_dir: Path) -> None:
    user = server.new_user()
    async with synced_account(data_dir, server.endpoint(), server.credentials(user)) as account:
        await account.once()
        await server.append(user, "INBOX", raw(1))
        rows = await account.wait_for(lambda rows: any(row.event == "messageNew" for row in rows))
        [new] = [row for row in rows if row.event == "messageNew"]
        assert not new.historical
        assert account.sync.view().push == "idle"


async def test_another_uid_validity_keeps_every_id(server: Dovecot, data_dir: Path) -> None:
    user = server.new_user()
    await server.add_messages(user, "INBOX", [raw(number) for number in range(1, 8)])
    async with synced_account(data_dir, server.endpoint(), server.credentials(user)) as account:
        await account.once()
        before = await account.message_ids()
        await server.reset_uid_validity(user, "INBOX")
        # Dovecot ends sessions that have the mailbox open: this pass may meet that, and the next connection the reset.
        await account.sync.sync_now()
        await account.wait_for(lambda rows: any(row.event == "mailboxReset" for row in rows))
        await account.once()
        assert set((await account.message_ids()).values()) == set(before.values())
        assert await account.held() == await server.flags(user, "INBOX")
        events = Counter(event.event for event in await account.events())
        assert (events["mailboxReset"], events["messageNew"], events["messageDeleted"]) == (1, 7, 0)


async def test_the_same_raw_mail_twice_is_one_message_in_two_places(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_messages(user, "INBOX", [raw(1), raw(2), raw(1)])
    await dovecot.add_messages(user, "Archive", [raw(1)])
    async with synced_account(data_dir, dovecot.endpoint(), dovecot.credentials(user)) as account:
        await account.once()
        ids = await account.message_ids()
        assert ids[1] == ids[3] != ids[2]
        assert set((await account.message_ids("Archive")).values()) == {ids[1]}
        assert Counter(row.event for row in await account.events())["messageNew"] == 2


@pytest.mark.parametrize(
    ("backlog", "priorities", "historical"),
    [(Backlog.STORE, set(), 1), (Backlog.PROCESS, {10}, 1), (Backlog.DELIVER, {0}, 0)],
)
async def test_the_backlog_policy(
    dovecot: Dovecot, data_dir: Path, backlog: Backlog, priorities: set[int], historical: int
) -> None:
    user = dovecot.new_user()
    await dovecot.add_message(user, "INBOX", raw(1))
    async with synced_account(data_dir, dovecot.endpoint(), dovecot.credentials(user), backlog=backlog) as account:
        await account.once()
        found = await account.scalar("select group_concat(distinct priority) from work")
        assert {int(part) for part in str(found).split(",")} == priorities if priorities else found is None
        assert await account.scalar("select count(*) from event where event='messageNew' and historical") == historical
        await dovecot.append(user, "INBOX", raw(2))
        await account.once()
        assert await account.scalar("select count(*) from event where event='messageNew' and not historical") == (
            2 - historical
        )
        assert await account.scalar("select count(*) from work where priority = 0") in (2, 4)


async def test_mailboxes_come_and_go(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_message(user, "Projects", raw(1))
    async with synced_account(data_dir, dovecot.endpoint(), dovecot.credentials(user)) as account:
        await account.once()
        ids = await account.message_ids("Projects")
        await dovecot.rename_mailbox(user, "Projects", "Entwürfe & Pläne")
        await account.once()
        await account.once()
        assert set((await account.message_ids("Entwürfe & Pläne")).values()) == set(ids.values())
        assert await account.held("Projects") == {}
        await dovecot.delete_mailbox(user, "Entwürfe & Pläne")
        await account.once()
        rows = await account.wait_for(lambda rows: any(row.event == "messageDeleted" for row in rows))
        events = Counter(event.event for event in rows)
        assert (events["messageNew"], events["messageDeleted"], events["mailboxDeleted"]) == (1, 1, 2)


async def test_only_the_mailboxes_asked_for(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_message(user, "INBOX", raw(1))
    await dovecot.add_message(user, "Lists/python", raw(2))
    await dovecot.add_message(user, "Other", raw(3))
    async with synced_account(
        data_dir, dovecot.endpoint(), dovecot.credentials(user), mailboxes=("INBOX", "Lists/*")
    ) as account:
        report = await account.once()
        assert report.new == 2
        assert await account.held("Other") == {}


async def test_a_wrong_password_stops_the_account_and_is_tried_once(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    wrong = Credentials(user, "not the password")
    async with synced_account(data_dir, dovecot.endpoint(), wrong) as account:
        rows = await account.wait_for(lambda rows: any(row.event == "authenticationError" for row in rows))
        assert account.sync.view().state is AccountState.AUTHENTICATION_ERROR
        report = await account.sync.sync_now()
        assert report.error is not None
        assert report.error.code == "authentication"
        assert len(account.connections) == 1
        assert "not the password" not in repr(rows) + str(report.error) + report.error.hint
    async with synced_account(data_dir, dovecot.endpoint(), wrong) as account:
        report = await account.sync.sync_now()
        assert report.error is not None
        assert account.connections == []
    async with synced_account(data_dir, dovecot.endpoint(), dovecot.credentials(user)) as account:
        await account.once()
        assert account.sync.view().state is AccountState.CONNECTED


async def test_a_severed_connection_comes_back_and_nothing_is_missed(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    async with (
        Proxy(dovecot.host, dovecot.port) as proxy,
        synced_account(data_dir, Endpoint(proxy.host, proxy.port, Tls.NONE), dovecot.credentials(user)) as account,
    ):
        await account.once()
        proxy.cut()
        await dovecot.append(user, "INBOX", raw(1))
        rows = await account.wait_for(lambda rows: any(row.event == "messageNew" for row in rows))
        assert Counter(row.event for row in rows)["messageNew"] == 1
        assert await account.held() == await dovecot.flags(user, "INBOX")


async def test_a_first_sync_goes_on_where_it_was_cut(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_messages(user, "INBOX", [raw(number, "x" * 2000) for number in range(1, 61)])
    limits = SyncLimits(chunk_messages=20, group_messages=5)
    async with Proxy(dovecot.host, dovecot.port) as proxy:
        async with synced_account(
            data_dir, Endpoint(proxy.host, proxy.port, Tls.NONE), dovecot.credentials(user), limits=limits
        ) as account:
            await account.wait_for(lambda rows: sum(row.event == "messageNew" for row in rows) >= 10)
            proxy.cut()
        first = await _received(data_dir, dovecot, user, limits)
    assert first < 60 * 2000


async def _received(data_dir: Path, dovecot: Dovecot, user: str, limits: SyncLimits) -> int:
    async with synced_account(data_dir, dovecot.endpoint(), dovecot.credentials(user), limits=limits) as account:
        report = await account.once()
        assert await account.held() == await dovecot.flags(user, "INBOX")
        new = [row.message_id for row in await account.events() if row.event == "messageNew"]
        assert len(new) == len(set(new)) == 60
        return report.bytes_received


async def test_one_connection_is_enough(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_messages(user, "INBOX", [raw(number) for number in range(1, 31)])
    async with synced_account(data_dir, dovecot.endpoint(), dovecot.credentials(user), pool_size=1) as account:
        await account.once()
        assert await account.held() == await dovecot.flags(user, "INBOX")
        assert len(account.connections) == 1


async def test_mail_that_comes_during_a_long_first_sync_is_new(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_messages(user, "INBOX", [raw(number) for number in range(1, 701)])
    limits = SyncLimits(chunk_messages=50, group_messages=10)
    async with synced_account(data_dir, dovecot.endpoint(), dovecot.credentials(user), limits=limits) as account:
        await account.wait_for(lambda rows: any(row.event == "messageNew" for row in rows))
        await dovecot.append(user, "INBOX", raw(1000))
        await account.once()
        await account.once()
        assert await account.held() == await dovecot.flags(user, "INBOX")
        assert await account.scalar("select count(*) from event where event='messageNew' and not historical") == 1


async def test_a_quiet_pass_costs_one_round_trip(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    await dovecot.add_message(user, "INBOX", raw(1))
    async with synced_account(data_dir, dovecot.endpoint(), dovecot.credentials(user)) as account:
        await account.once()
        await asyncio.gather(account.once(), account.once())
        report = await account.once()
        assert (report.round_trips, report.connections_opened) == (1, 0)


async def test_a_server_restart_is_survived(start_dovecot: Callable[..., Awaitable[Dovecot]], data_dir: Path) -> None:
    own = await start_dovecot()
    user = own.new_user()
    async with synced_account(data_dir, own.endpoint(), own.credentials(user)) as account:
        await account.once()
        await asyncio.to_thread(own.restart)
        await own.append(user, "INBOX", raw(7))
        await account.wait_for(lambda rows: any(row.event == "messageNew" for row in rows))
        assert await account.held() == await own.flags(user, "INBOX")
