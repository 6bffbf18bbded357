"""What cannot be read or cannot be had: one message waits, parked and shown; no other waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.fake_imap import CONDSTORE, TIERS, Act, Answer, Client, FakeImap
from harness.fake_imap_faults import altered, cut, replaced
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import (
    BODIES,
    CHANGES,
    METADATA,
    account_on,
    arrived,
    check,
    let_time_pass,
    on_every_tier,
    one_pass,
    parked,
    passes_until_whole,
    raw,
)
from mailmill.imap.connection import ConnectionSettings
from mailmill.model import AccountState
from servers.scripted import Command

pytestmark = pytest.mark.both_databases

GIGABYTE = 1 << 30


# -- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        (rb"\* (\d+) FETCH \(UID 2 FLAGS \(\)", rb"* \1 FETCH (UID 2 FLAGS ("),
        (rb"UID 2 ", rb"UID 99999999999 "),
        (rb"UID 2 FLAGS", rb'UID 2 ENVELOPE ("only" "three" "fields") FLAGS'),
        (rb"\* \d+ FETCH \(UID 2 .*", b"* no such thing\r\n"),
    ],
    ids=["unclosed", "uid", "envelope", "line"],
)
@on_every_tier
async def test_metadata_that_cannot_be_read_parks_one_message(
    capabilities: str, pattern: bytes, by: bytes, data_dir: Path
) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        server.fault(METADATA, replaced(pattern, by, required=False), times=None)
        assert (await one_pass(account)).new == 2
        assert set(await account.held()) == {1, 3}
        assert await parked(account) == "2"
        assert await account.scalar("select uncovered from mailbox") == "2"
        assert await account.scalar("select count(*) from work") == 4
        await one_pass(account)
        assert await parked(account) == "2"
        server.heal()
        let_time_pass(account)
        assert (await one_pass(account)).new == 1
        assert await parked(account) == ""
        await check(server, data_dir)


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        (rb"\(UID 2 BODY\[\]", b"(UID 2 BODY["),
        (rb"UID 2 BODY", b"UID two BODY"),
        (rb"UID 2 BODY.*", b"UID 2 BODY[] NIL)\r\n"),
        (rb"UID 2 BODY.*", b"UID 2 FLAGS ())\r\n"),
    ],
    ids=["section", "uid", "nil", "other_items"],
)
@on_every_tier
async def test_a_body_that_cannot_be_read_parks_one_message(
    capabilities: str, pattern: bytes, by: bytes, data_dir: Path
) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        server.fault(BODIES, replaced(pattern, by))
        await one_pass(account)
        assert set(await account.held()) == {1, 3}
        assert await parked(account) == "2"
        let_time_pass(account)
        await one_pass(account)
        await check(server, data_dir)


@pytest.mark.parametrize("tier", ["qresync", "condstore"])
async def test_a_flag_change_that_cannot_be_read_is_asked_for_again(tier: str, data_dir: Path) -> None:
    """The mod-sequence may not pass an answer that was not whole: nothing else would ever show the change again."""
    async with (
        FakeImap(capabilities=TIERS[tier]) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        server.inbox.set_flags(1, r"\Seen")
        server.inbox.set_flags(2, r"\Flagged")
        server.fault(CHANGES, replaced(rb"UID 2 FLAGS \(", b"UID 2 FLAGS (("))
        await one_pass(account)
        assert (await account.held())[1] == {r"\Seen"}
        await one_pass(account)
        await check(server, data_dir)
        asked = server.count(CHANGES)
        await one_pass(account)
        assert server.count(CHANGES) == asked


async def test_a_vanished_that_cannot_be_read_loses_nothing(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        server.inbox.expunge(2)
        server.fault(CHANGES, replaced(rb"VANISHED \(EARLIER\) 2", b"VANISHED (EARLIER) 2:x"))
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)


@pytest.mark.parametrize(
    ("command", "pattern", "by"),
    [(rb"UID SEARCH", rb"UID ALL \S+", b"UID ALL 1,3:x"), (rb"LIST", rb'LIST \(.*"Archive"', b"LIST (")],
    ids=["search", "list"],
)
async def test_an_answer_that_must_be_whole_and_is_not_deletes_nothing(
    command: bytes, pattern: bytes, by: bytes, data_dir: Path
) -> None:
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Archive"), capabilities=CONDSTORE) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        # Nothing but a search can tell what went.
        server.inbox.expunge(2)
        server.fault(command, replaced(pattern, by))
        report = await account.sync.run_once()
        assert report.error is not None
        assert report.error.code == "protocol"
        assert set(await account.held()) == {1, 2, 3}
        assert await account.scalar("select count(*) from event where event = 'mailboxDeleted'") == 0
        await one_pass(account)
        await check(server, data_dir)


# -- messages that cannot be had --------------------------------------------------------------------------------------


class Flood:
    """Announces a literal of 1 GB for one message and sends as much of it as the client takes."""

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.announced = 0
        self.taken_bytes = 0

    async def __call__(self, client: Client, _command: Command, answer: Answer) -> None:
        for response in answer:
            if b"UID %d " % self.uid in response:
                self.announced += 1
                await client.talk.send(b"* 1 FETCH (UID %d BODY[] {%d}\r\n" % (self.uid, GIGABYTE))
                self.taken_bytes += await client.talk.flood(GIGABYTE)
                raise ConnectionResetError("the client hung up")
            await client.send([response])


@pytest.mark.parametrize("uid", [1, 3, 5], ids=["oldest", "middle", "newest"])
@on_every_tier
async def test_a_gigabyte_announced_parks_one_message(capabilities: str, uid: int, data_dir: Path) -> None:
    flood = Flood(uid)
    async with FakeImap(capabilities=capabilities) as server, account_on(server, data_dir) as account:
        server.fault(BODIES, flood, times=None)
        server.inbox.add(*(raw(number) for number in range(1, 6)))
        await account.wait_for(arrived(4))
        while await parked(account) != str(uid):
            await account.sync.sync_now()
        assert set(await account.held()) == {1, 2, 3, 4, 5} - {uid}
        assert flood.announced <= 3
        # What was under way in the sockets' buffers; nothing of it is held.
        assert flood.taken_bytes < 64 << 20
        connections = server.connections
        await account.once()
        server.inbox.add(raw(6))
        await account.wait_for(arrived(5))
        assert account.sync.view().state is AccountState.CONNECTED
        assert server.connections == connections
        server.heal()
        let_time_pass(account)
        await account.once()
        await check(server, data_dir)


async def test_a_gigabyte_announced_for_the_only_message(data_dir: Path) -> None:
    flood = Flood(1)
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.fault(BODIES, flood, times=None)
        server.inbox.add(raw(1))
        assert await passes_until_whole(account) <= 3
        assert await parked(account) == "1"
        assert flood.announced <= 3
        server.inbox.add(raw(2))
        await one_pass(account)
        assert set(await account.held()) == {2}


async def test_an_honest_gigabyte_is_not_even_asked_for(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2), raw(3))
        server.inbox.messages[2].size_bytes = GIGABYTE
        await one_pass(account)
        assert await parked(account) == "2"
        assert "max_message_bytes" in str(await account.scalar("select reason from parked"))
        assert set(await account.held()) == {1, 3}
        assert not any(line.startswith((b"UID FETCH 2", b"UID FETCH 1:3 (UID BODY")) for line in server.commands)


async def test_a_long_literal_goes_through_the_spool(data_dir: Path) -> None:
    settings = ConnectionSettings(stream_literal_bytes=1000)
    async with (
        FakeImap() as server,
        account_on(server, data_dir, running=False, connection=settings) as account,
    ):
        server.inbox.add(raw(1), raw(2, "x" * 100_000), raw(3, "y" * 2_000))
        server.fault(BODIES, cut(50_000))
        assert (await account.sync.run_once()).errors
        await one_pass(account)
        await check(server, data_dir)
        assert await asyncio.to_thread(lambda: [path.name for path in data_dir.glob("literal-*")]) == []


@pytest.mark.parametrize("size_bytes", [10, 5000], ids=["in_memory", "spooled"])
@on_every_tier
async def test_a_server_that_says_everything_twice_and_backwards(
    capabilities: str, size_bytes: int, data_dir: Path
) -> None:
    """And speaks of messages it was not asked for."""
    settings = ConnectionSettings(stream_literal_bytes=1000)

    def twice(answer: Answer) -> Answer:
        other = b"* 1 FETCH (UID 77 FLAGS () RFC822.SIZE 5 BODY[] {5}\r\nother)\r\n"
        return [*reversed(answer[:-1]), other, *answer]

    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False, connection=settings) as account,
    ):
        server.inbox.add(*(raw(number, f"{number}" * size_bytes) for number in range(1, 5)))
        server.fault(rb"UID", altered(twice), times=None)
        assert (await one_pass(account)).new == 4
        server.inbox.set_flags(2, r"\Seen")
        await one_pass(account)
        await check(server, data_dir)
        assert await asyncio.to_thread(lambda: [path.name for path in data_dir.glob("literal-*")]) == []


@on_every_tier
async def test_a_message_that_is_listed_but_never_sent(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        server.inbox.messages[2].withheld = True
        await one_pass(account)
        assert set(await account.held()) == {1, 3}
        assert await parked(account) == "2"
        assert "does not send it" in str(await account.scalar("select reason from parked"))
        asked = server.count(BODIES)
        server.inbox.add(raw(4))
        await one_pass(account)
        assert set(await account.held()) == {1, 3, 4}
        assert server.count(BODIES) == asked + 1
        let_time_pass(account)
        await one_pass(account)
        assert await account.scalar("select attempts from parked") == 2
        let_time_pass(account)
        server.inbox.messages[2].withheld = False
        await one_pass(account)
        await check(server, data_dir)
        assert await parked(account) == ""


def poisoned(uid: int, status: str) -> Act:
    """A server that ends a FETCH in NO or BAD when it comes to one message, and sends none of those behind it."""

    async def act(client: Client, command: Command, answer: Answer) -> None:
        before = []
        for response in answer:
            if b"UID %d " % uid in response:
                await client.send(before)
                await client.talk.tagged(command, status, "[SERVERBUG] cannot read this message")
                return
            before.append(response)
        await client.send(answer)

    return act


@pytest.mark.parametrize("status", ["NO", "BAD"])
@pytest.mark.parametrize("uid", [1, 3, 5], ids=["oldest", "middle", "newest"])
async def test_one_message_that_the_server_cannot_read_holds_back_no_other(
    status: str, uid: int, data_dir: Path
) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(*(raw(number) for number in range(1, 6)))
        server.fault(BODIES, poisoned(uid, status), times=None)
        await passes_until_whole(account)
        assert set(await account.held()) == {1, 2, 3, 4, 5} - {uid}
        assert await parked(account) == str(uid)
        server.heal()
        let_time_pass(account)
        await one_pass(account)
        await check(server, data_dir)


async def test_a_message_at_which_the_server_hangs_up(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(*(raw(number) for number in range(1, 6)))

        async def hang_up(client: Client, _command: Command, answer: Answer) -> None:
            for response in answer:
                if b"UID 5 " in response:
                    await client.talk.hang_up()
                    raise ConnectionResetError("crashed")
                await client.send([response])

        server.fault(BODIES, hang_up, times=None)
        assert await passes_until_whole(account) <= 4
        assert set(await account.held()) == {1, 2, 3, 4}
        assert await parked(account) == "5"
        server.heal()
        let_time_pass(account)
        await one_pass(account)
        await check(server, data_dir)
