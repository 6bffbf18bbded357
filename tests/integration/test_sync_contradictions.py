"""Servers that contradict themselves: absence is not deletion, and no mark passes what it does not cover."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.fake_imap import PLAIN, Act, FakeImap
from harness.fake_imap_faults import altered, cut, refused, replaced
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import CHANGES, account_on, check, on_every_tier, one_pass, raw
from mailmill.sync.context import SyncLimits

pytestmark = pytest.mark.both_databases


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


@on_every_tier
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
@on_every_tier
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


@on_every_tier
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


@on_every_tier
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


@on_every_tier
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
