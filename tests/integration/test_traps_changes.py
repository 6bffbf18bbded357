"""Traps in what one mailbox says of itself: marks, counts, UIDs and what is gone. Each is named in docs/sync-traps.md.

A server may be wrong about itself for a moment or for good. Mail that it shows is stored all the same, what it hides is
not taken for deleted, and one mailbox that does not add up is no other mailbox's trouble.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from harness.fake_imap import CONDSTORE, PLAIN, QRESYNC, Act, Answer, Client, FakeImap
from harness.fake_imap_faults import altered, refused, replaced
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import (
    CHANGES,
    METADATA,
    account_on,
    arrived,
    check,
    on_every_tier,
    one_pass,
    raw,
)
from harness.syncing import SyncedAccount
from mailmill.sync.context import SyncLimits
from servers.scripted import Command

pytestmark = pytest.mark.both_databases

EXAMINE = rb"EXAMINE"
STATES = rb"EXAMINE|STATUS|LIST .*STATUS"


def without(*parts: bytes) -> Act:
    """The right answer less the responses in which one of ``parts`` stands."""
    return altered(lambda answer: [line for line in answer if not any(part in line for part in parts)])


def preceded(*responses: bytes) -> Act:
    return altered(lambda answer: [*responses, *answer])


async def told(account: SyncedAccount) -> Counter[str]:
    return Counter(row.event for row in await account.events())


# -- 1: skip only if every value matches ------------------------------------------------------------------------------


async def test_an_expunge_that_leaves_the_mod_sequence_alone_is_seen_by_the_count(data_dir: Path) -> None:
    """Only QRESYNC servers must raise HIGHESTMODSEQ on expunge (RFC 7162 §3.2.4)."""
    async with FakeImap(capabilities=CONDSTORE) as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        mark = server.inbox.highest_mod_seq
        server.inbox.expunge(2)
        server.inbox.highest_mod_seq = mark
        assert (await one_pass(account)).expunged == 1
        await check(server, data_dir)


async def test_a_mod_sequence_of_zero_is_none(data_dir: Path) -> None:
    """HIGHESTMODSEQ 0 in STATUS and SELECT: not supported for this mailbox; no flag change hides behind 0 = 0."""
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2))
        server.fault(STATES, replaced(rb"HIGHESTMODSEQ \d+", b"HIGHESTMODSEQ 0", required=False), times=None)
        await one_pass(account)
        server.inbox.set_flags(1, r"\Seen")
        await one_pass(account)
        await check(server, data_dir)
        assert server.count(CHANGES) == 0


async def test_a_status_that_lags_behind_the_selected_mailbox_hides_nothing(data_dir: Path) -> None:
    """STATUS of the selected mailbox may show what it was when it was selected (RFC 9051 §6.3.11)."""
    async with FakeImap() as server, account_on(server, data_dir) as account:
        server.inbox.add(raw(1))
        await account.once()
        old = server.inbox.uid_next, server.inbox.highest_mod_seq
        lagging = rb"MESSAGES \d+ UIDNEXT \d+ UIDVALIDITY 7 HIGHESTMODSEQ \d+"
        frozen = b"MESSAGES 1 UIDNEXT %d UIDVALIDITY 7 HIGHESTMODSEQ %d" % old
        server.fault(rb"LIST", replaced(lagging, frozen), times=None)
        server.fault(rb"IDLE", refused("NO", "not today"), times=None)
        server.inbox.add(raw(2))
        await account.once()
        await check(server, data_dir)


# -- 2: another UIDVALIDITY -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 2**32 - 1], ids=["up", "down"])
@on_every_tier
async def test_a_uid_validity_that_changes_and_changes_back(capabilities: str, first: int, data_dir: Path) -> None:
    """A generation that comes back is looked at anew: its UIDs may stand for other mail by now."""
    async with (
        FakeImap(FakeMailbox(uid_validity=first), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        ids = await account.message_ids()
        inbox.renumber(1000, first_uid=4)
        # Cut before the new generation is whole: the old places still stand.
        server.fault(rb"UID FETCH .*BODY", refused("NO", "not now"), times=3)
        await account.sync.run_once()
        server.heal()
        inbox.renumber(first, first_uid=1)
        inbox.expunge(1)
        inbox.messages = {1: inbox.messages[3], 2: inbox.messages[2]}
        inbox.uid_next = 3
        inbox.add(raw(4))
        for _ in range(3):
            await account.sync.run_once()
        await check(server, data_dir)
        now = await account.message_ids()
        assert (now[1], now[2]) == (ids[3], ids[2])
        assert (await told(account))["messageNew"] == 4


# -- 3: expunges ------------------------------------------------------------------------------------------------------


async def test_an_expunge_above_the_highest_living_uid(data_dir: Path) -> None:
    """Asked with ``1:*`` Cyrus leaves it out: the question has an explicit upper bound."""
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        server.inbox.expunge(3)
        assert (await one_pass(account)).expunged == 1
        await check(server, data_dir)
        asked = [line for line in server.commands if b"CHANGEDSINCE" in line]
        assert asked[0].startswith(b"UID FETCH 1:3 ")
        assert not any(b"*" in line for line in asked)


@pytest.mark.parametrize("vanished", [b"2", b"1:3", b"1:4294967295"])
@on_every_tier
async def test_vanished_where_nobody_asked(capabilities: str, vanished: bytes, data_dir: Path) -> None:
    """A lie in any command's answer, on any tier: an exact search contradicts it."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        server.inbox.set_flags(3, r"\Seen")
        server.inbox.add(raw(4))
        server.fault(rb"UID FETCH|UID SEARCH|NOOP", preceded(b"* VANISHED " + vanished + b"\r\n"), times=None)
        report = await one_pass(account)
        assert (report.new, report.expunged) == (1, 0)
        await check(server, data_dir)


