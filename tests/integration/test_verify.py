"""`verify` against real servers: the store is broken by hand, each gap is named, and a repair mends it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness import truth
from harness.fake_imap import FakeImap
from harness.fake_mailbox import FakeMailbox
from harness.other_client import OtherClient
from harness.requesting import ask, ask_append, now, outcome
from harness.syncing import SyncedAccount, synced_account
from harness.verifying import Verifier, break_store, named, segments
from mailmill.sync.context import SyncLimits
from mailmill.sync.verify import VerifyReport
from mailmill.sync.verify_compare import GapKind, Sampling
from mailmill.sync.verify_repair import Repair
from servers.dovecot import Dovecot
from servers.mail_server import MailServer
from servers.pymap import Pymap

pytestmark = pytest.mark.both_databases(server=("dovecot",))

INBOX_ID = "(SELECT id FROM mailbox WHERE path = 'INBOX')"


def raw(number: int, body: str = "") -> bytes:
    return (
        f"From: Ann <ann{number}@example.org>\r\nSubject: number {number}\r\n"
        f"Message-ID: <{number}@example.org>\r\n\r\n{body or number}\r\n"
    ).encode()


@pytest.fixture(params=("dovecot", "dovecot_condstore", "dovecot_plain", "cyrus"))
def server(request: pytest.FixtureRequest) -> MailServer:
    server: MailServer = request.getfixturevalue(request.param)
    return server


def other_client(server: MailServer, user: str) -> OtherClient:
    return OtherClient(server.host, server.port, user, server.credentials(user).password)


@asynccontextmanager
async def filled(
    server: MailServer, user: str, data_dir: Path, *, running: bool = True, pool_size: int = 3
) -> AsyncIterator[tuple[SyncedAccount, Verifier]]:
    """INBOX with UIDs 1 to 8, Archive with 1 and 2, all of it in the store."""
    await server.add_messages(user, "INBOX", [raw(number) for number in range(1, 9)], [r"\Seen"])
    await server.add_messages(user, "Archive", [raw(101), raw(102)])
    # Groups of two messages: some segments can be broken while others stay whole.
    limits = SyncLimits(group_messages=2)
    async with synced_account(
        data_dir, server.endpoint(), server.credentials(user), limits=limits, running=running, pool_size=pool_size
    ) as account:
        if running:
            await account.once()
        else:
            assert not (await account.sync.run_once()).errors
        verify = Verifier(
            account, server.endpoint(), server.credentials(user), data_dir, running=running, pool_size=pool_size
        )
        yield account, verify


async def in_step(server: MailServer, user: str, data_dir: Path) -> None:
    async with other_client(server, user) as other:
        await asyncio.to_thread(truth.check, data_dir, await other.truth())


async def test_a_store_in_step_is_clean(server: MailServer, data_dir: Path) -> None:
    user = server.new_user()
    async with filled(server, user, data_dir) as (account, verify):
        await server.append(user, "INBOX", raw(9))
        await server.set_flags(user, "INBOX", "uid 3", [r"\Flagged", "todo"])
        await account.once()
        report = await verify()
        assert (report.gaps, report.settled, report.unverified) == ([], [], {})
        assert (report.messages, report.contents) == (11, 11)
        sampled = await verify(sampling=Sampling(newest=2, random=1, seed=1), page_messages=3)
        assert (sampled.gaps, sampled.messages, sampled.contents) == ([], 11, 5)


def all_named(report: VerifyReport) -> dict[tuple[GapKind, str], str]:
    """Gaps, and what a pass caught up with by itself: on the plain tier it looks at the newest flags every time."""
    return named(report.gaps) | named(report.settled)


async def test_broken_places_are_named_and_mended(server: MailServer, data_dir: Path) -> None:
    user = server.new_user()
    async with filled(server, user, data_dir) as (account, verify):
        ids, events = await account.message_ids(), len(await account.events())
        await break_store(
            data_dir,
            f"DELETE FROM place WHERE mailbox_id = {INBOX_ID} AND uid = 1",
            f"UPDATE place SET expunged_at = 1 WHERE mailbox_id = {INBOX_ID} AND uid = 2",
            f"UPDATE place SET flags = '\\Draft wrong' WHERE mailbox_id = {INBOX_ID} AND uid = 3",
            "INSERT INTO place (mailbox_id, uid_validity, uid, message_id, flags, seen_at) "
            "SELECT mailbox_id, uid_validity, 77, message_id, '', 1 FROM place "
            f"WHERE mailbox_id = {INBOX_ID} AND uid = 4",
            "UPDATE message SET deleted_at = 1 WHERE id = "
            f"(SELECT message_id FROM place WHERE mailbox_id = {INBOX_ID} AND uid = 5)",
        )
        report = await verify()
        assert all_named(report) == {
            (GapKind.MISSING, "INBOX"): "1:2",
            (GapKind.FLAGS, "INBOX"): "3",
            (GapKind.SURPLUS, "INBOX"): "77",
            (GapKind.DELETED, "INBOX"): "5",
            (GapKind.CURSOR, "INBOX"): "",
        }
        [flags] = [gap for gap in (*report.gaps, *report.settled) if gap.kind is GapKind.FLAGS]
        assert flags.detail == r"on the server (\Seen), in the store (\Draft wrong)"

        mended = await verify(repair=True)
        assert mended.gaps == []
        assert named(mended.repaired) == named(report.gaps)
        assert (await verify()).gaps == []
        assert await account.message_ids() == ids
        told = Counter(row.event for row in (await account.events())[events:])
        # (A pass may have taken the tombstone for the truth, and told of a deletion that it then took back.)
        assert told["messageNew"] == 0
        assert told["messageUpdated"] >= 5
        await in_step(server, user, data_dir)


async def test_broken_bytes_are_named_and_fetched_again(dovecot: Dovecot, mail_user: str, data_dir: Path) -> None:
    async with filled(dovecot, mail_user, data_dir) as (account, verify):
        before = await account.contents()
        events = len(await account.events())
        tampered, gone, *_ = await segments(data_dir)
        in_each = {path: {str(uid) for uid in await account.column(uids_in(path))} for path in (tampered, gone)}

        def tamper() -> None:
            with tampered.open("r+b") as file:
                file.seek(10)
                file.write(b"X")
            gone.unlink()

        await asyncio.to_thread(tamper)
        await break_store(
            data_dir, "DELETE FROM blob WHERE sha256 = (SELECT sha256 FROM message WHERE subject = 'number 5')"
        )
        report = await verify()
        by_detail = {gap.detail.split(":")[0]: {str(uid) for uid in gap.uids} for gap in report.gaps}
        assert {gap.kind for gap in report.gaps} == {GapKind.UNREADABLE}
        damaged = by_detail[f"segment {tampered.parent.name}/{tampered.name} is damaged"]
        assert damaged and damaged < in_each[tampered], "the other message in that segment is well"
        assert by_detail[f"segment {gone.parent.name}/{gone.name} cannot be read"] == in_each[gone] - {"5"}
        assert by_detail["no row says where its raw bytes lie"] == {"5"}

        mended = await verify(repair=True)
        assert (mended.gaps, named(mended.repaired)) == ([], named(report.gaps))
        assert await account.contents() == before
        assert (await account.events())[events:] == []
        await in_step(dovecot, mail_user, data_dir)


async def test_bytes_fetched_again_are_named_before_the_rest_is_repaired(
    dovecot: Dovecot, mail_user: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment that nobody names is collected, and a large repair takes long."""
    async with filled(dovecot, mail_user, data_dir) as (_account, verify):
        gone, *_ = await segments(data_dir)
        await asyncio.to_thread(gone.unlink)

        async def nothing(_self: Repair) -> None:
            pass

        monkeypatch.setattr(Repair, "apply", nothing)
        await verify(repair=True)
        assert (await verify()).gaps == []


