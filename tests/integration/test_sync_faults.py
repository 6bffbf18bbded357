"""A whole account against a server that does what real ones don't do on demand: nothing is lost, nothing is held twice.

Every test ends in the same comparison (`harness.truth.check`): once the server behaves, the store equals it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import truth
from harness.fake_imap import (
    PLAIN,
    QRESYNC,
    TIERS,
    Act,
    Answer,
    Client,
    FakeImap,
    FakeMailbox,
    altered,
    cut,
    deaf,
    idle,
    refused,
    replaced,
)
from harness.syncing import SyncedAccount, synced_account
from mailmill.imap.connection import ConnectionSettings
from mailmill.model import AccountState
from mailmill.sync.context import SyncLimits
from mailmill.sync.report import PassReport
from servers.scripted import Command

GIGABYTE = 1 << 30
BODIES = rb"UID FETCH .*BODY"
METADATA = rb"UID FETCH .*RFC822.SIZE"
CHANGES = rb"UID FETCH .*CHANGEDSINCE"


def raw(number: int, text: str = "") -> bytes:
    return f"Subject: {number}\r\n\r\n{text or number}\r\n".encode()


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once: how long to wait is tested where it is decided (``test_sync_failures``)."""
    monkeypatch.setattr("mailmill.sync.account_sync.delay_seconds", lambda *_arguments, **_options: 0)


@pytest.fixture(params=TIERS)
def capabilities(request: pytest.FixtureRequest) -> str:
    return TIERS[request.param]


@asynccontextmanager
async def account_on(server: FakeImap, data_dir: Path, **options: Any) -> AsyncIterator[SyncedAccount]:
    async with synced_account(data_dir, server.endpoint(), server.credentials(), **options) as account:
        yield account


async def check(server: FakeImap, data_dir: Path) -> None:
    await asyncio.to_thread(truth.check, data_dir, server.truth())


async def one_pass(account: SyncedAccount) -> PassReport:
    """Connect, one pass, log out, as ``mailmill sync`` does."""
    report = await account.sync.run_once()
    assert not report.errors, report.errors
    return report


async def passes_until_whole(account: SyncedAccount, most: int = 6) -> int:
    """How many passes met an error before one did not."""
    for failed in range(most):
        if not (await account.sync.run_once()).errors:
            return failed
    raise AssertionError(f"{most} passes were not enough")


async def parked(account: SyncedAccount) -> str:
    """The UIDs that are parked, as text."""
    return str(
        await account.scalar("select coalesce(group_concat(uid), '') from (select uid from parked order by uid)")
    )


def let_time_pass(account: SyncedAccount, seconds: float = 2 * 24 * 3600.0) -> None:
    """By the account's clock; all that is parked is due again."""
    context = account.sync._context
    before = context.clock
    object.__setattr__(context, "clock", lambda: before() + seconds)


def arrived(count: int) -> Callable[[Any], bool]:
    return lambda rows: Counter(row.event for row in rows)["messageNew"] >= count


# -- cuts -------------------------------------------------------------------------------------------------------------


