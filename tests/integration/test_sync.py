"""An account in sync, in what only Dovecot can be made to do. What holds for all servers: ``test_any_server_sync``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from harness.syncing import synced_account
from mailmill.model import AccountState, Credentials, Endpoint, Tls
from mailmill.store.sender_history import read_histories
from mailmill.store.tables import account as account_table
from mailmill.store.tables import message, sender
from mailmill.sync.context import SyncLimits
from servers.dovecot import Dovecot
from servers.proxy import Proxy

pytestmark = pytest.mark.both_databases

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


async def test_what_is_synced_tells_later_mail_who_its_sender_is(dovecot: Dovecot, data_dir: Path) -> None:
    user = dovecot.new_user()
    head = "From: {0}\r\nTo: {1}\r\nCc: Pia <pia@farm.example>\r\nMessage-ID: <{2}@x.example>\r\n{3}\r\nHello {2}\r\n"
    written = head.format("me@example.org", "Bert Hill <bert@hill.example>", 1, "")
    await dovecot.add_message(user, "Archive", written.encode())
    async with synced_account(data_dir, dovecot.endpoint(), dovecot.credentials(user)) as account:
        async with account.database.write() as connection:
            await connection.execute(update(account_table).values(email="Me@example.org"))
        await account.once()
        async with account.database.write() as connection:
            # The server's dates are whole seconds; both may come within one.
            await connection.execute(update(message).values(internal_date=message.c.internal_date - 60))
            await connection.execute(update(sender).values(sent_since=sender.c.sent_since - 60))
        answer = head.format(
            "Bert <bert@hill.example>", "me@example.org", 2, "References: <1@x.example> <9@x.example>\r\n"
        )
        await dovecot.add_message(user, "INBOX", answer.encode())
        await account.once()
        [new] = (await account.message_ids()).values()
        async with account.database.read() as connection:
            told = (await read_histories(connection, [new], lambda domain: domain))[new]
    assert (told.received, told.sent, told.correspondents) == (0, 1, ("farm.example", "hill.example"))
    assert {party.address for party in told.thread} == {"me@example.org", "bert@hill.example", "pia@farm.example"}


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
