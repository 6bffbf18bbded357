"""Exchanges that go wrong: cut, silent, cancelled, unreadable, above the caps; nothing lost and nothing mistaken."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from harness.connections import bodies, talking
from mailmill.errors import (
    CommandError,
    ConnectionLostError,
    LimitError,
    ProtocolError,
)
from mailmill.imap.connection import ConnectionSettings
from mailmill.imap.limits import Limits
from mailmill.model import MessageMeta, Uid
from mailmill.uid_set import UidSet
from servers.scripted import Talk

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
        await talk.send(b'* LIST () "/" "b&d"\r\n* LIST () "/" {3}\r\n\xffx\xe9\r\n')
        await talk.send(b'* LIST (\\NonExistent \\HasChildren) "/" above\r\n')
        await talk.ok(listing)
        await talk.ok(await talk.expect(rb'STATUS "b&d" '))
        await talk.ok(await talk.expect(rb"STATUS \{3\}\r\n\xffx\xe9 "))
        await talk.silence()

    async with talking(script) as connection:
        refs = await connection.list_mailboxes()
        assert [(ref.path, ref.selectable) for ref in refs] == [("b&d", True), ("ÿxé", True), ("above", False)]
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