def uids_in(segment: Path) -> str:
    return (
        "SELECT uid FROM place JOIN message ON message.id = message_id "
        f"JOIN blob ON blob.sha256 = message.sha256 WHERE segment = '{segment.parent.name}/{segment.name}'"
    )


async def test_bytes_that_change_on_the_server_are_told_and_left_alone(
    dovecot: Dovecot, mail_user: str, data_dir: Path
) -> None:
    async with filled(dovecot, mail_user, data_dir) as (account, verify):
        before = await account.contents()
        await dovecot.rewrite(mail_user, "INBOX", b"Subject: number 4", b"Subject: changed!")
        report = await verify(repair=True)
        [gap] = report.gaps
        assert (gap.kind, gap.path, str(gap.uids)) == (GapKind.CONTENT, "INBOX", "4")
        assert report.repaired == []
        assert await account.contents() == before


async def test_a_cursor_that_ran_ahead_is_the_silent_loss_that_is_named(server: MailServer, data_dir: Path) -> None:
    """The cursor says exactly what the server says, so that sync has no reason to look; three messages were never
    fetched and one is gone.
    """
    user = server.new_user()
    async with filled(server, user, data_dir) as (account, _):
        ids = await account.message_ids()
    await server.add_messages(user, "INBOX", [raw(number) for number in (21, 22, 23)])
    await server.expunge(user, "INBOX", "uid 2")
    mod_seq = await server.status(user, "INBOX", "highestmodseq")
    await break_store(
        data_dir,
        f"UPDATE mailbox SET uid_next = 12, messages = 10, highest_mod_seq = {mod_seq} WHERE path = 'INBOX'",
    )
    where = (server.endpoint(), server.credentials(user))
    async with synced_account(data_dir, *where, running=False) as account:
        verify = Verifier(account, *where, data_dir, running=False)
        report = await verify()
        wanted = {(GapKind.MISSING, "INBOX"): "9:11", (GapKind.SURPLUS, "INBOX"): "2", (GapKind.CURSOR, "INBOX"): ""}
        assert all_named(report) == wanted
        # Without mod-sequences a pass never takes the server's word for it, and counts.
        assert (report.gaps == []) == (server.traits.tier == "plain")
        mended = await verify(repair=True)
        assert mended.gaps == []
        now = await account.message_ids()
        assert {uid: now[uid] for uid in now if uid < 9} == {uid: ids[uid] for uid in ids if uid != 2}
        told = Counter(row.event for row in await account.events())
        assert (told["messageNew"], told["messageDeleted"]) == (13, 1)
        assert (await verify()).gaps == []
        await in_step(server, user, data_dir)


