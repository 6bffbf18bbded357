"""`ImapConnection` on Dovecot and pymap: reading, and waiting for news."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from harness.connections import MAIL, SETTINGS, bodies, connected
from mailmill.errors import (
    CommandError,
    ConnectionLostError,
)
from mailmill.imap.connection import ConnectionSettings, FetchedBody, ImapConnection
from mailmill.model import MailboxRef, Tls, Uid
from mailmill.uid_set import UidSet
from servers.dovecot import Dovecot
from servers.pymap import Pymap


@pytest.mark.both_loops
@pytest.mark.parametrize("tls", list(Tls))
async def test_from_greeting_to_logout(dovecot: Dovecot, tls: Tls):
    user = dovecot.new_user()
    await dovecot.add_messages(user, "INBOX", [MAIL] * 3, [r"\Seen"], internal_date=1_700_000_000)
    connection = await ImapConnection.open(dovecot.endpoint(tls), SETTINGS)
    await connection.authenticate(dovecot.credentials(user))
    assert connection.features.qresync
    assert connection.features.list_status

    status = await connection.select("INBOX")
    assert (status.messages, status.uid_next) == (3, 4)
    assert connection.selected is not None
    assert connection.selected.read_only
    reply = await connection.fetch_meta(UidSet.span(1, 99))
    assert [(m.uid, m.flags, m.internal_date, m.size_bytes) for m in reply.messages] == [
        (uid, {"\\Seen"}, 1_700_000_000.0, len(MAIL)) for uid in (1, 2, 3)
    ]
    assert all(message.mod_seq for message in reply.messages)
    assert await bodies(connection, UidSet([1, 3])) == [FetchedBody(Uid(1), MAIL), FetchedBody(Uid(3), MAIL)]
    [(uid, envelope)] = await connection.fetch_envelopes(UidSet([2]))
    assert (uid, envelope.subject, envelope.from_[0].name) == (2, "Grüße", "Ann")
    assert await connection.search() == UidSet([1, 2, 3])
    assert await connection.search(UidSet([2, 3, 77])) == UidSet([2, 3])
    await connection.logout()
    assert connection.closed
    with pytest.raises(ConnectionLostError):
        await connection.noop()


async def test_a_pass_without_changes_is_one_round_trip_also_while_idling(dovecot: Dovecot, mail_user: str):
    async with connected(dovecot.endpoint(), dovecot.credentials(mail_user)) as connection:
        await connection.select("INBOX")
        await connection.idle()
        before, proven = connection.round_trips, connection.last_proven_at
        listed = await connection.list_status()
        assert connection.round_trips - before == 1
        assert connection.last_proven_at > proven
        assert connection.idling
        by_path = {entry.mailbox.path: entry for entry in listed}
        assert by_path["Sent"].mailbox == MailboxRef("Sent", "/", "\\Sent", True)
        inbox = by_path["INBOX"].status
        assert inbox is not None
        assert (inbox.messages, inbox.uid_next) == (0, 1)
        await dovecot.append(mail_user, "INBOX", MAIL)
        assert await connection.wait_hint(30), "the IDLE that went out with the LIST is a working one"
        assert connection.idling
        assert (await connection.statuses(["INBOX", "No such"]))[1] is None
        assert connection.idling
        await connection.noop()
        assert not connection.idling


@pytest.mark.parametrize("condstore", [True, False])
async def test_lesser_servers(dovecot_condstore: Dovecot, dovecot_plain: Dovecot, condstore: bool):
    server = dovecot_condstore if condstore else dovecot_plain
    user = server.new_user()
    await server.add_message(user, "INBOX", MAIL)
    async with connected(server.endpoint(), server.credentials(user)) as connection:
        assert not connection.features.qresync
        assert connection.features.condstore == condstore
        await connection.idle()
        before = connection.round_trips
        listed = {entry.mailbox.path: entry.status for entry in await connection.list_status()}
        assert connection.round_trips - before == 2
        assert connection.idling
        inbox = listed["INBOX"]
        assert inbox is not None
        assert (inbox.highest_mod_seq is not None) == condstore
        selected = await connection.select("INBOX")
        assert (selected.highest_mod_seq is not None) == condstore
        [message] = (await connection.fetch_meta(UidSet([1]))).messages
        assert (message.mod_seq is not None) == condstore
        assert await connection.search() == UidSet([1])


async def test_changes_since_and_what_vanished(dovecot: Dovecot, mail_user: str):
    await dovecot.add_messages(mail_user, "INBOX", [MAIL] * 4)
    async with connected(dovecot.endpoint(), dovecot.credentials(mail_user)) as connection:
        before = (await connection.select("INBOX")).highest_mod_seq
        assert before is not None
        await dovecot.set_flags(mail_user, "INBOX", "uid 3", [r"\Flagged"])
        await dovecot.expunge(mail_user, "INBOX", "uid 2")
        await connection.select("INBOX")
        reply = await connection.fetch_meta(UidSet.span(1, 4), changed_since=before, vanished=True)
        assert [(m.uid, m.flags, m.size_bytes) for m in reply.messages] == [(3, {"\\Flagged"}, None)]
        assert reply.vanished == UidSet([2])
        assert reply.malformed == 0


@pytest.mark.parametrize("name", ["Entwürfe & mehr", "日本語", 'qu"ote\\', "a b", "100%"])
async def test_mailbox_names(dovecot: Dovecot, mail_user: str, name: str):
    await dovecot.create_mailbox(mail_user, name)
    async with connected(dovecot.endpoint(), dovecot.credentials(mail_user)) as connection:
        assert name in [ref.path for ref in await connection.list_mailboxes()]
        assert (await connection.select(name)).path == name
        [status] = await connection.statuses([name])
        assert status is not None


async def test_no_such_mailbox(dovecot: Dovecot, mail_user: str):
    async with connected(dovecot.endpoint(), dovecot.credentials(mail_user)) as connection:
        await connection.select("INBOX")
        with pytest.raises(CommandError) as caught:
            await connection.select("Nowhere")
        assert (caught.value.command, caught.value.status) == ("EXAMINE", "NO")
        assert connection.selected is None
        await connection.noop()


async def test_a_server_that_throws_us_out(dovecot: Dovecot, mail_user: str):
    async with connected(dovecot.endpoint(), dovecot.credentials(mail_user)) as connection:
        await connection.idle()
        waiting = asyncio.create_task(connection.wait_hint(60))
        await dovecot.kick(mail_user)
        with pytest.raises(ConnectionLostError):
            await waiting
        assert connection.closed


@pytest.mark.both_loops
async def test_large_messages_go_to_files(dovecot: Dovecot, tmp_path: Path):
    user = dovecot.new_user()
    large = MAIL + b"0123456789abcdef\r\n" * 500_000
    await dovecot.add_messages(user, "INBOX", [MAIL, large, MAIL])
    settings = ConnectionSettings(spool_dir=tmp_path / "spool", stream_literal_bytes=64 * 1024)
    async with connected(dovecot.endpoint(), dovecot.credentials(user), settings) as connection:
        await connection.select("INBOX")
        small, big, last = await bodies(connection, UidSet.span(1, 3))
        assert small.body == last.body == MAIL
        assert isinstance(big.body, Path)
        assert await asyncio.to_thread(big.body.read_bytes) == large
        assert await asyncio.to_thread(os.listdir, tmp_path / "spool") == [big.body.name]


@pytest.mark.both_loops
async def test_a_slow_consumer_stops_the_reading(dovecot: Dovecot):
    user = dovecot.new_user()
    total = 80
    await dovecot.add_messages(user, "INBOX", [MAIL + b"x" * 2**20] * total)
    async with connected(dovecot.endpoint(), dovecot.credentials(user)) as connection:
        await connection.select("INBOX")
        before = connection.bytes_received
        uids = []
        async for body in connection.fetch_bodies(UidSet.span(1, total)):
            uids.append(body.uid)
            if len(uids) == 1:
                for _ in range(1000):
                    await asyncio.sleep(0)
                assert connection.bytes_received - before < 16 * 2**20
        assert uids == list(range(1, total + 1))


async def test_pymap(pymap: Pymap):
    async with connected(pymap.endpoint(), pymap.credentials()) as connection:
        listed = {entry.mailbox.path: entry.status for entry in await connection.list_status()}
        status = await connection.select("INBOX")
        assert listed["INBOX"] == status
        reply = await connection.fetch_meta(UidSet.span(1, status.uid_next - 1))
        assert len(reply.messages) == status.messages
        assert all(message.email_id for message in reply.messages), "OBJECTID"
        fetched = await bodies(connection, await connection.search())
        assert {body.uid: len(body.body) for body in fetched if isinstance(body.body, bytes)} == {
            message.uid: message.size_bytes for message in reply.messages
        }
        await connection.idle()
        await connection.list_status()
        assert connection.idling
        await connection.done()
        await connection.logout()