async def test_cut_at_every_byte_of_a_fetch_with_bodies(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        at = 0
        lengths = {1}

        async def cut_here(client: Client, command: Command, answer: Answer) -> None:
            lengths.add(len(b"".join(answer)))
            await cut(at)(client, command, answer)

        while at < max(lengths):
            inbox = server.inbox
            inbox.expunge(*list(inbox.messages))
            inbox.add(raw(3 * at + 10_000), raw(3 * at + 10_001, "x" * 20), raw(3 * at + 10_002))
            server.fault(BODIES, cut_here)
            report = await account.sync.run_once()
            assert report.error is not None
            assert report.error.code == "connectionLost"
            await one_pass(account)
            at += 1
        await one_pass(account)
        await check(server, data_dir)
        assert at == max(lengths) > 150
        assert await account.scalar("select count(*) from message") == 3 * at
        assert await parked(account) == ""


async def test_cut_all_along_a_first_sync(capabilities: str, data_dir: Path) -> None:
    """From the greeting to the goodbye, every few bytes, each time with something to do of every kind."""
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Archive"), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        number = 0
        failures = 0
        for at in range(0, 100_000, 23):
            inbox.add(raw(number), raw(number + 1))
            number += 2
            if len(inbox.messages) > 4:
                uids = list(inbox.messages)
                inbox.expunge(*uids[:2])
                inbox.set_flags(uids[2], *([r"\Seen"] if at % 2 else [r"\Flagged"]))
            server.cut_after_bytes = at
            report = await account.sync.run_once()
            server.heal()
            await one_pass(account)
            if not report.errors:
                break
            failures += 1
        await one_pass(account)
        await check(server, data_dir)
        assert failures > 30


async def say_goodbye(client: Client, _command: Command, answer: Answer) -> None:
    await client.send(answer[:1])
    await client.talk.bye("shutting down")
    raise ConnectionResetError("gone")


@pytest.mark.parametrize("act", [cut(30), say_goodbye], ids=["cut", "bye"])
@pytest.mark.parametrize("during", [METADATA, BODIES, rb"UID SEARCH", rb"EXAMINE"])
async def test_cut_while_it_runs(act: Act, during: bytes, data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir) as account:
        await account.once()
        server.fault(during, act, times=2)
        server.inbox.add(raw(1), raw(2), raw(3))
        await account.wait_for(arrived(3))
        await account.once()
        await check(server, data_dir)
        assert server.connections == 3


# -- changes in the middle of an answer -------------------------------------------------------------------------------


@pytest.mark.parametrize("during", [METADATA, BODIES], ids=["metadata", "bodies"])
@pytest.mark.parametrize("place", [0, 1, 2], ids=["before", "between", "after"])
async def test_a_message_vanishes_between_two_fetches(
    capabilities: str, during: bytes, place: int, data_dir: Path
) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))

        async def vanish(client: Client, _command: Command, answer: Answer) -> None:
            server.inbox.expunge(2)
            [news] = client.news()
            # A server does not number what it has just said is gone: its FETCH is among those before, or not at all.
            fetches = [response for response in answer[:-1] if b"UID 2 " not in response or place == 2]
            await client.send([*fetches[:place], news, *fetches[place:], answer[-1]])

        server.fault(during, vanish)
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)
        assert await parked(account) == ""


async def test_a_message_vanishes_between_metadata_and_body(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))

        async def vanish(client: Client, _command: Command, answer: Answer) -> None:
            await client.send(answer)
            server.inbox.expunge(2)

        server.fault(METADATA, vanish)
        assert (await one_pass(account)).new == 2
        await check(server, data_dir)
        assert await parked(account) == ""


@pytest.mark.parametrize(
    "during",
    [rb"EXAMINE", CHANGES, rb"UID SEARCH", METADATA, BODIES, rb"IDLE", rb"LIST"],
    ids=["examine", "flags", "search", "metadata", "bodies", "idle", "list"],
)
async def test_an_exists_during_another_command_is_enough(during: bytes, data_dir: Path) -> None:
    """The one hint comes while nobody waits for one; the next poll would be minutes away."""
    async with FakeImap() as server, account_on(server, data_dir) as account:
        server.inbox.add(raw(1), raw(2))
        await account.once()

        async def arrive(client: Client, command: Command, answer: Answer) -> None:
            server.inbox.add(raw(100))
            # Told here and so never again.
            exists = [response for response in client.news() if b"EXISTS" in response]
            assert exists
            if command.verb == b"IDLE":
                await client.send(exists)
                await idle(client, command)
            else:
                await client.send([*answer[:-1], *exists, answer[-1]])

        server.fault(during, arrive)
        server.inbox.add(raw(3))
        server.inbox.set_flags(1, r"\Seen")
        await account.wait_for(lambda rows: arrived(3)(rows) and any(row.event == "messageUpdated" for row in rows))
        if during == rb"LIST":
            await account.once()
        await account.wait_for(arrived(4))
        await check(server, data_dir)
        assert account.sync.view().push == "idle"
        assert server.connections == 1


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
async def test_metadata_that_cannot_be_read_parks_one_message(
    capabilities: str, pattern: bytes, by: bytes, data_dir: Path
) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        server.fault(METADATA, replaced(pattern, by))
        assert (await one_pass(account)).new == 2
        assert set(await account.held()) == {1, 3}
        assert await parked(account) == "2"
        assert await account.scalar("select uncovered from mailbox") == "2"
        assert await account.scalar("select count(*) from work") == 4
        await one_pass(account)
        assert await parked(account) == "2"
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