async def test_without_a_service_it_carries_out_no_changes_of_mail(data_dir: Path) -> None:
    """Of a restored copy: what was asked for before the backup is not done once more on the real mailbox."""
    server = FakeImap(FakeMailbox(), FakeMailbox("Archive", uid_validity=9))
    server.inbox.add(*(raw(number) for number in range(1, 5)))
    async with server:
        where = (server.endpoint(), server.credentials())
        async with synced_account(data_dir, *where, running=False) as account:
            assert not (await account.sync.run_once()).errors
            rows = [
                await ask(account, "flags", "INBOX", 1, add=[r"\Flagged"]),
                await ask(account, "move", "INBOX", 2, "Archive"),
                await ask(account, "delete", "INBOX", 3, "Archive"),
                await ask_append(account, "Archive", raw(9)),
            ]
        server.inbox.add(raw(5))
        before = server.truth()
        async with synced_account(data_dir, *where, running=False) as account:
            verify = Verifier(account, *where, data_dir, running=False)
            assert named((await verify()).settled) == {(GapKind.PENDING, "INBOX"): "5"}, "a pass was made"
            await break_store(data_dir, f"DELETE FROM place WHERE mailbox_id = {INBOX_ID} AND uid = 4")
            assert (await verify(repair=True)).gaps == []
            assert server.truth() == before
            assert [await now(account, row) for row in rows] == rows
            assert not (await account.sync.run_once()).errors
            assert [outcome(await now(account, row)) for row in rows] == [("done", "", "")] * 4
        assert server.truth() != before


async def test_mailboxes_are_named_and_mended(server: MailServer, data_dir: Path) -> None:
    user = server.new_user()
    async with filled(server, user, data_dir) as (account, verify):
        ids = await account.message_ids("Archive")
        await break_store(
            data_dir,
            "DELETE FROM mailbox WHERE path = 'Archive'",
            "INSERT INTO mailbox (account_id, path, selectable) SELECT id, 'Phantom', true FROM account",
            "UPDATE mailbox SET uid_validity = uid_validity + 1 WHERE path = 'INBOX'",
            "UPDATE mailbox SET selectable = false WHERE path = 'Junk'",
        )
        report = await verify()
        assert all_named(report) == {
            (GapKind.MAILBOX_MISSING, "Archive"): "",
            (GapKind.MAILBOX_SURPLUS, "Phantom"): "",
            (GapKind.GENERATION, "INBOX"): "",
            (GapKind.MAILBOX_MISSING, "Junk"): "",
            (GapKind.SURPLUS, "INBOX"): "1:8",
        }
        mended = await verify(repair=True)
        assert mended.gaps == []
        assert (await verify()).gaps == []
        assert await account.message_ids("Archive") == ids
        told = Counter(row.event for row in await account.events())
        assert (told["messageNew"], told["messageDeleted"]) == (10, 0)
        await in_step(server, user, data_dir)