async def test_a_mass_vanished_that_contradicts_messages(data_dir: Path) -> None:
    """VANISHED and SEARCH agree that all is gone, MESSAGES does not: nothing is deleted, and what is new is stored."""
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        server.inbox.add(raw(4))
        server.fault(CHANGES, preceded(b"* VANISHED (EARLIER) 1:3\r\n"), times=None)
        server.fault(rb"UID SEARCH", replaced(rb"UID(?: ALL [\d:,]+)?\r", b"UID\r"), times=None)
        report = await account.sync.run_once()
        assert report.error is not None
        assert (report.error.code, report.error.mailbox) == ("protocol", "INBOX")
        assert (report.new, report.expunged) == (1, 0)
        assert set(await account.held()) == {1, 2, 3, 4}
        server.heal()
        await one_pass(account)
        await check(server, data_dir)


# -- 4: marks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [CONDSTORE, QRESYNC], ids=["condstore", "qresync"])
async def test_a_mod_sequence_mark_does_not_run_ahead_of_uids(capabilities: str, data_dir: Path) -> None:
    """SELECT names the mod-sequence of a message whose UID it does not count yet."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        inbox.add(raw(1), raw(2))
        await one_pass(account)
        inbox.add(raw(3))
        inbox.set_flags(1, r"\Seen")
        lag = [(rb"UIDNEXT \d+", b"UIDNEXT 3"), (rb"\d+ EXISTS", b"2 EXISTS"), (rb"MESSAGES \d+", b"MESSAGES 2")]

        async def half_seen(client: Client, _command: Command, answer: Answer) -> None:
            for pattern, by in lag:
                answer = [re.sub(pattern, by, line) for line in answer]
            await client.send(answer)

        server.fault(STATES, half_seen, times=None)
        await account.sync.run_once()
        server.heal()
        await one_pass(account)
        await check(server, data_dir)
        inbox.set_flags(3, r"\Flagged")
        await one_pass(account)
        await check(server, data_dir)


@pytest.mark.parametrize("capabilities", [CONDSTORE, QRESYNC], ids=["condstore", "qresync"])
async def test_a_uid_mark_does_not_run_ahead_of_mod_sequences(capabilities: str, data_dir: Path) -> None:
    """The mod-sequence that is remembered is from before the fetch: what changes during it is asked for again."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        inbox.add(raw(1), raw(2))
        await one_pass(account)

        async def meanwhile(client: Client, _command: Command, answer: Answer) -> None:
            await client.send(answer)
            inbox.set_flags(1, r"\Answered")
            inbox.set_flags(3, r"\Flagged")
            inbox.add(raw(4))

        server.fault(METADATA, meanwhile)
        inbox.add(raw(3))
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)


