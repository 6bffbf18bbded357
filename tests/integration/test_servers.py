"""The test servers themselves: what other tests rely on must hold."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from blockbuster import BlockingError

from mailmill.imap.connection import ConnectionSettings, ImapConnection
from mailmill.model import Tls
from servers.cyrus import Cyrus
from servers.dovecot import Dovecot
from servers.proxy import Proxy
from servers.pymap import Pymap
from servers.scripted import ScriptedServer, Talk

RAW = b"From: a@example.org\r\nSubject: hello\r\n\r\nbody\r\n"


async def read_line(port: int) -> bytes:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
    return line


async def test_a_blocking_call_in_a_test_is_caught() -> None:
    with pytest.raises(BlockingError):
        time.sleep(0)


async def test_tests_run_on_uvloop() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


async def test_dovecot_keeps_the_order_of_deliveries_and_appends(dovecot: Dovecot, mail_user: str) -> None:
    await dovecot.add_message(mail_user, "INBOX", RAW)
    await dovecot.add_messages(mail_user, "INBOX", [RAW, RAW], [r"\Seen"])
    assert await dovecot.append(mail_user, "INBOX", RAW, [r"\Flagged"]) == 4
    await dovecot.set_flags(mail_user, "INBOX", "uid 1", [r"\Answered", "work"])
    assert await dovecot.flags(mail_user, "INBOX") == {
        1: {r"\Answered", "work"},
        2: {r"\Seen"},
        3: {r"\Seen"},
        4: {r"\Flagged"},
    }


async def test_dovecot_mailboxes_with_any_name(dovecot: Dovecot, mail_user: str) -> None:
    await dovecot.add_message(mail_user, "Projekte/Größe & Maß", RAW)
    assert await dovecot.status(mail_user, "Projekte/Größe & Maß") == 1
    await dovecot.rename_mailbox(mail_user, "Projekte/Größe & Maß", "Neu")
    assert "Neu" in await dovecot.mailboxes(mail_user)
    await dovecot.move(mail_user, "Neu", "Archive", "uid 1")
    await dovecot.delete_mailbox(mail_user, "Neu")
    assert "Neu" not in await dovecot.mailboxes(mail_user)
    await dovecot.expunge(mail_user, "Archive")
    assert await dovecot.status(mail_user, "Archive") == 0


async def test_dovecot_can_lose_its_uid_validity(dovecot: Dovecot, mail_user: str) -> None:
    await dovecot.add_message(mail_user, "INBOX", RAW)
    before = await dovecot.status(mail_user, "INBOX", "uidvalidity")
    assert await dovecot.reset_uid_validity(mail_user, "INBOX") != before
    assert await dovecot.status(mail_user, "INBOX") == 1


async def test_dovecot_restarts_on_its_ports_with_its_mail(start_dovecot: Callable[..., Awaitable[Dovecot]]) -> None:
    server = await start_dovecot()
    await server.add_message("alice", "INBOX", RAW)
    port = server.port
    await server.restart()
    assert server.port == port
    assert b"OK" in await read_line(port)
    assert await server.status("alice", "INBOX") == 1


async def test_cyrus_does_what_another_client_asks(cyrus: Cyrus) -> None:
    user = cyrus.new_user()
    await cyrus.add_message(user, "INBOX", RAW, [r"\Seen"])
    assert await cyrus.append(user, "INBOX", RAW, [r"\Flagged"]) == 2
    await cyrus.append(user, "INBOX", RAW)
    await cyrus.set_flags(user, "INBOX", "uid 1", ["work"])
    await cyrus.set_flags(user, "INBOX", "uid 2", [r"\Flagged"], action="remove")
    assert await cyrus.flags(user, "INBOX") == {1: {r"\Seen", "work"}, 2: frozenset(), 3: frozenset()}
    await cyrus.add_message(user, "Projekte/Größe & Maß", RAW)
    await cyrus.rename_mailbox(user, "Projekte/Größe & Maß", "Neu")
    await cyrus.copy(user, "INBOX", "Neu", "uid 1")
    await cyrus.move(user, "INBOX", "Archive", "uid 2")
    await cyrus.expunge(user, "INBOX", "uid 3")
    assert [await cyrus.status(user, path) for path in ("INBOX", "Neu", "Archive")] == [1, 2, 1]
    assert set(await cyrus.mailboxes(user)) == {"INBOX", "Sent", "Junk", "Archive", "Projekte", "Neu"}
    before = await cyrus.status(user, "Neu", "uidvalidity")
    await cyrus.delete_mailbox(user, "Neu")
    await cyrus.create_mailbox(user, "Neu")
    assert await cyrus.status(user, "Neu", "uidvalidity") != before


async def test_cyrus_tells_an_idling_client_and_restarts_with_its_mail(
    start_cyrus: Callable[..., Awaitable[Cyrus]],
) -> None:
    server = await start_cyrus()
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        try:
            await reader.readline()
            writer.write(b"a LOGIN bob x\r\nb SELECT INBOX\r\nc IDLE\r\n")
            await reader.readuntil(b"+ idling")
            await server.append("bob", "INBOX", RAW)
            await reader.readuntil(b"* 1 EXISTS")
        finally:
            writer.close()
    port = server.port
    await server.restart()
    assert server.port == port
    assert await server.status("bob", "INBOX") == 1


@pytest.mark.parametrize("tls", list(Tls))
async def test_cyrus_in_the_clear_and_under_tls(cyrus: Cyrus, tls: Tls) -> None:
    connection = await ImapConnection.open(cyrus.endpoint(tls), ConnectionSettings())
    await connection.authenticate(cyrus.credentials(cyrus.new_user()))
    assert connection.features.qresync
    await connection.logout()


async def test_pymap_greets(pymap: Pymap) -> None:
    assert b"OK" in await read_line(pymap.port)


async def test_a_script_answers_the_routine_and_plays_its_part() -> None:
    async def one_fetch(talk: Talk) -> None:
        fetch = await talk.expect(rb"UID FETCH (\S+)")
        assert fetch.match[1] == b"1:3"
        await talk.drip(b"* 1 FETCH (UID 1)\r\n", 5)
        await talk.cut(b"* 2 FETCH (UID 2)\r\n", at=6)

    async with ScriptedServer(one_fetch) as server, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b'a LOGIN "user" {3}\r\n')
        assert (await reader.readline()).startswith(b"* OK [CAPABILITY")
        assert (await reader.readline()).startswith(b"+")
        writer.write(b"abc\r\nb EXAMINE INBOX\r\nc UID FETCH 1:3 (UID)\r\n")
        said = await reader.read(-1)
        assert b"a OK" in said
        assert b"b OK" in said
        assert said.endswith(b"* 1 FETCH (UID 1)\r\n* 2 FE")
        writer.close()


async def test_a_script_that_meets_something_else_fails_the_test() -> None:
    async def only_idle(talk: Talk) -> None:
        await talk.idle()

    with pytest.raises(AssertionError, match="UID STORE"):
        async with ScriptedServer(only_idle) as server, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"a UID STORE 1 +FLAGS (x)\r\n")
            await reader.read(-1)
            writer.close()


async def test_the_proxy_counts_round_trips(pymap: Pymap) -> None:
    async with Proxy(pymap.host, pymap.port) as proxy, asyncio.timeout(10):
        proxy.delay_seconds = 0.001
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        await reader.readline()
        assert proxy.round_trips == 0
        writer.write(b"a NOOP\r\nb NOOP\r\n")
        await reader.readuntil(b"b OK")
        assert proxy.round_trips == 1
        await reader.readline()
        writer.write(b"c NOOP\r\n")
        await reader.readuntil(b"c OK")
        assert proxy.round_trips == 2
        assert proxy.bytes_up == len(b"a NOOP\r\nb NOOP\r\nc NOOP\r\n")
        proxy.cut()
        assert b"BYE" not in await reader.read(-1)
        await proxy.until(lambda: proxy.open_connections == 0)
        writer.close()


async def test_the_proxy_cuts_at_a_byte(pymap: Pymap) -> None:
    async with Proxy(pymap.host, pymap.port) as proxy, asyncio.timeout(10):
        proxy.cut_after_bytes_down = 4
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        assert await reader.read(-1) == b"* OK"
        writer.close()


async def test_the_proxy_cuts_in_the_middle_and_only_once(pymap: Pymap) -> None:
    async with Proxy(pymap.host, pymap.port) as proxy, asyncio.timeout(10):
        proxy.cut_soon(4)
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        assert await reader.read(-1) == b"* OK"
        writer.close()
        assert (await read_line(proxy.port)).startswith(b"* OK")


async def test_the_proxy_drips(pymap: Pymap) -> None:
    async with Proxy(pymap.host, pymap.port) as proxy, asyncio.timeout(10):
        whole = await read_line(proxy.port)
        proxy.drip_bytes = 1
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        pieces = [await reader.read(1000)]
        while not pieces[-1].endswith(b"\n"):
            pieces.append(await reader.read(1000))
        assert b"".join(pieces) == whole
        assert len(pieces) > 1
        writer.close()


async def test_the_proxy_loses_the_server(pymap: Pymap) -> None:
    """The client is not told, is not answered, and can hang up."""
    async with Proxy(pymap.host, pymap.port) as proxy, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        await reader.readline()
        proxy.lose_server()
        writer.write(b"a NOOP\r\n")
        answer = asyncio.create_task(reader.read(-1))
        assert await read_line(proxy.port), "others are served"
        await proxy.until(lambda: proxy.open_connections == 1)
        assert not answer.done()
        writer.close()
        await proxy.until(lambda: proxy.open_connections == 0)
        assert await answer == b""


async def test_the_proxy_loses_the_client() -> None:
    """The server is not told, and goes on until it hangs up."""
    heard = asyncio.Event()
    hang_up = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set()
        await hang_up.wait()
        assert not reader.at_eof()
        writer.close()

    async with (
        asyncio.timeout(10),
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        Proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy,
    ):
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        await heard.wait()
        proxy.lose_client()
        with contextlib.suppress(ConnectionError):
            assert await reader.read(-1) == b""
        assert proxy.open_connections == 1
        hang_up.set()
        await proxy.until(lambda: proxy.open_connections == 0)
        writer.close()
