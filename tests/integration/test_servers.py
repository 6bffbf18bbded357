"""The test servers themselves: what other tests rely on must hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from blockbuster import BlockingError

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