@on_every_tier
async def test_a_shortfall_is_looked_into(capabilities: str, data_dir: Path) -> None:
    """UIDNEXT grew by one, the fetch does not show the message, and an untold expunge makes the count right."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        server.inbox.expunge(1)
        server.inbox.add(raw(4))
        server.fault(CHANGES, without(b"VANISHED"))
        server.fault(METADATA, without(b"UID 4 "))
        await account.sync.run_once()
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)


@on_every_tier
async def test_uid_next_that_grows_with_holes(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        inbox.add(raw(1), raw(2))
        await one_pass(account)
        for number in range(3, 6):
            inbox.uid_next += 1000 * number
            inbox.add(raw(number))
            inbox.uid_next += 7
            await one_pass(account)
            await check(server, data_dir)
        searches = server.count(rb"UID SEARCH")
        await one_pass(account)
        assert server.count(rb"UID SEARCH") == searches


@on_every_tier
async def test_uid_next_that_goes_back(capabilities: str, data_dir: Path) -> None:
    """A server restored from a backup gives UIDs again. The new mail under an old UID is new mail."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        inbox.add(raw(1), raw(2), raw(3), raw(4))
        await one_pass(account)
        inbox.expunge(3, 4)
        inbox.expunged.clear()
        inbox.uid_next, inbox.highest_mod_seq = 3, 3
        await one_pass(account)
        inbox.add(raw(30))
        assert (await one_pass(account)).new == 1
        await check(server, data_dir)
        assert await account.column("select subject from message where not historical") == ["30"]


@on_every_tier
async def test_uids_given_again_within_one_interval(capabilities: str, data_dir: Path) -> None:
    """As before, but the new mail is there already when we look again."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        inbox.add(raw(1), raw(2), raw(3), raw(4))
        await one_pass(account)
        inbox.expunge(3, 4)
        inbox.expunged.clear()
        inbox.uid_next, inbox.highest_mod_seq = 3, 3
        inbox.add(raw(30, "quite another text"))
        assert (await one_pass(account)).new == 1
        await one_pass(account)
        await check(server, data_dir)
        assert await account.column("select subject from message where not historical") == ["30"]


@pytest.mark.parametrize("capabilities", [CONDSTORE, QRESYNC], ids=["condstore", "qresync"])
async def test_a_mod_sequence_that_goes_back(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        inbox.add(raw(1), raw(2), raw(3))
        inbox.set_flags(2, r"\Flagged")
        await one_pass(account)
        inbox.highest_mod_seq = 1
        for message in inbox.messages.values():
            message.mod_seq = 1
        inbox.messages[2].flags = frozenset()
        await one_pass(account)
        await check(server, data_dir)
        # The mark went back with it: what the server numbers from here on is seen.
        inbox.set_flags(3, r"\Seen")
        await one_pass(account)
        await check(server, data_dir)


@on_every_tier
async def test_numbers_at_their_limits(capabilities: str, data_dir: Path) -> None:
    """UID 4294967295, after which no UIDNEXT fits; mod-sequence 2^63-1."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        inbox = server.inbox
        inbox.add(raw(1))
        inbox.uid_next, inbox.highest_mod_seq = 2**32 - 2, 2**63 - 6
        inbox.add(raw(2))
        await one_pass(account)
        inbox.add(raw(3))
        inbox.set_flags(1, r"\Seen")
        await one_pass(account)
        await check(server, data_dir)
        inbox.set_flags(1)
        inbox.expunge(2**32 - 2)
        assert inbox.highest_mod_seq == 2**63 - 1
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)


