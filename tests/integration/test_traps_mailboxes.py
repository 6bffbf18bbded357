"""Traps in which mailboxes there are, and under which names. Each is named in docs/sync-traps.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.fake_imap import CONDSTORE, QRESYNC, TIERS, FakeImap
from harness.fake_imap_faults import altered, refused
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import account_on, check, on_every_tier, one_pass, raw
from harness.syncing import SyncedAccount
from mailmill.sync.report import PassReport

pytestmark = pytest.mark.both_databases


async def told(account: SyncedAccount) -> Counter[str]:
    return Counter(row.event for row in await account.events())


async def one_listing_pass(account: SyncedAccount) -> PassReport:
    """Where LIST and STATUS are two commands, not every pass lists."""
    account.sync._pass.relist()
    return await one_pass(account)


# -- renamed, deleted, recreated --------------------------------------------------------------------------------------


@on_every_tier
async def test_a_renamed_mailbox_keeps_every_id(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Old"), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        old = server.create(FakeMailbox("Old"))
        old.add(*(raw(number) for number in range(1, 6)), flags=[r"\Seen"])
        await one_pass(account)
        before = await account.message_ids("Old")
        server.rename("Old", "New")
        await one_listing_pass(account)
        await one_pass(account)
        assert await account.message_ids("New") == before
        await check(server, data_dir)
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"]) == (5, 0)
        assert (events["mailboxDeleted"], events["mailboxNew"]) == (1, 3)


@pytest.mark.parametrize("uid_validity", [7, 3, 8], ids=["same", "lower", "higher"])
@pytest.mark.parametrize("seen_gone", [False, True], ids=["within_an_interval", "gone_in_between"])
@on_every_tier
async def test_a_mailbox_deleted_and_recreated(
    capabilities: str, seen_gone: bool, uid_validity: int, data_dir: Path
) -> None:
    """With the same UIDVALIDITY (against RFC 9051 §2.3.1.1) the numbers that start anew give it away."""
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Lists"), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.create(FakeMailbox("Lists")).add(*(raw(number) for number in range(1, 6)))
        await one_pass(account)
        ids = await account.message_ids("Lists")
        server.delete("Lists")
        if seen_gone:
            await one_pass(account)
        again = server.create(FakeMailbox("Lists", uid_validity=uid_validity))
        again.add(raw(20, "another text"), raw(2), raw(21, "yet another text"))
        assert (await one_listing_pass(account)).new == 2
        await one_pass(account)
        await check(server, data_dir)
        assert (await account.message_ids("Lists"))[2] == ids[2]
        there = "select subject from message where deleted_at is null order by subject"
        assert await account.column(there) == ["2", "20", "21"]
        assert (await told(account))["messageDeleted"] == (5 if seen_gone else 4)
        assert await account.scalar("select count(*) from message where not historical") == 2


@on_every_tier
async def test_two_mailboxes_that_change_places(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        one, two = server.create(FakeMailbox("One", uid_validity=21)), server.create(FakeMailbox("Two"))
        one.add(raw(1), raw(2))
        two.add(raw(3), raw(4), raw(5))
        await one_pass(account)
        ids = {**await account.message_ids("One")}, {**await account.message_ids("Two")}
        server.rename("One", "Swap")
        server.rename("Two", "One")
        server.rename("Swap", "Two")
        await one_pass(account)
        await one_pass(account)
        await check(server, data_dir)
        assert (await account.message_ids("Two"), await account.message_ids("One")) == ids
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"], events["mailboxReset"]) == (5, 0, 2)


@on_every_tier
async def test_a_mailbox_that_fails_and_is_then_deleted_is_forgotten(capabilities: str, data_dir: Path) -> None:
    """What it met while it lasted neither stays on show nor keeps messages from being confirmed deleted."""
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Lists"), capabilities=capabilities) as server,
        account_on(server, data_dir) as account,
    ):
        server.inbox.add(raw(1), raw(2))
        await account.once()
        server.create(FakeMailbox("Lists")).add(raw(3))
        server.fault(rb'EXAMINE "?Lists', refused("NO", "[UNAVAILABLE] not now"), times=None)
        assert (await account.sync.sync_now()).errors
        server.delete("Lists")
        server.inbox.expunge(1)
        await account.once()
        await account.wait_for(lambda rows: Counter(row.event for row in rows)["messageDeleted"] == 1)


# -- the list ---------------------------------------------------------------------------------------------------------


@on_every_tier
async def test_a_mailbox_that_the_list_hides_is_synced_all_the_same(capabilities: str, data_dir: Path) -> None:
    """A server may hide what we may read (RFC 4314, no right ``l``); then no list ever shows it again."""
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Lists"), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        lists = server.create(FakeMailbox("Lists"))
        lists.add(raw(1))
        await one_pass(account)
        server.fault(rb"LIST", altered(lambda answer: [line for line in answer if b"Lists" not in line]), times=None)
        for number in range(2, 4):
            lists.add(raw(number))
            server.inbox.add(raw(10 + number))
            await one_pass(account)
            await check(server, data_dir)
        assert (await told(account))["mailboxDeleted"] == 0


@pytest.mark.parametrize("refusal", ["[UNAVAILABLE] later", "[SERVERBUG] oops", "[INUSE] busy"])
async def test_a_refusal_that_passes_does_not_delete_a_mailbox(refusal: str, data_dir: Path) -> None:
    """Its backend is down: LIST leaves it out and STATUS says not now."""
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Shared")) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.create(FakeMailbox("Shared")).add(raw(1), raw(2))
        await one_pass(account)
        server.fault(rb"LIST", altered(lambda answer: [line for line in answer if b"Shared" not in line]))
        server.fault(rb'(STATUS|EXAMINE) "?Shared', refused("NO", refusal), times=None)
        server.inbox.add(raw(3))
        report = await account.sync.run_once()
        assert [error.mailbox for error in report.errors] == ["Shared"]
        assert report.new == 1
        events = await told(account)
        assert (events["mailboxDeleted"], events["messageDeleted"], report.expunged) == (0, 0, 0)
        server.heal()
        await one_pass(account)
        await check(server, data_dir)


# -- names that hold no mail ------------------------------------------------------------------------------------------


@pytest.mark.both_databases(capabilities=(QRESYNC,))
@pytest.mark.parametrize("attributes", [rb"\Noselect", rb"\NonExistent", rb"\NonExistent \HasChildren", rb"\NOSELECT"])
@on_every_tier
async def test_a_name_without_a_mailbox_is_not_selected(capabilities: str, attributes: bytes, data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.create(FakeMailbox("Parent")).attributes = attributes
        server.create(FakeMailbox("Parent/Child")).add(raw(1))
        assert (await one_pass(account)).mailboxes == 2
        await check(server, data_dir)
        assert server.count(rb'(EXAMINE|STATUS) "?Parent"?( |$)') == 0


@on_every_tier
async def test_a_mailbox_that_becomes_a_mere_name_loses_its_mail_and_may_come_back(
    capabilities: str, data_dir: Path
) -> None:
    """DELETE of a mailbox with others below it takes its messages and leaves the name (RFC 9051 §6.3.5)."""
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Parent/Child"), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        parent = server.create(FakeMailbox("Parent"))
        parent.add(raw(1), raw(2))
        await one_pass(account)
        ids = await account.message_ids("Parent")
        parent.attributes = rb"\Noselect"
        for _ in range(2):
            await one_pass(account)
        await check(server, data_dir)
        assert (await told(account))["messageDeleted"] == 2
        parent.attributes = rb"\HasChildren"
        await one_listing_pass(account)
        await check(server, data_dir)
        assert await account.message_ids("Parent") == ids


# -- names and delimiters ---------------------------------------------------------------------------------------------

# Path as we show it → name on the wire (RFC 3501 §5.1.3).
NAMES = {
    "Entwürfe": b"Entw&APw-rfe",
    "台北": b"&U,BTFw-",
    "😀 party": b"&2D3eAA- party",
    "R&D": b"R&-D",
    "&": b"&-",
    'a "quoted" name': b'a "quoted" name',
    "back\\slash": b"back\\slash",
    "100% *starred*": b"100% *starred*",
    "(in) {2} [brackets]": b"(in) {2} [brackets]",
    "NIL": b"NIL",
    " leading and trailing ": b" leading and trailing ",
    "&not closed": b"&not closed",
    "&!!-": b"&!!-",
    "&AGE-": b"&AGE-",
    "naïve": "naïve".encode(),
    "caf\xe9 latin": b"caf\xe9 latin",
}


@pytest.mark.both_databases(capabilities=(QRESYNC,))
@pytest.mark.parametrize(("path", "raw_name"), NAMES.items(), ids=[name.hex()[:12] for name in NAMES.values()])
@pytest.mark.parametrize("capabilities", [QRESYNC, TIERS["plain"]], ids=["qresync", "plain"])
async def test_a_mailbox_of_any_name(capabilities: str, path: str, raw_name: bytes, data_dir: Path) -> None:
    """Modified UTF-7, well formed or not, and all that a quoted string can hold: the name goes back as it came."""
    odd = FakeMailbox(path)
    odd.raw_name = raw_name
    async with (
        FakeImap(FakeMailbox(), odd, capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        odd.add(raw(1), raw(2))
        await one_pass(account)
        odd.add(raw(3))
        odd.set_flags(1, r"\Seen")
        await one_pass(account)
        [shown] = [name for name in server.truth() if name != "INBOX"]
        found = await account.scalar("select path from mailbox where path <> 'INBOX'")
        odd.path = str(found)
        server.rename(shown, odd.path)
        odd.raw_name = raw_name
        await check(server, data_dir)
        assert found == {"&AGE-": "a"}.get(path, path)


async def test_an_odd_name_is_used_on_every_connection(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long backlog goes to another connection, which has not listed the mailboxes itself."""
    monkeypatch.setattr("mailmill.sync.account_pass.BACKLOG_MESSAGES", 3)
    odd = FakeMailbox("&not closed")
    async with FakeImap(FakeMailbox(), odd) as server, account_on(server, data_dir) as account:
        odd.add(*(raw(number) for number in range(1, 8)))
        await account.once()
        await check(server, data_dir)
        assert len(account.connections) > 1