async def test_a_generation_of_its_own_in_the_store(dovecot: Dovecot, mail_user: str, data_dir: Path) -> None:
    """As after a restore of the store from before the server's mailbox was made anew."""
    async with filled(dovecot, mail_user, data_dir) as (account, verify):
        ids = await account.message_ids()
        await break_store(
            data_dir,
            f"UPDATE place SET uid_validity = 5 WHERE mailbox_id = {INBOX_ID}",
            "UPDATE mailbox SET uid_validity = 5 WHERE path = 'INBOX'",
        )
        assert named((await verify()).gaps) == {(GapKind.GENERATION, "INBOX"): ""}
        assert (await verify(repair=True)).gaps == []
        assert await account.message_ids() == ids
        told = Counter(row.event for row in await account.events())
        assert (told["messageNew"], told["messageDeleted"], told["mailboxReset"]) == (10, 0, 1)
        await in_step(dovecot, mail_user, data_dir)


@pytest.mark.parametrize(
    "change",
    ["highest_mod_seq = 1000000", "uid_next = 5000", "messages = 99", "uncovered = '3,500'"],
)
async def test_marks_that_are_off_are_named_and_mended(
    dovecot: Dovecot, mail_user: str, data_dir: Path, change: str
) -> None:
    async with filled(dovecot, mail_user, data_dir) as (_account, verify):
        await break_store(data_dir, f"UPDATE mailbox SET {change} WHERE path = 'INBOX'")
        report = await verify()
        assert {(gap.kind, gap.path) for gap in report.gaps} == {(GapKind.CURSOR, "INBOX")}
        assert (await verify(repair=True)).gaps == []
        assert (await verify()).gaps == []
        await in_step(dovecot, mail_user, data_dir)


async def test_a_cursor_that_cannot_be_read_is_named_and_mended(
    dovecot: Dovecot, mail_user: str, data_dir: Path
) -> None:
    async with filled(dovecot, mail_user, data_dir) as (_account, verify):
        await break_store(
            data_dir,
            f"DELETE FROM place WHERE mailbox_id = {INBOX_ID} AND uid = 3",
            "UPDATE mailbox SET uncovered = 'nonsense' WHERE path = 'INBOX'",
        )
        report = await verify(repair=True)
        assert report.gaps == []
        assert set(named(report.repaired)) == {(GapKind.CURSOR, "INBOX"), (GapKind.MISSING, "INBOX")}
        await in_step(dovecot, mail_user, data_dir)


async def test_what_is_parked_is_told_with_its_reason_and_tried_again(
    dovecot: Dovecot, mail_user: str, data_dir: Path
) -> None:
    await dovecot.add_messages(mail_user, "INBOX", [raw(1), raw(2, "x" * 2000)])
    small, large = SyncLimits(max_message_bytes=1000), SyncLimits()
    where = (dovecot.endpoint(), dovecot.credentials(mail_user))
    async with synced_account(data_dir, *where, limits=small) as account:
        await account.once()
        verify = Verifier(account, *where, data_dir)
        [gap] = (await verify(repair=True)).gaps
        assert (gap.kind, str(gap.uids)) == (GapKind.PARKED, "2")
        assert "larger than max_message_bytes" in gap.detail
        # Forgotten by the cursor, nothing would ever fetch it.
        await break_store(data_dir, "UPDATE mailbox SET uncovered = '', messages = 1 WHERE path = 'INBOX'")
        [gap] = (await verify()).gaps
        assert (gap.kind, str(gap.uids)) == (GapKind.MISSING, "2")
        [gap] = (await verify(repair=True)).gaps
        assert (gap.kind, str(gap.uids)) == (GapKind.PARKED, "2")
    async with synced_account(data_dir, *where, limits=large) as account:
        verify = Verifier(account, *where, data_dir)
        await account.once()
        assert named((await verify()).gaps) == {(GapKind.PARKED, "INBOX"): "2"}
        assert (await verify(repair=True)).gaps == []
        await in_step(dovecot, mail_user, data_dir)


async def test_a_busy_mailbox_is_no_false_alarm(server: MailServer, data_dir: Path) -> None:
    user = server.new_user()
    async with filled(server, user, data_dir) as (_account, verify), other_client(server, user) as other:
        stop = asyncio.Event()
        busy = asyncio.create_task(_keep_changing(other, stop))
        try:
            for _ in range(4):
                assert named((await verify()).gaps) == {}
        finally:
            stop.set()
            await busy