async def test_a_uid_next_that_is_stuck_at_its_limit(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.uid_next = 2**32 - 1
        server.fault(STATES, replaced(rb"UIDNEXT \d+", b"UIDNEXT 4294967295", required=False), times=None)
        server.inbox.add(raw(1))
        await one_pass(account)
        await check(server, data_dir)


# -- 5: absence -------------------------------------------------------------------------------------------------------


@on_every_tier
async def test_exists_that_shrinks_without_an_expunge(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        server.fault(rb"EXAMINE", replaced(rb"3 EXISTS", b"1 EXISTS"))
        server.fault(rb"UID", preceded(b"* 2 EXISTS\r\n", b"* 1 EXISTS\r\n"), times=None)
        server.inbox.set_flags(1, r"\Seen")
        assert (await one_pass(account)).expunged == 0
        await check(server, data_dir)


@on_every_tier
async def test_a_count_that_is_wrong_for_good_holds_up_nothing(capabilities: str, data_dir: Path) -> None:
    """SELECT and STATUS count messages that no SEARCH shows: new mail is stored, no other mailbox waits, it is told."""
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Zoo"), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        zoo = server.create(FakeMailbox("Zoo"))
        server.inbox.add(raw(1), raw(2))
        await one_pass(account)
        wrong = replaced(rb"(\d+) EXISTS", rb"9 EXISTS")
        server.fault(rb"EXAMINE INBOX|EXAMINE \"INBOX\"", wrong, times=None)
        server.inbox.add(raw(3))
        zoo.add(raw(10))
        logins = server.logins
        report = await account.sync.run_once()
        assert [(error.code, error.mailbox) for error in report.errors] == [("protocol", "INBOX")]
        assert report.new == 2
        assert server.logins == logins + 1
        server.inbox.expunge(1)
        report = await account.sync.run_once()
        assert report.expunged == 0  # it cannot be told from a listing that is not whole
        server.heal()
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)


async def test_new_mail_is_pushed_from_a_mailbox_that_does_not_add_up(data_dir: Path) -> None:
    async with FakeImap() as server, account_on(server, data_dir) as account:
        server.inbox.add(raw(1))
        await account.once()
        server.fault(rb"EXAMINE", replaced(rb"(\d+) EXISTS", rb"9 EXISTS"), times=None)
        server.inbox.add(raw(2))
        await account.wait_for(arrived(2))
        assert len(account.connections) == 1


@pytest.mark.parametrize("capabilities", [PLAIN, CONDSTORE], ids=["plain", "condstore"])
async def test_new_mail_that_goes_at_once_hides_no_expunge(capabilities: str, data_dir: Path) -> None:
    """Without QRESYNC only the count tells of an expunge: it must be of the same moment as what was listed."""
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)

        async def go_at_once(client: Client, _command: Command, answer: Answer) -> None:
            server.inbox.expunge(4)
            await client.send([*client.news(), answer[-1]])

        server.fault(METADATA, go_at_once)
        server.inbox.expunge(1)
        server.inbox.add(raw(4))
        assert (await one_pass(account)).expunged == 1
        await check(server, data_dir)


