"""Traps in single answers: what is odd, doubled, unasked for or refused. Each is named in docs/sync-traps.md."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from harness.fake_imap import CONDSTORE, PLAIN, QRESYNC, Answer, Client, FakeImap
from harness.fake_imap_faults import altered, replaced
from harness.on_fake_imap import (
    BODIES,
    METADATA,
    account_on,
    check,
    let_time_pass,
    on_every_tier,
    one_pass,
    parked,
    raw,
)
from mailmill.alerts.rendering import iso_time
from servers.scripted import Command

pytestmark = pytest.mark.both_databases

# -- SEARCH -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "by"),
    [(rb'TAG "A\d+"', b'TAG "A1"'), (rb'\(TAG "A\d+"\) UID(?: ALL \S+)?', b"ALL 1:2"), (rb" UID\b", b"")],
    ids=["another_commands", "no_correlator_no_uid", "sequence_numbers"],
)
@pytest.mark.parametrize("capabilities", [CONDSTORE, QRESYNC], ids=["condstore", "qresync"])
async def test_an_esearch_that_is_not_the_answer_deletes_nothing(
    capabilities: str, pattern: bytes, by: bytes, data_dir: Path
) -> None:
    """With another command's tag, or without UID: its numbers are not the UIDs that we asked for."""
    async with FakeImap(capabilities=capabilities) as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(*(raw(number) for number in range(1, 8)))
        server.inbox.expunge(1, 2, 3)
        await one_pass(account)
        server.inbox.expunge(5)
        server.fault(rb"UID SEARCH", replaced(pattern, by), times=None)
        report = await account.sync.run_once()
        assert [(error.code, error.mailbox) for error in report.errors] == [("protocol", "INBOX")]
        assert report.expunged == 0
        server.heal()
        await one_pass(account)
        await check(server, data_dir)


async def test_an_esearch_of_somebody_else_besides_the_answer_is_passed_over(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(*(raw(number) for number in range(1, 8)))
        await one_pass(account)
        server.inbox.expunge(5)
        other = b'* ESEARCH (TAG "Z9") UID ALL 100:200\r\n'
        server.fault(rb"UID SEARCH", altered(lambda answer: [other, *answer]), times=None)
        assert (await one_pass(account)).expunged == 1
        await check(server, data_dir)


async def test_a_search_that_answers_unsorted_in_pieces_and_twice(data_dir: Path) -> None:
    def shuffled(answer: Answer) -> Answer:
        uids = re.findall(rb" (\d+)", answer[0])
        random.Random(4).shuffle(uids)
        half = len(uids) // 2
        return [b"* SEARCH " + b" ".join(some) + b"\r\n" for some in (uids[half:], uids[:half], uids[half:])] + answer[
            1:
        ]

    async with FakeImap(capabilities=PLAIN) as server, account_on(server, data_dir, running=False) as account:
        server.fault(rb"UID SEARCH", altered(shuffled), times=None)
        server.inbox.add(*(raw(number) for number in range(1, 130)))
        await one_pass(account)
        server.inbox.expunge(7, 8, 100)
        await one_pass(account)
        await check(server, data_dir)


# -- FETCH ------------------------------------------------------------------------------------------------------------


@on_every_tier
async def test_a_fetch_for_a_uid_that_was_never_asked(capabilities: str, data_dir: Path) -> None:
    """Of flags, of metadata, of a body: neither a message comes of it nor does a flag change by it."""
    bogus = [
        b'* 1 FETCH (UID 4000 FLAGS (\\Seen) MODSEQ (9) INTERNALDATE "01-Jan-2026 10:00:00 +0000" RFC822.SIZE 5)\r\n',
        b"* 2 FETCH (UID 4001 BODY[] {5}\r\nbogus)\r\n",
        b"* 3 FETCH (BODY[] {5}\r\nbogus)\r\n",
    ]
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.fault(rb"UID|NOOP|EXAMINE", altered(lambda answer: [*bogus, *answer]), times=None)
        server.inbox.add(raw(1), raw(2))
        await one_pass(account)
        server.inbox.add(raw(3))
        server.inbox.set_flags(1, r"\Flagged")
        await one_pass(account)
        await check(server, data_dir)


@on_every_tier
async def test_duplicates_in_every_fetch_answer(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.fault(rb"UID FETCH", altered(lambda answer: [*answer[:-1], *answer]), times=None)
        server.inbox.add(*(raw(number) for number in range(1, 8)))
        await one_pass(account)
        server.inbox.set_flags(3, r"\Seen")
        server.inbox.expunge(2)
        server.inbox.add(raw(8))
        await one_pass(account)
        await check(server, data_dir)
        assert await account.scalar("select count(*) from event where event = 'messageNew'") == 8


# -- flags ------------------------------------------------------------------------------------------------------------


@on_every_tier
async def test_a_message_with_a_thousand_keywords(capabilities: str, data_dir: Path) -> None:
    keywords = [f"label-{number:04}" for number in range(1000)]
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), flags=keywords)
        await one_pass(account)
        await check(server, data_dir)
        server.inbox.set_flags(1, *keywords[1:], "one-more")
        await one_pass(account)
        await check(server, data_dir)