@pytest.mark.both_databases(capabilities=(QRESYNC,))
@pytest.mark.parametrize("delimiter", [b"NIL", b'"."', rb'"\\"', rb'"\""', b'"/"', b'"^"'])
@on_every_tier
async def test_any_delimiter(capabilities: str, delimiter: bytes, data_dir: Path) -> None:
    character = delimiter.strip(b'"').removeprefix(b"\\").decode() if delimiter != b"NIL" else "/"
    path = f"Lists{character or chr(34)}Python"
    async with (
        FakeImap(FakeMailbox(), FakeMailbox(path), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        deep = server.create(FakeMailbox(path))
        deep.delimiter = delimiter
        deep.add(raw(1))
        await one_pass(account)
        await check(server, data_dir)
        stored = await account.scalar("select delimiter from mailbox where path <> 'INBOX'")
        assert stored == (None if delimiter == b"NIL" else character or '"')


async def test_a_name_that_cannot_be_sent_is_shown_and_left_alone(data_dir: Path) -> None:
    odd = FakeMailbox("two\r\nlines")
    odd.raw_name = b"two\r\nlines"
    async with (
        FakeImap(FakeMailbox(), capabilities=CONDSTORE) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        server.create(odd).add(raw(1))
        server.inbox.add(raw(2))
        assert (await one_pass(account)).new == 1
        assert await account.scalar("select count(*) from mailbox where not selectable") == 1