async def _keep_changing(other: OtherClient, stop: asyncio.Event) -> None:
    for number in itertools.count(1000):
        if stop.is_set():
            break
        await other.append("INBOX", raw(number))
        await other.set_flags("INBOX", "*", r"\Flagged", action="+FLAGS" if number % 2 else "-FLAGS")
        if number % 3 == 0:
            await other.move("INBOX", "*", "Archive")
        if number % 5 == 0:
            await other.expunge("INBOX", "*")


@pytest.mark.parametrize(("running", "pool_size"), [(True, 1), (False, 3)])
async def test_it_needs_no_second_place_in_the_pool(
    dovecot: Dovecot, mail_user: str, data_dir: Path, running: bool, pool_size: int
) -> None:
    async with filled(dovecot, mail_user, data_dir, running=running, pool_size=pool_size) as (account, verify):
        await break_store(data_dir, f"UPDATE place SET flags = 'wrong' WHERE mailbox_id = {INBOX_ID} AND uid = 4")
        assert named((await verify()).gaps) == {(GapKind.FLAGS, "INBOX"): "4"}
        assert (await verify(repair=True)).gaps == []
        assert account.sync.view().connections <= pool_size
        await in_step(dovecot, mail_user, data_dir)


async def test_push_goes_on_while_it_looks_and_repairs(dovecot: Dovecot, mail_user: str, data_dir: Path) -> None:
    """The watching connection is not the one that looks, and a repair leaves push as it was."""
    async with filled(dovecot, mail_user, data_dir) as (account, verify):
        await break_store(data_dir, f"DELETE FROM place WHERE mailbox_id = {INBOX_ID} AND uid = 4")
        looking = asyncio.create_task(verify(repair=True))
        await dovecot.append(mail_user, "INBOX", raw(50))
        await account.wait_for(lambda rows: sum(row.event == "messageNew" for row in rows) == 11)
        assert (await looking).gaps == []
        await dovecot.append(mail_user, "INBOX", raw(51))
        await account.wait_for(lambda rows: sum(row.event == "messageNew" for row in rows) == 12)
        assert (await verify()).gaps == []


async def test_a_repair_waits_for_a_backlog_that_is_being_fetched(
    dovecot: Dovecot, mail_user: str, data_dir: Path
) -> None:
    await dovecot.add_messages(mail_user, "Archive", [raw(number) for number in range(700)])
    where = (dovecot.endpoint(), dovecot.credentials(mail_user))
    limits = SyncLimits(group_messages=10)
    async with synced_account(data_dir, *where, limits=limits) as account:
        await account.wait_for(lambda rows: any(row.event == "messageNew" for row in rows))
        ran = asyncio.Event()

        async def first() -> None:
            assert await account.scalar("SELECT count(*) FROM place") == 700
            ran.set()

        report = await account.sync.sync_now(first)
        assert ran.is_set() and not report.errors
        assert (await Verifier(account, *where, data_dir)()).gaps == []


# -- pymap ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_pymap() -> Iterator[Pymap]:
    with Pymap() as server:
        yield server


async def test_on_a_server_of_another_make(own_pymap: Pymap, data_dir: Path) -> None:
    credentials = own_pymap.credentials()
    where = (own_pymap.endpoint(), credentials)
    async with (
        OtherClient(own_pymap.host, own_pymap.port, credentials.username, credentials.password) as other,
        synced_account(data_dir, *where) as account,
    ):
        await other.append("INBOX", *(raw(number) for number in range(1, 7)))
        await account.once()
        verify = Verifier(account, *where, data_dir)
        assert (await verify()).gaps == []
        first, second, third, *_ = sorted(await account.message_ids())
        await break_store(
            data_dir,
            f"DELETE FROM place WHERE mailbox_id = {INBOX_ID} AND uid = {first}",
            f"UPDATE place SET flags = 'wrong' WHERE mailbox_id = {INBOX_ID} AND uid = {second}",
            f"UPDATE place SET uid = 9999 WHERE mailbox_id = {INBOX_ID} AND uid = {third}",
        )
        report = await verify()
        found = all_named(report)
        assert found.pop((GapKind.CURSOR, "INBOX")) == ""
        assert found == {
            (GapKind.MISSING, "INBOX"): f"{first},{third}",
            (GapKind.FLAGS, "INBOX"): f"{second}",
            (GapKind.SURPLUS, "INBOX"): "9999",
        }
        assert (await verify(repair=True)).gaps == []
        assert (await verify()).gaps == []
        await asyncio.to_thread(truth.check, data_dir, await other.truth())