@pytest.mark.parametrize("command", [rb"UID SEARCH", rb"LIST"])
async def test_an_answer_that_must_be_whole_and_is_not_deletes_nothing(command: bytes, data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Archive")) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        server.inbox.add(raw(4))
        broken = {rb"UID SEARCH": (rb"UID ALL \S+", b"UID ALL 4:x"), rb"LIST": (rb'LIST \(.*"Archive"', b"LIST (")}
        server.fault(command, replaced(*broken[command]))
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


# -- logging in -------------------------------------------------------------------------------------------------------


async def test_a_refused_login_is_not_tried_again(data_dir: Path) -> None:
    async with FakeImap() as server:
        server.fault(rb"AUTHENTICATE", refused("NO", "[AUTHENTICATIONFAILED] wrong"), times=None)
        async with account_on(server, data_dir, poll_interval_seconds=0.01) as account:
            rows = await account.wait_for(lambda rows: any(row.event == "authenticationError" for row in rows))
            reports = await asyncio.gather(*(account.sync.sync_now() for _ in range(5)))
            assert {report.error.code for report in reports if report.error} == {"authentication"}
            assert account.sync.view().state is AccountState.AUTHENTICATION_ERROR
            assert (server.logins, server.connections) == (1, 1)
            assert [row.event for row in rows if row.event == "connectError"] == []
            server.heal()
            account.sync.resume()
            await account.wait_for(lambda rows: any(row.event == "authenticationSuccess" for row in rows))
            assert server.logins == 2


@pytest.mark.parametrize("text", ["[UNAVAILABLE] try later", "[INUSE] busy", "[LIMIT] too many"])
async def test_a_server_that_cannot_log_us_in_just_now_is_asked_again(text: str, data_dir: Path) -> None:
    async with FakeImap() as server:
        server.inbox.add(raw(1))
        server.fault(rb"AUTHENTICATE", refused("NO", text), times=2)
        async with account_on(server, data_dir) as account:
            rows = await account.wait_for(arrived(1))
            await account.once()
            assert account.sync.view().state is AccountState.CONNECTED
            assert server.logins == 3
            names = {row.event for row in rows}
            assert "authenticationError" not in names
            assert "connectError" in names
            await check(server, data_dir)


# -- IDLE -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("polite", [True, False], ids=["bye", "cut"])
async def test_goodbye_in_idle(polite: bool, data_dir: Path) -> None:
    idling = asyncio.Event()

    async def leave(client: Client, _command: Command, _answer: Answer) -> None:
        await client.send([b"+ idling\r\n"])
        idling.set()
        await client.news_came.wait()
        if polite:
            await client.talk.bye("Autologout")
        else:
            client.talk.abort()
        raise ConnectionResetError("gone")

    async with FakeImap() as server:
        server.fault(rb"IDLE", leave)
        async with account_on(server, data_dir) as account:
            await idling.wait()
            server.inbox.add(raw(1))
            await account.wait_for(arrived(1))
            await account.once()
            await check(server, data_dir)
            assert (server.connections, server.logins) == (2, 2)
            assert account.sync.view().state is AccountState.CONNECTED


async def test_an_idle_that_goes_silent_is_found_out_by_the_poll(data_dir: Path) -> None:
    reached = asyncio.Event()
    async with FakeImap() as server:
        server.fault(rb"IDLE", deaf(reached, b"+ idling\r\n"))
        settings = ConnectionSettings(command_timeout_seconds=0.2)
        async with account_on(server, data_dir, poll_interval_seconds=0.2, connection=settings) as account:
            await reached.wait()
            server.inbox.add(raw(1))
            await account.wait_for(arrived(1))
            await account.once()
            await check(server, data_dir)
            assert server.connections >= 2


async def test_an_idle_that_is_never_answered(data_dir: Path) -> None:
    reached = asyncio.Event()
    async with FakeImap() as server:
        server.fault(rb"IDLE", deaf(reached))
        settings = ConnectionSettings(command_timeout_seconds=0.2)
        async with account_on(server, data_dir, connection=settings) as account:
            await reached.wait()
            server.inbox.add(raw(1))
            await account.wait_for(arrived(1))
            await account.once()
            await check(server, data_dir)


@pytest.mark.parametrize("status", ["NO", "BAD"])
async def test_where_idle_is_refused_the_mailbox_is_polled(status: str, data_dir: Path) -> None:
    async with FakeImap() as server:
        server.fault(rb"IDLE", refused(status, "no idling here"), times=None)
        async with account_on(server, data_dir, poll_interval_seconds=0.05) as account:
            await account.once()
            for number in range(3):
                server.inbox.add(raw(number))
                await account.wait_for(arrived(number + 1))
            await account.once()
            await check(server, data_dir)
            assert account.sync.view().push == "poll"
            assert account.sync.view().state is AccountState.CONNECTED
            assert server.connections == 1
            assert server.count(rb"IDLE") == 1


@pytest.mark.parametrize("status", ["OK", "NO", "BAD"])
async def test_an_idle_that_ends_early_is_begun_again(status: str, data_dir: Path) -> None:
    """With what came meanwhile never told: the end itself is the hint."""
    idling = asyncio.Queue[Client]()

    async def end(client: Client, command: Command, _answer: Answer) -> None:
        client.news_came.clear()
        await client.send([b"+ idling\r\n"])
        idling.put_nowait(client)
        await client.news_came.wait()
        client.news()
        await client.talk.tagged(command, status, "long enough")

    async with FakeImap() as server:
        server.fault(rb"IDLE", end, times=None)
        async with account_on(server, data_dir) as account:
            for number in range(3):
                await idling.get()
                server.inbox.add(raw(number))
                await account.wait_for(arrived(number + 1))
            assert account.sync.view().push == "idle"
            assert account.sync.view().state is AccountState.CONNECTED
            assert server.connections == 1
            await check(server, data_dir)
            # Out of the last one, so that the goodbye is answered.
            await idling.get()
            server.heal()
            server.inbox.changed()


async def test_where_there_is_no_idle_the_mailbox_is_polled(data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=QRESYNC.replace(" IDLE", "")) as server,
        account_on(server, data_dir, poll_interval_seconds=0.05) as account,
    ):
        await account.once()
        server.inbox.add(raw(1))
        await account.wait_for(arrived(1))
        assert account.sync.view().push == "poll"
        assert server.count(rb"IDLE") == 0


