"""Changes and a server that plays a script: how literals go, what comes between, refusals, cuts, and lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from harness.connections import talking
from harness.fake_imap import FakeImap
from harness.fake_imap_faults import cut
from mailmill.errors import CommandError, ConnectionLostError, ProtocolError
from mailmill.imap.connection import AppendReply, ConnectionSettings, CopyReply, ImapConnection
from mailmill.model import MessageMeta, Uid
from mailmill.uid_set import UidSet
from servers.scripted import CAPABILITIES, Talk

LONG = b"x" * 8_000_000
FLAGGED = frozenset({"\\Flagged"})


async def appending(talk: Talk, capabilities: str = "") -> bytes:
    """Answer what comes before, up to the line that announces the message; its tag."""
    talk.capabilities = f"IMAP4rev1 {capabilities}"
    await talk.ok(await talk.expect(rb"LOGIN"), f"[CAPABILITY {talk.capabilities}] welcome")
    line = await talk.read_line()
    assert b" APPEND " in line
    return line.split()[0]


@asynccontextmanager
async def answering(pattern: bytes, *responses: bytes, tagged: bytes = b"OK done") -> AsyncIterator[ImapConnection]:
    """A mailbox selected for writing, on a server that gives this one answer to ``pattern``."""

    async def script(talk: Talk) -> None:
        talk.capabilities = CAPABILITIES + " MOVE"
        command = await talk.expect(pattern)
        await talk.drip(b"".join(response + b"\r\n" for response in responses), 7)
        await talk.send(command.tag + b" " + tagged + b"\r\n")
        await talk.expect(rb"NOTHING MORE")

    async with talking(script) as connection:
        await connection.select("INBOX", read_only=False)
        connection.take_hint()
        yield connection


# -- how a message goes out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "raw", "announced"),
    [
        ("LITERAL+", b"x" * 5, b"{5+}"),
        ("LITERAL+", b"x" * 5000, b"{5000+}"),
        ("LITERAL-", b"x" * 4096, b"{4096+}"),
        ("LITERAL-", b"x" * 4097, b"{4097}"),
        ("", b"x" * 5, b"{5}"),
        ("LITERAL+ BINARY", b"x" * 5, b"{5+}"),
        ("LITERAL+ BINARY", b"a\0b", b"~{3+}"),
        ("BINARY", b"a\0b", b"~{3}"),
        ("", b"no line end\n.\r\n\xff A1 LOGOUT\r\n", b"{28}"),
    ],
)
async def test_literals_wait_unless_the_server_takes_them_at_once(capability: str, raw: bytes, announced: bytes):
    seen: list[bytes] = []

    async def script(talk: Talk) -> None:
        tag = await appending(talk, capability)
        if b"+" not in announced:
            await talk.send(b"+ go on\r\n")
        seen.append(await talk.read_exactly(len(raw)))
        assert await talk.read_line() == b"\r\n"
        seen.append(talk.received[-2])
        await talk.send(tag + b" OK [APPENDUID 7 9] taken\r\n")
        await talk.expect(rb"NOTHING MORE")

    async with talking(script) as connection:
        before = connection.round_trips
        assert await connection.append("INBOX", raw) == AppendReply(7, Uid(9))
        assert connection.round_trips - before == (1 if b"+" in announced else 2)
    assert seen == [raw, b'A2 APPEND "INBOX" ' + announced + b"\r\n"]


async def test_a_mailbox_name_as_a_literal_waits_for_itself():
    async def script(talk: Talk) -> None:
        talk.capabilities = "IMAP4rev1"
        listing = await talk.expect(rb"LIST")
        await talk.send(b'* LIST () "/" {3}\r\n\xffx\xe9\r\n')
        await talk.ok(listing)
        append = await talk.expect(rb"APPEND \{3\}\r\n\xffx\xe9 \(\\Seen\) \{5\}\r\nhello$")
        await talk.ok(append)
        await talk.expect(rb"NOTHING MORE")

    async with talking(script) as connection:
        [odd] = await connection.list_mailboxes()
        assert await connection.append(odd.path, b"hello", flags=frozenset({"\\Seen"})) == AppendReply(None, None)


@pytest.mark.parametrize("text", ["[TRYCREATE] no such mailbox", "[OVERQUOTA] full", "[TOOBIG] too big"])
async def test_a_server_that_refuses_before_the_message_is_sent_none_of_it(text: str):
    async def script(talk: Talk) -> None:
        tag = await appending(talk)
        await talk.send(tag + f" NO {text}\r\n".encode())
        await talk.ok(await talk.expect(rb"NOOP$"))
        await talk.expect(rb"NOTHING MORE")

    async with talking(script) as connection:
        before = connection.bytes_sent
        with pytest.raises(CommandError) as caught:
            await connection.append("INBOX", LONG)
        assert caught.value.response_code == text.partition("]")[0].lstrip("[")
        assert connection.bytes_sent - before < 100
        await connection.noop()


async def test_a_server_that_refuses_what_is_under_way_still_gets_it_all():
    """RFC 7888 §4: it reads the literal whatever it thinks of it, and the rest would be commands if it did not come."""

    async def script(talk: Talk) -> None:
        tag = await appending(talk, "LITERAL+")
        await talk.send(tag + b" NO [OVERQUOTA] full\r\n")
        assert await talk.read_exactly(len(LONG)) == LONG
        assert await talk.read_line() == b"\r\n"
        await talk.ok(await talk.expect(rb"NOOP$"))
        await talk.expect(rb"NOTHING MORE")

    async with talking(script) as connection:
        with pytest.raises(CommandError, match="OVERQUOTA"):
            await connection.append("INBOX", LONG)
        await connection.noop()


async def test_a_server_that_asked_for_the_message_and_ends_early_might_take_it_for_commands():
    async def script(talk: Talk) -> None:
        tag = await appending(talk)
        await talk.send(b"+ go on\r\n")
        await talk.read_exactly(1000)
        await talk.send(tag + b" NO changed my mind\r\n")
        await talk.silence()

    async with talking(script) as connection:
        with pytest.raises(ProtocolError, match="while it was being sent"):
            await connection.append("INBOX", LONG * 4)
        assert connection.closed


@pytest.mark.parametrize("capability", ["", "LITERAL+"])
async def test_an_ok_before_the_message_is_through_is_no_success(capability: str):
    """What the server has taken, if anything, is not the message."""

    async def script(talk: Talk) -> None:
        tag = await appending(talk, capability)
        await talk.send(tag + b" OK [APPENDUID 1 2] done\r\n")
        await talk.silence()

    async with talking(script) as connection:
        with pytest.raises(ProtocolError, match="before it had all of it"):
            await connection.append("INBOX", LONG)
        assert connection.closed


async def test_an_ok_before_the_arguments_are_through_is_no_success():
    async def script(talk: Talk) -> None:
        talk.capabilities = "IMAP4rev1"
        await talk.ok(await talk.expect(rb"LOGIN"), "[CAPABILITY IMAP4rev1] welcome")
        line = await talk.read_line()
        assert line.endswith(b" STATUS {1}\r\n")
        await talk.send(line.split()[0] + b" OK done\r\n")
        await talk.silence()

    async with talking(script) as connection:
        connection.learn_names({"odd": b"\xff"})
        with pytest.raises(ProtocolError, match="before it had all of it"):
            await connection.status("odd")
        assert connection.closed


@pytest.mark.both_loops
async def test_a_slow_server_holds_the_message_back():
    go_on = asyncio.Event()
    reading = asyncio.Event()

    async def script(talk: Talk) -> None:
        tag = await appending(talk, "LITERAL+")
        reading.set()
        await go_on.wait()
        left = len(LONG) * 6
        while left:
            left -= len(await talk.read_exactly(min(left, 2**20)))
        await talk.read_line()
        await talk.send(tag + b" OK taken\r\n")
        await talk.expect(rb"NOTHING MORE")

    async with talking(script) as connection:
        uploading = asyncio.create_task(connection.append("INBOX", LONG * 6))
        await reading.wait()
        sent = -1
        while sent != connection.bytes_sent:
            sent = connection.bytes_sent
            for _ in range(200):
                await asyncio.sleep(0)
        assert connection._link.transport.get_write_buffer_size() < 2**20
        assert sent < len(LONG) * 3, "what the kernel holds, and no more"
        go_on.set()
        await uploading


@pytest.mark.both_loops
async def test_a_server_that_stops_taking_is_a_lost_connection():
    async def script(talk: Talk) -> None:
        await appending(talk, "LITERAL+")
        await asyncio.Event().wait()

    async with talking(script, ConnectionSettings(command_timeout_seconds=0.05)) as connection:
        with pytest.raises(ConnectionLostError, match="no answer"):
            await connection.append("INBOX", LONG * 6)
        assert connection.closed


# -- cuts --------------------------------------------------------------------------------------------------------------


@pytest.mark.both_loops
@pytest.mark.parametrize("taken", [0, 1, 100_000, len(LONG)])
async def test_a_cut_in_the_middle_of_an_append(taken: int):
    async def script(talk: Talk) -> None:
        await appending(talk, "LITERAL+")
        await talk.read_exactly(taken)
        talk.abort()

    async with talking(script) as connection:
        with pytest.raises(ConnectionLostError):
            await connection.append("INBOX", LONG)
        assert connection.closed


async def test_bye_in_the_middle_of_an_append():
    async def script(talk: Talk) -> None:
        await appending(talk, "LITERAL+")
        await talk.read_exactly(1000)
        await talk.send(b"* BYE shutting down\r\n")
        await talk.silence()

    async with talking(script) as connection:
        with pytest.raises(ConnectionLostError, match="shutting down"):
            await connection.append("INBOX", LONG * 4)
        assert connection.closed


@pytest.mark.parametrize("taken", [0, 1000, len(LONG)])
async def test_a_cancelled_append_cuts_the_connection(taken: int):
    reached = asyncio.Event()

    async def script(talk: Talk) -> None:
        await appending(talk, "LITERAL+")
        await talk.read_exactly(taken)
        reached.set()
        await asyncio.Event().wait()

    async with talking(script) as connection:
        uploading = asyncio.create_task(connection.append("INBOX", LONG))
        await reached.wait()
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
        assert connection.closed
        with pytest.raises(ConnectionLostError):
            await connection.noop()


@pytest.mark.parametrize("command", ["STORE", "COPY", "MOVE", "EXPUNGE", "APPEND"])
async def test_a_cut_before_the_end_of_a_change_leaves_it_open_whether_it_was_made(command: str):
    async with FakeImap() as server:
        server.inbox.add(b"Subject: 1\r\n\r\n", flags=["\\Deleted"])
        server.fault(rb"(UID )?" + command.encode(), cut(at=3))
        connection = await ImapConnection.open(server.endpoint(), ConnectionSettings())
        await connection.authenticate(server.credentials())
        await connection.select("INBOX", read_only=False)
        uids = UidSet([1])
        change = {
            "STORE": lambda: connection.store_flags(uids, add=FLAGGED),
            "COPY": lambda: connection.copy(uids, "INBOX"),
            "MOVE": lambda: connection.move(uids, "INBOX"),
            "EXPUNGE": lambda: connection.expunge(uids),
            "APPEND": lambda: connection.append("INBOX", b"x"),
        }[command]
        with pytest.raises(ConnectionLostError):
            await change()
        assert connection.closed
        made = server.inbox.held() != {1: ({"\\Deleted"}, b"Subject: 1\r\n\r\n")}
        assert made, "here it was: who tries again must look first"


# -- what comes between ------------------------------------------------------------------------------------------------


async def test_news_during_a_store_is_neither_lost_nor_mistaken():
    async with answering(
        rb"UID STORE 1:2 \+FLAGS \(\\Flagged\)$",
        b"* 4 EXISTS",
        b"* 1 FETCH (UID 1 FLAGS (\\Flagged) MODSEQ (12))",
        b"* 3 FETCH (UID 3 FLAGS (\\Seen))",
        b"* 1 FETCH (FLAGS (\\Draft))",
        b"* VANISHED 4",
        b"* OK [HIGHESTMODSEQ 12] noted",
        b"* 2 FETCH (UID 2 MODSEQ (12) FLAGS (\\Flagged))",
        b"* 2 FETCH (UID 2 FLAGS (",
    ) as connection:
        reply = await connection.store_flags(UidSet([1, 2]), add=FLAGGED)
        assert reply.messages == [MessageMeta(Uid(1), FLAGGED, 12), MessageMeta(Uid(2), FLAGGED, 12)]
        assert reply.malformed == connection.malformed == 1
        assert connection.exists == 3
        assert connection.take_hint()


@pytest.mark.parametrize("vanished", [True, False])
async def test_news_during_a_move_is_neither_lost_nor_mistaken(vanished: bool):
    gone = [b"* VANISHED 1,3"] if vanished else [b"* 1 EXPUNGE", b"* 2 EXPUNGE"]
    async with answering(
        rb'UID MOVE 1 "Sent"$',
        b"* OK still here",
        b"* OK [COPYUID 7 1 90] moving",
        b"* 5 EXISTS",
        *gone,
        b"* 1 FETCH (UID 2 FLAGS (\\Seen))",
        tagged=b"OK [HIGHESTMODSEQ 99] moved",
    ) as connection:
        assert await connection.move(UidSet([1]), "Sent") == CopyReply(7, {Uid(1): Uid(90)})
        assert connection.exists == 3
        assert connection.take_hint()


async def test_news_during_an_append_is_neither_lost_nor_mistaken():
    async with answering(
        rb"APPEND",
        b"* 4 EXISTS",
        b"* 2 FETCH (UID 2 FLAGS (\\Seen))",
        b"* VANISHED 1",
        tagged=b"OK [APPENDUID 7 4] taken",
    ) as connection:
        assert await connection.append("INBOX", b"x") == AppendReply(7, Uid(4))
        assert connection.exists == 3
        assert connection.take_hint()


async def test_a_move_told_of_in_the_tagged_ok():
    async with answering(rb"UID MOVE", tagged=b"OK [COPYUID 7 1:2 90:91] moved") as connection:
        assert (await connection.move(UidSet([1, 2]), "Sent")).uids == {1: 90, 2: 91}


# -- refusals and lies -------------------------------------------------------------------------------------------------


async def test_a_no_that_tells_what_was_left_alone():
    """RFC 7162 §3.1.3, example 11."""
    async with answering(
        rb"UID STORE", b"* 1 FETCH (UID 1 MODSEQ (20))", tagged=b"NO [MODIFIED 2] some no longer exist"
    ) as connection:
        reply = await connection.store_flags(UidSet([1, 2]), add=FLAGGED, unchanged_since=9)
        assert reply.modified == UidSet([2])
        assert [message.uid for message in reply.messages] == [1]


async def test_a_refused_copy_is_refused_whatever_its_code():
    async with answering(rb"UID COPY", tagged=b"NO [MODIFIED 1] no") as connection:
        with pytest.raises(CommandError):
            await connection.copy(UidSet([1]), "Sent")


async def test_the_second_half_of_a_conditional_change_counts_the_first():
    sent: list[bytes] = []

    async def script(talk: Talk) -> None:
        removal = await talk.expect(rb"UID STORE .*-FLAGS")
        await talk.send(b"* 1 FETCH (UID 1 FLAGS () MODSEQ (15))\r\n* 3 FETCH (UID 3 FLAGS () MODSEQ (16))\r\n")
        await talk.ok(removal, "[MODIFIED 2] not all")
        addition = await talk.expect(rb"UID STORE .*\+FLAGS")
        sent.extend([removal.line, addition.line])
        await talk.ok(addition, "[MODIFIED 3] not all")
        await talk.expect(rb"NOTHING MORE")

    async with talking(script) as connection:
        await connection.select("INBOX", read_only=False)
        reply = await connection.store_flags(
            UidSet([1, 2, 3]), add=FLAGGED, remove=frozenset({"\\Seen"}), unchanged_since=9
        )
        assert reply.modified == UidSet([2, 3])
    assert sent == [
        b"UID STORE 1:3 (UNCHANGEDSINCE 9) -FLAGS (\\Seen)",
        b"UID STORE 1,3 (UNCHANGEDSINCE 16) +FLAGS (\\Flagged)",
    ]


async def test_a_condition_whose_outcome_cannot_be_read_is_an_error():
    async with answering(rb"UID STORE", tagged=b"OK [MODIFIED everything] sorry") as connection:
        with pytest.raises(ProtocolError, match="left unchanged"):
            await connection.store_flags(UidSet([1]), add=FLAGGED, unchanged_since=9)


async def test_modified_beyond_what_was_asked_for():
    async with answering(rb"UID STORE", tagged=b"OK [MODIFIED 1:4294967295] all of them") as connection:
        reply = await connection.store_flags(UidSet([1, 5]), add=FLAGGED, unchanged_since=9)
        assert reply.modified == UidSet([1, 5])


@pytest.mark.parametrize(
    "code",
    [
        b"COPYUID 7 1:4294967295 1:4294967295",
        b"COPYUID 7 1:2 5",
        b"COPYUID 7 5:6 8:9",
        b"COPYUID 7 1 1:4294967295",
        b"COPYUID 0 1 1",
        b"COPYUID",
        b"COPYUID 7 1:2 5:6 7",
        b"APPENDUID 7 9",
    ],
)
@pytest.mark.parametrize("untagged", [True, False])
async def test_what_cannot_be_true_of_copies_is_as_if_it_were_not_told(code: bytes, untagged: bool):
    told = [b"* OK [" + code + b"] x"] if untagged else []
    tagged = b"OK done" if untagged else b"OK [" + code + b"] done"
    async with answering(rb"UID COPY", *told, tagged=tagged) as connection:
        assert (await connection.copy(UidSet([1, 2]), "Sent")).uids == {}


@pytest.mark.parametrize("code", ["APPENDUID 7 1:9", "APPENDUID 7 0", "APPENDUID 7 4294967296", "COPYUID 7 1 1"])
async def test_what_cannot_be_true_of_an_append_is_as_if_it_were_not_told(code: str):
    async with answering(rb"APPEND", tagged=f"OK [{code}] taken".encode()) as connection:
        assert await connection.append("INBOX", b"x") == AppendReply(None, None)


@pytest.mark.parametrize("status", ["NO", "BAD"])
async def test_what_comes_after_a_refused_piece_is_not_sent(status: str):
    scattered = UidSet(range(1_000_000, 1_004_000, 2))
    sent: list[bytes] = []

    async def script(talk: Talk) -> None:
        talk.capabilities = CAPABILITIES + " MOVE"
        first = await talk.expect(rb"UID MOVE")
        await talk.ok(first)
        second = await talk.expect(rb"UID MOVE")
        sent.extend([first.line, second.line])
        await talk.tagged(second, status, "[OVERQUOTA] full")
        await talk.expect(rb"NOTHING MORE")

    async with talking(script) as connection:
        await connection.select("INBOX", read_only=False)
        with pytest.raises(CommandError, match="OVERQUOTA"):
            await connection.move(scattered, "Sent")
    assert all(len(line) < 8000 for line in sent)
    assert len(sent) == 2
