"""`ImapConnection` on every real server: reading, asking what changed, and waiting for news."""

from __future__ import annotations

import asyncio

import pytest

from harness.connections import MAIL, bodies, connected
from mailmill.errors import CommandError, ConnectionLostError
from mailmill.imap.connection import FetchedBody
from mailmill.uid_set import UidSet
from servers.mail_server import MailServer

with_mod_sequences = pytest.mark.parametrize("any_server", ["dovecot", "dovecot_condstore", "cyrus"], indirect=True)
with_vanished = pytest.mark.parametrize("any_server", ["dovecot", "cyrus"], indirect=True)
# pymap tells an idling client only of what comes after, not of what came between.
with_news_at_once = pytest.mark.parametrize("any_server", ["dovecot", "dovecot_plain", "cyrus"], indirect=True)


async def test_from_login_to_logout(any_server: MailServer) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [MAIL] * 3, [r"\Seen"])
    async with connected(any_server.endpoint(), any_server.credentials(user)) as connection:
        features = connection.features
        tier = "qresync" if features.qresync else "condstore" if features.condstore else "plain"
        assert tier == any_server.traits.tier

        status = await connection.select("INBOX")
        assert status.messages == 3
        first, second, third = sorted(await connection.search())
        assert status.uid_next == third + 1
        assert await connection.search(UidSet([second, third, third + 70])) == UidSet([second, third])
        reply = await connection.fetch_meta(UidSet.span(first, third + 99))
        assert reply.malformed == 0
        assert [(m.uid, m.flags, m.size_bytes) for m in reply.messages] == [
            (uid, {"\\Seen"}, len(MAIL)) for uid in (first, second, third)
        ]
        assert all(m.internal_date for m in reply.messages)
        assert all((m.mod_seq is not None) == features.condstore for m in reply.messages)
        assert await bodies(connection, UidSet([first, third])) == [FetchedBody(uid, MAIL) for uid in (first, third)]
        [(uid, envelope)] = await connection.fetch_envelopes(UidSet([second]))
        assert (uid, envelope.subject, envelope.from_[0].name) == (second, "Grüße", "Ann")
        await connection.logout()
        with pytest.raises(ConnectionLostError):
            await connection.noop()


async def test_the_list_tells_the_state_of_every_mailbox(any_server: MailServer) -> None:
    user = any_server.new_user()
    await any_server.add_message(user, "Projects", MAIL)
    await any_server.add_messages(user, "Entwürfe & Pläne", [MAIL, MAIL])
    async with connected(any_server.endpoint(), any_server.credentials(user)) as connection:
        await connection.select("INBOX")
        await connection.idle()
        listed = {entry.mailbox.path: entry.status for entry in await connection.list_status()}
        assert connection.idling, "taken up again after the answer"
        await connection.done()
        assert set(listed) == set(await any_server.mailboxes(user))
        for path, status in listed.items():
            assert status is not None
            assert status.messages == await any_server.status(user, path)
            assert status.uid_validity == await any_server.status(user, path, "uidvalidity")
            assert status == await connection.select(path), "SELECT and STATUS agree"
        missing, inbox = await connection.statuses(["No such mailbox", "INBOX"])
        assert missing is None
        assert inbox is not None


async def test_a_mailbox_that_is_not_there(any_server: MailServer) -> None:
    async with connected(any_server.endpoint(), any_server.credentials(any_server.new_user())) as connection:
        await connection.select("INBOX")
        with pytest.raises(CommandError) as caught:
            await connection.select("Nowhere")
        assert caught.value.status == "NO"
        assert connection.selected is None
        await connection.noop()


@with_mod_sequences
async def test_what_changed_since(any_server: MailServer) -> None:
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [MAIL] * 4)
    async with connected(any_server.endpoint(), any_server.credentials(user)) as connection:
        before = (await connection.select("INBOX")).highest_mod_seq
        assert before is not None
        await any_server.set_flags(user, "INBOX", "uid 3", [r"\Flagged"])
        after = (await connection.select("INBOX")).highest_mod_seq
        assert after is not None
        assert after > before
        reply = await connection.fetch_meta(UidSet.span(1, 4), changed_since=before)
        assert [(m.uid, m.flags) for m in reply.messages] == [(3, {"\\Flagged"})]
        assert (await connection.fetch_meta(UidSet.span(1, 4), changed_since=after)).messages == []


@with_vanished
async def test_what_vanished_since(any_server: MailServer) -> None:
    """Also above the highest UID that is left, which Cyrus tells only where the set has an explicit upper end."""
    user = any_server.new_user()
    await any_server.add_messages(user, "INBOX", [MAIL] * 6)
    async with connected(any_server.endpoint(), any_server.credentials(user)) as connection:
        before = (await connection.select("INBOX")).highest_mod_seq
        await any_server.expunge(user, "INBOX", "uid 2,5:6")
        await connection.select("INBOX")
        reply = await connection.fetch_meta(UidSet.span(1, 6), changed_since=before, vanished=True)
        assert reply.vanished == UidSet([2, 5, 6])
        assert (reply.messages, reply.malformed) == ([], 0)


@with_news_at_once
async def test_an_idling_connection_hears_of_all_that_happens(any_server: MailServer) -> None:
    user = any_server.new_user()
    async with (
        connected(any_server.endpoint(), any_server.credentials(user)) as connection,
        asyncio.timeout(60),
    ):
        await connection.select("INBOX")
        await connection.idle()
        uid = await any_server.append(user, "INBOX", MAIL)
        assert await connection.wait_hint(30)
        await any_server.set_flags(user, "INBOX", f"uid {uid}", [r"\Flagged"])
        assert await connection.wait_hint(30)
        await any_server.expunge(user, "INBOX", f"uid {uid}")
        assert await connection.wait_hint(30)
        await connection.done()
        assert connection.exists == 0