async def test_mail_comes_and_goes_while_a_mailbox_is_listed(data_dir: Path) -> None:
    """A server lists what is there, then tells what went and what came: as many as before, and one fewer listed."""
    async with (
        FakeImap(capabilities=PLAIN) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        listings = 0

        async def never_rest(client: Client, _command: Command, answer: Answer) -> None:
            nonlocal listings
            listings += 1
            server.inbox.expunge(min(server.inbox.messages))
            there = b"* SEARCH" + b"".join(b" %d" % uid for uid in server.inbox.messages) + b"\r\n"
            server.inbox.add(raw(100 + listings))
            await client.send([there, *client.news(), answer[-1]])

        server.fault(rb"UID SEARCH ALL", never_rest, times=None)
        server.inbox.expunge(1)
        report = await one_pass(account)
        assert (report.expunged, listings) == (2, 1)
        server.heal()
        await one_pass(account)
        await check(server, data_dir)


# -- 6: batches -------------------------------------------------------------------------------------------------------


@on_every_tier
async def test_flags_that_change_during_the_first_sync(capabilities: str, data_dir: Path) -> None:
    """Before its metadata is asked for, before its body, and after it is stored: each message's last flags stand."""
    limits = SyncLimits(chunk_messages=4, group_messages=2, flag_sweep_seconds=0)
    async with (
        FakeImap(capabilities=capabilities) as server,
        account_on(server, data_dir, running=False, limits=limits) as account,
    ):
        inbox = server.inbox
        inbox.add(*(raw(number) for number in range(1, 13)))
        number = 0

        async def meanwhile(client: Client, _command: Command, answer: Answer) -> None:
            nonlocal number
            await client.send(answer)
            number += 1
            for uid in (1 + number % 12, 12 - number % 12):
                inbox.set_flags(uid, rf"during{number}")

        server.fault(rb"UID FETCH", meanwhile, times=12)
        for _ in range(3):
            await one_pass(account)
        await check(server, data_dir)
        assert number == 12


async def test_a_large_change_is_stored_in_parts(data_dir: Path) -> None:
    """A mailbox marked as read, then emptied: no transaction grows with the mailbox, and nothing is told twice."""
    limits = SyncLimits(change_messages=10)
    async with FakeImap() as server, account_on(server, data_dir, running=False, limits=limits) as account:
        inbox = server.inbox
        inbox.add(*(raw(number) for number in range(1, 46)))
        await one_pass(account)
        for uid in inbox.messages:
            inbox.set_flags(uid, r"\Seen")
        assert (await one_pass(account)).updated == 45
        await check(server, data_dir)
        inbox.expunge(*range(2, 45))
        assert (await one_pass(account)).expunged == 43
        await one_pass(account)
        await check(server, data_dir)
        moments = await account.scalar(
            "select count(distinct created_at) from event where event = 'messageUpdated' and data like '%flags%'"
        )
        assert moments == 5


# -- history ----------------------------------------------------------------------------------------------------------


@on_every_tier
async def test_a_new_generation_with_other_bytes_replays_nothing_as_new(capabilities: str, data_dir: Path) -> None:
    """A migrated server rewrites headers, so that no content is known again. Old mail must not ring like new mail."""
    async with FakeImap(capabilities=capabilities) as server:
        server.inbox.add(raw(1), raw(2), raw(3))
        for message in server.inbox.messages.values():
            message.internal_date = b"01-Feb-2020 10:00:00 +0000"
        async with account_on(server, data_dir, running=False) as account:
            await one_pass(account)
            server.inbox.renumber(8)
            for message in server.inbox.messages.values():
                message.raw = b"X-Migrated: yes\r\n" + message.raw
            server.inbox.add(raw(4))
            server.inbox.messages[4].internal_date = b"01-Feb-2099 10:00:00 +0000"
            await one_pass(account)
            await one_pass(account)
            await check(server, data_dir)
            new = "select count(*) from event where event = 'messageNew'"
            assert (await account.scalar(new), await account.scalar(new + " and not historical")) == (7, 1)


async def test_an_old_mailbox_that_appears_later_is_history(data_dir: Path) -> None:
    """Shared with us, or made visible: what it received before is not new; what it receives from now on is."""
    async with FakeImap() as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1))
        await one_pass(account)
        shared = FakeMailbox("Shared")
        shared.add(raw(2), raw(3))
        for message in shared.messages.values():
            message.internal_date = b"01-Feb-2020 10:00:00 +0000"
        server.create(shared)
        shared.add(raw(4))
        shared.messages[3].internal_date = b"01-Feb-2099 10:00:00 +0000"
        await one_pass(account)
        shared.add(raw(5))
        await one_pass(account)
        await check(server, data_dir)
        subjects = "select subject from message where not historical order by subject"
        assert await account.column(subjects) == ["4", "5"]