# -- servers that contradict themselves -------------------------------------------------------------------------------


def without(*starts: bytes) -> Act:
    """The right answer less the responses that begin so."""
    return altered(lambda answer: [response for response in answer if not response.startswith(starts)])


@pytest.mark.parametrize(
    "act",
    [
        without(b"* STATUS"),
        replaced(rb"MESSAGES \d+", b"MESSAGES 0"),
        replaced(rb"STATUS (\S+) .*", rb"STATUS \1 ()\r\n"),
    ],
    ids=["no_status", "none_held", "empty_status"],
)
async def test_an_empty_status_deletes_nothing(act: Act, data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Archive")) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2))
        server.create(FakeMailbox("Lists")).add(raw(3))
        await one_pass(account)
        server.fault(rb"LIST", act)
        report = await one_pass(account)
        assert (report.expunged, report.new) == (0, 0)
        await check(server, data_dir)
        assert await account.scalar("select count(*) from event where event like '%Deleted'") == 0
        await one_pass(account)
        await check(server, data_dir)


@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
async def test_an_empty_list_is_an_error_and_deletes_nothing(first: bool, data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Archive")) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1))
        if not first:
            await one_pass(account)
        server.fault(rb"LIST", without(b"* LIST", b"* STATUS"))
        report = await account.sync.run_once()
        assert report.error is not None
        assert report.error.code == "protocol"
        await one_pass(account)
        await check(server, data_dir)
        assert await account.scalar("select count(*) from event where event like '%Deleted'") == 0
        # What was there before the account was added is history, even where the server hid it at first.
        assert await account.scalar("select count(*) from event where event = 'messageNew' and historical") == 1


async def test_a_mailbox_that_says_it_is_empty_and_is_not(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2))
        await one_pass(account)
        server.inbox.set_flags(1, r"\Seen")
        server.fault(rb"EXAMINE", replaced(rb"\d+ EXISTS", b"0 EXISTS"))
        assert (await one_pass(account)).expunged == 0
        await check(server, data_dir)


@pytest.mark.parametrize("vanished", [b"1:3", b"1:4294967295", b"2"])
async def test_a_vanished_that_contradicts_the_count_is_not_believed(vanished: bytes, data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        server.inbox.set_flags(3, r"\Seen")
        server.fault(CHANGES, altered(lambda answer: [b"* VANISHED (EARLIER) " + vanished + b"\r\n", *answer]))
        report = await one_pass(account)
        assert (report.expunged, report.updated) == (0, 1)
        await check(server, data_dir)


async def test_a_server_that_forgets_to_say_what_vanished(capabilities: str, data_dir: Path) -> None:
    """As many arrive as go, so that the count alone tells nothing."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        server.inbox.expunge(1)
        server.inbox.add(raw(4))
        server.fault(CHANGES, without(b"* VANISHED"))
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)


@pytest.mark.parametrize("uid_validity", [3, 8, 2**32 - 1], ids=["lower", "next", "highest"])
async def test_another_uid_validity_is_a_new_generation(capabilities: str, uid_validity: int, data_dir: Path) -> None:
    async with FakeImap(capabilities=capabilities) as server, account_on(server, data_dir) as account:
        server.inbox.add(*(raw(number) for number in range(1, 6)))
        await account.once()
        before = await account.message_ids()
        server.inbox.renumber(uid_validity, first_uid=2)
        server.inbox.expunge(4)
        await account.once()
        await account.once()
        assert await account.message_ids() == {uid + 1: before[uid] for uid in (1, 2, 4, 5)}
        await check(server, data_dir)
        events = Counter(row.event for row in await account.events())
        assert (events["mailboxReset"], events["messageNew"]) == (1, 5)


async def test_a_cut_in_the_middle_of_a_new_generation(data_dir: Path) -> None:
    limits = SyncLimits(chunk_messages=2, group_messages=1)
    async with (
        FakeImap() as server,
        account_on(server, data_dir, running=False, limits=limits) as account,
    ):
        server.inbox.add(*(raw(number) for number in range(1, 8)))
        await one_pass(account)
        server.inbox.renumber(8)
        for _ in range(3):
            server.fault(rb"UID FETCH 2 .*BODY", cut(20))
            server.fault(rb"UID FETCH 4 .*BODY", cut(20))
            assert (await account.sync.run_once()).errors
            server.heal()
            server.inbox.renumber(server.inbox.uid_validity + 1)
        await one_pass(account)
        await check(server, data_dir)
        assert await account.scalar("select count(*) from event where event = 'messageDeleted'") == 0


async def test_a_select_without_uid_next(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.fault(rb"EXAMINE", without(b"* OK [UIDNEXT"), times=None)
        server.inbox.add(raw(1), raw(2))
        await one_pass(account)
        await check(server, data_dir)
        server.inbox.add(raw(3))
        server.inbox.expunge(1)
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)


async def test_a_uid_next_that_lags_behind(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2))
        await one_pass(account)
        stale = replaced(rb"UIDNEXT \d+", b"UIDNEXT 3")
        server.fault(rb"EXAMINE|STATUS|LIST .*STATUS", stale, times=None)
        server.inbox.add(raw(3))
        await one_pass(account)
        await check(server, data_dir)
        server.heal()
        server.inbox.add(raw(4))
        await one_pass(account)
        await check(server, data_dir)


async def test_a_mailbox_without_mod_sequences_on_a_server_with_them(data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(mod_seqs=False), FakeMailbox("Archive")) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        await check(server, data_dir)
        server.inbox.set_flags(1, r"\Seen")
        await one_pass(account)
        server.inbox.expunge(2)
        server.inbox.add(raw(4))
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)
        # They come and they go (RFC 7162 §3.1.2.2); what changed in between is not missed.
        server.inbox.mod_seqs = True
        server.inbox.set_flags(3, r"\Flagged")
        await one_pass(account)
        await check(server, data_dir)
        server.inbox.mod_seqs = False
        server.inbox.set_flags(3)
        await one_pass(account)
        await check(server, data_dir)


async def test_a_server_restored_from_a_backup(capabilities: str, data_dir: Path) -> None:
    """Marks go back and UIDs are given again; UIDVALIDITY stays, though it should not."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        inbox.expunge(3)
        inbox.uid_next, inbox.highest_mod_seq = 3, 2
        inbox.expunged.clear()
        inbox.messages[2].flags = frozenset({r"\Seen"})
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)


async def test_a_mailbox_that_is_gone_between_list_and_examine(data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Archive"), FakeMailbox("Zoo")) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1))
        server.create(FakeMailbox("Lists")).add(raw(2))
        server.fault(rb'EXAMINE "Archive"', refused("NO", "[NONEXISTENT] gone"))
        report = await account.sync.run_once()
        assert [error.mailbox for error in report.errors] == ["Archive"]
        assert set(await account.held("Lists")) == {1}
        await one_pass(account)
        await check(server, data_dir)


async def test_a_plain_server_hides_no_flag_and_no_expunge(data_dir: Path) -> None:
    limits = SyncLimits(flag_window_messages=2, flag_sweep_seconds=0)
    async with (
        FakeImap(capabilities=PLAIN) as server,
        account_on(server, data_dir, running=False, limits=limits) as account,
    ):
        server.inbox.add(*(raw(number) for number in range(1, 8)))
        await one_pass(account)
        server.inbox.set_flags(1, r"\Seen")
        server.inbox.set_flags(7, r"\Answered")
        await one_pass(account)
        await check(server, data_dir)
