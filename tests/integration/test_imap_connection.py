"""`ImapConnection` against Dovecot, pymap, and a scripted server for what they do not do on demand."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mailmill.errors import (
    ArgumentError,
    AuthenticationError,
    CertificateError,
    CommandError,
    ConnectError,
    ConnectionLostError,
    InsecureError,
    LimitError,
    ProtocolError,
)
from mailmill.imap.connection import ConnectionSettings, FetchedBody, ImapConnection
from mailmill.imap.limits import Limits
from mailmill.model import Credentials, Endpoint, MailboxRef, MessageMeta, Tls, Uid
from mailmill.uid_set import UidSet
from servers.dovecot import Dovecot
from servers.ports import free_ports
from servers.pymap import Pymap
from servers.scripted import ScriptedServer, Talk
from servers.tls import CertificateFiles, make_certificates

SETTINGS = ConnectionSettings(connect_timeout_seconds=20, command_timeout_seconds=20)
ME = Credentials("me", "secret")

MAIL = b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nHello.\r\n"


@asynccontextmanager
async def connected(
    endpoint: Endpoint, credentials: Credentials, settings: ConnectionSettings = SETTINGS
) -> AsyncIterator[ImapConnection]:
    connection = await ImapConnection.open(endpoint, settings)
    try:
        await connection.authenticate(credentials)
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def talking(
    script: Callable[[Talk], Awaitable[None]], settings: ConnectionSettings = SETTINGS
) -> AsyncIterator[ImapConnection]:
    async with ScriptedServer(script) as server, connected(server.endpoint(), ME, settings) as connection:
        yield connection


async def bodies(connection: ImapConnection, uids: UidSet) -> list[FetchedBody]:
    return [body async for body in connection.fetch_bodies(uids)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


# -- Dovecot: the whole way, each way of TLS, on both loops ------------------------------------------------------------


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


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
async def test_an_untrusted_certificate(dovecot: Dovecot, tls: Tls):
    with pytest.raises(CertificateError) as caught:
        await ImapConnection.open(dovecot.endpoint(tls, trusted=False), SETTINGS)
    assert str(dovecot.endpoint(tls)) in str(caught.value)
    assert caught.value.hint


async def test_a_wrong_password(dovecot: Dovecot, mail_user: str):
    connection = await ImapConnection.open(dovecot.endpoint(), SETTINGS)
    with pytest.raises(AuthenticationError) as caught:
        await connection.authenticate(Credentials(mail_user, "wr0ng-passw0rd"))
    assert caught.value.server_code == "AUTHENTICATIONFAILED"
    assert "wr0ng" not in str(caught.value)
    await connection.close()


async def test_passwords_of_any_kind(start_dovecot: Callable[..., Awaitable[Dovecot]]):
    server = await start_dovecot(password="é-☃", tier="plain")
    async with connected(server.endpoint(), server.credentials("anyone")) as connection:
        assert connection.capabilities
        assert "é" not in repr(connection)


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


# -- the scripted server -----------------------------------------------------------------------------------------------


async def test_plain_text_to_a_network_is_refused_before_a_byte():
    with pytest.raises(InsecureError):
        await ImapConnection.open(Endpoint("imap.example.org", 143, Tls.NONE), SETTINGS)


async def test_nobody_listens():
    [port] = free_ports(1)
    with pytest.raises(ConnectError, match=str(port)):
        await ImapConnection.open(Endpoint("127.0.0.1", port, Tls.NONE), SETTINGS)


async def test_a_server_that_never_greets():
    async def script(talk: Talk) -> None:
        await talk.silence()

    async with ScriptedServer(script) as server:
        with pytest.raises(ConnectError, match="did not answer"):
            await ImapConnection.open(server.endpoint(), ConnectionSettings(connect_timeout_seconds=0.05))


async def test_bye_for_a_greeting():
    async def script(talk: Talk) -> None:
        await talk.bye("too many connections")

    async with ScriptedServer(script) as server:
        with pytest.raises(ConnectionLostError, match="too many connections"):
            await ImapConnection.open(server.endpoint(), SETTINGS)


@pytest.mark.both_loops
@pytest.mark.parametrize("injected", [b"* CAPABILITY IMAP4rev1\r\n", b"half a li", b"A2 OK in\r\n"])
async def test_bytes_between_starttls_and_handshake(certificates: CertificateFiles, injected: bytes):
    async def script(talk: Talk) -> None:
        await talk.start_tls(after=injected)

    async with ScriptedServer(script, certificates=certificates) as server:
        with pytest.raises(InsecureError, match="STARTTLS"):
            await ImapConnection.open(server.endpoint(Tls.STARTTLS), SETTINGS)


async def test_capabilities_from_before_starttls_are_asked_for_again(certificates: CertificateFiles):
    async def script(talk: Talk) -> None:
        await talk.greet(b"* OK [CAPABILITY IMAP4rev1 X-LIE] hi\r\n")
        await talk.start_tls(before=b"* CAPABILITY IMAP4rev1 X-LIE\r\n")
        await talk.expect(rb"LOGOUT")

    async with ScriptedServer(script, certificates=certificates) as server:
        connection = await ImapConnection.open(server.endpoint(Tls.STARTTLS), SETTINGS)
        assert "X-LIE" not in connection.capabilities
        assert "AUTH=PLAIN" in connection.capabilities
        await connection.close()


async def test_no_starttls_means_no_connection(certificates: CertificateFiles):
    async def script(talk: Talk) -> None:
        await talk.bad(await talk.expect(rb"STARTTLS"))
        await talk.silence()

    async with ScriptedServer(script, certificates=certificates) as server:
        with pytest.raises(InsecureError, match="no STARTTLS"):
            await ImapConnection.open(server.endpoint(Tls.STARTTLS), SETTINGS)


async def test_preauth_before_starttls(certificates: CertificateFiles):
    async def script(talk: Talk) -> None:
        await talk.greet(b"* PREAUTH welcome\r\n")
        assert await talk.silence() == b""

    async with ScriptedServer(script, certificates=certificates) as server:
        with pytest.raises(InsecureError, match="PREAUTH"):
            await ImapConnection.open(server.endpoint(Tls.STARTTLS), SETTINGS)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[AUTHENTICATIONFAILED] wrong", AuthenticationError),
        ("just no", AuthenticationError),
        ("[UNAVAILABLE] backend down", CommandError),
        ("[LIMIT] too many", CommandError),
    ],
)
async def test_refused_logins(text: str, error: type[Exception]):
    async def script(talk: Talk) -> None:
        await talk.refuse_login(text)

    async with ScriptedServer(script) as server:
        connection = await ImapConnection.open(server.endpoint(), SETTINGS)
        with pytest.raises(error):
            await connection.authenticate(ME)
        await connection.close()


async def test_bye_at_login_is_not_about_the_credentials():
    async def script(talk: Talk) -> None:
        await talk.expect(rb"AUTHENTICATE")
        await talk.bye("overloaded")

    async with ScriptedServer(script) as server:
        connection = await ImapConnection.open(server.endpoint(), SETTINGS)
        with pytest.raises(ConnectionLostError, match="overloaded"):
            await connection.authenticate(ME)
        assert connection.closed


async def test_a_password_as_a_literal_waits_for_the_server():
    seen: list[bytes] = []

    async def script(talk: Talk) -> None:
        talk.capabilities = "IMAP4rev1"
        command = await talk.expect(rb"LOGIN")
        seen.append(command.line)
        await talk.ok(command)
        await talk.expect(rb"NOTHING MORE")

    async with ScriptedServer(script) as server, connected(server.endpoint(), Credentials("me", 'gehé"im')):
        pass
    assert seen == ['LOGIN "me" {8}\r\ngehé"im'.encode()]


async def test_sasl_without_an_initial_response():
    async def script(talk: Talk) -> None:
        talk.capabilities = "IMAP4rev1 AUTH=PLAIN"
        command = await talk.expect(rb"AUTHENTICATE PLAIN$")
        await talk.send(b"+ \r\n")
        assert base64.b64decode(await talk.read_line()) == b"\0me\0secret"
        await talk.ok(command)
        await talk.expect(rb"NOTHING MORE")

    async with talking(script) as connection:
        assert connection.capabilities == {"IMAP4REV1", "AUTH=PLAIN"}


async def test_arguments_that_no_command_can_carry():
    async def script(talk: Talk) -> None:
        talk.capabilities = "IMAP4rev1"
        await talk.expect(rb"NOTHING MORE")

    async with ScriptedServer(script) as server:
        connection = await ImapConnection.open(server.endpoint(), SETTINGS)
        with pytest.raises(ArgumentError):
            await connection.authenticate(Credentials("me", "a\r\nA9 LOGOUT"))
        assert not connection.closed
        await connection.close()


FETCH = (
    b"* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n* VANISHED 2\r\n* 2 FETCH (UID 3 BODY[] {5}\r\nhello)\r\n"
    b"* 3 FETCH (UID 4 FLAGS ())\r\n"
)


@pytest.mark.parametrize("at", range(len(FETCH)))
async def test_a_fetch_cut_at_every_byte_is_lost_and_never_whole(at: int):
    async def script(talk: Talk) -> None:
        await talk.expect(rb"UID FETCH")
        await talk.cut(FETCH, at)

    async with talking(script) as connection:
        with pytest.raises(ConnectionLostError):
            await connection.fetch_flags(UidSet.span(1, 9))
        assert connection.closed


async def test_what_comes_between_is_neither_lost_nor_mistaken():
    async def script(talk: Talk) -> None:
        fetch = await talk.expect(rb"UID FETCH 1:9 \(UID FLAGS\)")
        await talk.drip(
            b"* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n* VANISHED 2\r\n* 9 EXISTS\r\n* 1 FETCH (FLAGS (\\Deleted))\r\n"
            b"* 2 FETCH (UID 3 ENVELOPE (bad))\r\n* 2 FETCH (UID 3 FLAGS ())\r\n* OK chatter\r\n"
        )
        await talk.ok(fetch)
        await talk.silence()

    async with talking(script) as connection:
        assert not await connection.wait_hint(0)
        reply = await connection.fetch_flags(UidSet.span(1, 9))
        assert reply.messages == [MessageMeta(Uid(1), frozenset({"\\Seen"})), MessageMeta(Uid(3), frozenset())]
        assert reply.vanished == UidSet([2])
        assert reply.malformed == connection.malformed == 1
        assert await connection.wait_hint(0), "EXISTS and the rest are news although nobody waited"
        assert not await connection.wait_hint(0)


async def test_a_gigabyte_announced():
    took: list[int] = []

    async def script(talk: Talk) -> None:
        await talk.expect(rb"UID FETCH")
        await talk.send(b"* 1 FETCH (UID 1 BODY[] {1073741824}\r\n")
        took.append(await talk.flood(2**30))

    async with talking(script) as connection:
        with pytest.raises(LimitError):
            await bodies(connection, UidSet([1]))
        assert connection.closed
        assert connection.bytes_received < 2**20


async def test_silence_under_way_is_a_lost_connection():
    async def script(talk: Talk) -> None:
        await talk.expect(rb"UID SEARCH")
        await talk.silence()

    settings = ConnectionSettings(command_timeout_seconds=0.05)
    async with talking(script, settings) as connection:
        with pytest.raises(ConnectionLostError, match="no answer"):
            await connection.search()
        assert connection.closed


async def test_silence_while_idling_is_not():
    async def script(talk: Talk) -> None:
        await talk.idle()
        await talk.silence()

    settings = ConnectionSettings(command_timeout_seconds=0.05)
    async with talking(script, settings) as connection:
        await connection.idle()
        assert not await connection.wait_hint(0.2)
        assert connection.idling


async def test_bye_in_idle():
    async def script(talk: Talk) -> None:
        await talk.idle()
        await talk.bye("maintenance")

    async with talking(script) as connection:
        await connection.idle()
        with pytest.raises(ConnectionLostError, match="maintenance"):
            await connection.wait_hint(30)
        assert connection.closed


async def test_an_idle_that_the_server_ends_is_a_hint():
    async def script(talk: Talk) -> None:
        await talk.ok(await talk.idle(), "IDLE terminated after 30 minutes")
        await talk.idle()
        await talk.silence()

    async with talking(script) as connection:
        await connection.idle()
        assert await connection.wait_hint(30)
        assert not connection.idling
        await connection.idle()
        assert connection.idling


async def test_a_refused_idle():
    async def script(talk: Talk) -> None:
        await talk.bad(await talk.expect(rb"IDLE"))
        await talk.silence()

    async with talking(script) as connection:
        with pytest.raises(CommandError):
            await connection.idle()
        assert not connection.idling
        assert not connection.closed


async def test_waiting_may_be_cancelled_without_harm():
    go_on = asyncio.Event()

    async def script(talk: Talk) -> None:
        idle = await talk.idle()
        await go_on.wait()
        await talk.send(b"* 9 EXISTS\r\n")
        await talk.done(idle)
        await talk.silence()

    async with talking(script) as connection:
        await connection.idle()
        waiting = asyncio.create_task(connection.wait_hint(60))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not connection.closed
        go_on.set()
        assert await connection.wait_hint(30)
        await connection.done()


async def test_a_cancelled_exchange_is_never_taken_up_again():
    asked = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.expect(rb"UID SEARCH")
        asked.set()
        await talk.silence()

    async with talking(script) as connection:
        searching = asyncio.create_task(connection.search())
        await asked.wait()
        searching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await searching
        assert connection.closed
        with pytest.raises(ConnectionLostError):
            await connection.noop()


async def test_a_fetch_left_early_cuts_the_connection_and_leaves_no_file(tmp_path: Path):
    large = b"x" * 200_000

    async def script(talk: Talk) -> None:
        await talk.expect(rb"UID FETCH")
        for uid in (1, 2, 3):
            await talk.send(b"* %d FETCH (UID %d BODY[] {200000}\r\n%b)\r\n" % (uid, uid, large))
        await talk.silence()

    settings = ConnectionSettings(spool_dir=tmp_path, stream_literal_bytes=1000)
    async with talking(script, settings) as connection:
        fetching = connection.fetch_bodies(UidSet.span(1, 3))
        first = await anext(fetching)
        await fetching.aclose()  # type: ignore[attr-defined]
        assert connection.closed
    assert isinstance(first.body, Path)
    await asyncio.to_thread(first.body.unlink)
    # The files of the others are removed in the executor: what is asked of it now comes after.
    for _ in range(100):
        left = await asyncio.to_thread(os.listdir, tmp_path)
        if not left:
            break
    assert left == []


async def test_two_users_of_one_connection():
    async def script(talk: Talk) -> None:
        await talk.expect(rb"NOOP")
        await talk.silence()

    async with talking(script) as connection:
        first = asyncio.create_task(connection.noop())
        await asyncio.sleep(0)
        with pytest.raises(ProtocolError):
            await connection.search()
        with pytest.raises(ProtocolError):
            await first


async def test_a_list_that_cannot_be_read_in_full_is_not_believed():
    async def script(talk: Talk) -> None:
        listing = await talk.expect(rb"LIST")
        await talk.send(b'* LIST () "/" INBOX\r\n* LIST () "/" "unclosed\r\n')
        await talk.ok(listing)
        await talk.silence()

    async with talking(script) as connection:
        with pytest.raises(ProtocolError, match="list"):
            await connection.list_status()
        assert not connection.closed


async def test_a_search_that_cannot_be_read_is_not_believed():
    async def script(talk: Talk) -> None:
        search = await talk.expect(rb"UID SEARCH")
        await talk.send(b"* ESEARCH UID ALL 1:3,x\r\n")
        await talk.ok(search)
        await talk.silence()

    async with talking(script) as connection:
        with pytest.raises(ProtocolError):
            await connection.search()


async def test_odd_mailbox_names_are_sent_back_as_they_came():
    async def script(talk: Talk) -> None:
        talk.capabilities = "IMAP4rev1"
        listing = await talk.expect(rb'LIST "" "\*"$')
        await talk.send(b'* LIST () "/" "b&d"\r\n* LIST () "/" {3}\r\n\xffx\xe9\r\n* LIST (\\NonExistent) "/" gone\r\n')
        await talk.ok(listing)
        await talk.ok(await talk.expect(rb'STATUS "b&d" '))
        await talk.ok(await talk.expect(rb"STATUS \{3\}\r\n\xffx\xe9 "))
        await talk.silence()

    async with talking(script) as connection:
        refs = await connection.list_mailboxes()
        assert [(ref.path, ref.selectable) for ref in refs] == [("b&d", True), ("ÿxé", True), ("gone", False)]
        assert await connection.statuses(["b&d", "ÿxé"]) == [None, None]


async def test_a_fetch_that_ends_in_no_says_so_after_what_came():
    async def script(talk: Talk) -> None:
        fetch = await talk.expect(rb"UID FETCH")
        await talk.send(b"* 1 FETCH (UID 1 BODY[] {1}\r\nx)\r\n")
        await talk.no(fetch, "[SERVERBUG] some could not be read")
        await talk.silence()

    async with talking(script) as connection:
        seen = []
        with pytest.raises(CommandError, match="SERVERBUG"):
            async for body in connection.fetch_bodies(UidSet([1, 2])):
                seen.append(body.body)
        assert seen == [b"x"]
        assert not connection.closed


async def test_a_set_too_long_for_one_line_is_asked_in_pipelined_pieces():
    pieces: list[bytes] = []

    async def script(talk: Talk) -> None:
        while len(pieces) < 2:
            fetch = await talk.expect(rb"UID FETCH (\S+) ")
            pieces.append(fetch.match[1])
            await talk.ok(fetch)
        await talk.silence()

    scattered = UidSet(range(1_000_000, 1_002_000, 2))
    async with talking(script) as connection:
        before = connection.round_trips
        assert (await connection.fetch_flags(scattered)).messages == []
        assert connection.round_trips - before == 1
    assert UidSet.parse(b",".join(pieces).decode()) == scattered


async def test_logout_of_a_server_that_does_not_answer_is_bounded(monkeypatch: pytest.MonkeyPatch):
    async def script(talk: Talk) -> None:
        await talk.expect(rb"LOGOUT")
        await talk.silence()

    monkeypatch.setattr("mailmill.imap.connection._LOGOUT_SECONDS", 0.05)
    async with talking(script) as connection:
        await connection.logout()
        assert connection.closed


async def test_a_response_above_the_caps_ends_the_connection():
    async def script(talk: Talk) -> None:
        await talk.expect(rb"NOOP")
        await talk.send(b"* OK " + b"x" * 5000 + b"\r\n")
        await talk.silence()

    async with talking(script, ConnectionSettings(limits=Limits(line_bytes=4000))) as connection:
        with pytest.raises(LimitError):
            await connection.noop()
        assert connection.closed