@on_every_tier
async def test_keywords_that_differ_in_case_are_the_same(capabilities: str, data_dir: Path) -> None:
    """RFC 5788 §3. A server that spells one now so, now so changes nothing, and says nothing twice."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), flags=["Work", "WORK", "work", r"\SEEN"])
        await one_pass(account)
        for flags in (["work", r"\Seen"], [r"\seen", "WoRK", "alpha"], ["Alpha", "work", r"\Seen"]):
            server.inbox.set_flags(1, *flags)
            await one_pass(account)
        [held] = (await account.held()).values()
        assert {flag.lower() for flag in held} == {"work", "alpha", r"\seen"}
        assert Counter(row.event for row in await account.events())["messageUpdated"] == 1


# -- dates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "internal_date",
    [
        b"01-Jan-0001 00:00:00 +9959",
        b"31-Dec-9999 23:59:59 -9959",
        b"00-Jan-2026 10:00:00 +0000",
        b"31-Feb-2026 10:00:00 +0000",
        b"99-Xyz-0000 99:99:99 +9999",
        b"",
        b"yesterday, about noon",
    ],
)
async def test_an_internal_date_that_is_nonsense(internal_date: bytes, data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2))
        server.inbox.messages[1].internal_date = internal_date
        await one_pass(account)
        await check(server, data_dir)
        stored = await account.scalar("select internal_date from message order by id")
        assert isinstance(stored, float)
        iso_time(stored)


# -- what cannot be had -----------------------------------------------------------------------------------------------


@on_every_tier
async def test_unknown_cte_on_one_message_parks_it(capabilities: str, data_dir: Path) -> None:
    """RFC 3516 §4.3: a server that decodes by itself may refuse one message, and end the command with it."""

    async def refuse(client: Client, command: Command, answer: Answer) -> None:
        body = next((index for index, line in enumerate(answer) if b"UID 3 BODY[]" in line), None)
        if body is not None:
            answer = [*answer[:body], command.tag + b" NO [UNKNOWN-CTE] cannot decode\r\n"]
        await client.send(answer)

    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(*(raw(number) for number in range(1, 7)))
        server.fault(BODIES, refuse, times=None)
        assert (await one_pass(account)).new == 5
        assert await parked(account) == "3"
        assert "UNKNOWN-CTE" in str(await account.scalar("select reason from parked"))
        server.inbox.add(raw(7))
        assert (await one_pass(account)).new == 1
        server.heal()
        let_time_pass(account)
        await one_pass(account)
        await check(server, data_dir)


@on_every_tier
async def test_a_message_sent_empty_is_not_taken_for_an_empty_message(capabilities: str, data_dir: Path) -> None:
    """Listed with a size, sent with none: the server does not have it yet. An honest empty message is one."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), b"", raw(3))
        server.fault(BODIES, replaced(rb"(UID [13] BODY\[\]) \{\d+\}.*", rb"\1 {0}\r\n)\r\n"))
        await one_pass(account)
        assert await parked(account) == "1,3"
        let_time_pass(account, 70)
        await one_pass(account)
        await check(server, data_dir)


async def test_what_cannot_be_had_is_tried_again_soon_and_then_ever_later(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2))
        server.inbox.messages[1].withheld = True
        asked = []
        await one_pass(account)
        for _ in range(6):
            before = server.count(BODIES)
            let_time_pass(account, 60)
            await one_pass(account)
            asked.append(server.count(BODIES) - before)
        assert asked == [1, 0, 0, 0, 1, 0]
        server.inbox.messages[1].withheld = False
        let_time_pass(account, 3600)
        await one_pass(account)
        await check(server, data_dir)


@on_every_tier
async def test_a_server_that_refuses_for_a_moment_delays_nothing_for_long(capabilities: str, data_dir: Path) -> None:
    """All bodies refused, as while a backend restarts: they are asked for again a minute later."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(*(raw(number) for number in range(1, 6)))
        server.fault(
            BODIES,
            altered(lambda answer: [re.sub(rb"^(A\d+) .*", rb"\1 NO [UNAVAILABLE] oops\r\n", answer[-1])]),
            times=None,
        )
        await one_pass(account)
        assert await parked(account) == "1,2,3,4,5"
        server.heal()
        let_time_pass(account, 61)
        await one_pass(account)
        await check(server, data_dir)


async def test_a_slow_storm_of_news_does_not_end_a_pass(data_dir: Path) -> None:
    """EXISTS, EXPUNGE and FETCH of others in the middle of every answer."""
    async with FakeImap(capabilities=CONDSTORE) as server, account_on(server, data_dir, running=False) as account:
        inbox = server.inbox
        inbox.add(*(raw(number) for number in range(1, 8)))
        await one_pass(account)
        number = 100

        async def meanwhile(client: Client, _command: Command, answer: Answer) -> None:
            nonlocal number
            await client.send(answer[:-1])
            number += 1
            inbox.add(raw(number))
            inbox.expunge(min(inbox.messages))
            inbox.set_flags(max(inbox.messages), "storm")
            await asyncio.sleep(0)
            await client.send([*client.news(), answer[-1]])

        server.fault(rb"NOOP|UID SEARCH|" + METADATA, meanwhile, times=9)
        inbox.add(raw(50))
        for _ in range(4):
            await account.sync.run_once()
        server.heal()
        await one_pass(account)
        await check(server, data_dir)
