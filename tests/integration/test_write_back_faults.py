"""Requests and a server that refuses, lies, or goes away in the middle: each is done once, or fails with its reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.fake_imap import CONDSTORE, PLAIN, QRESYNC, Answer, Client, FakeImap
from harness.fake_imap_faults import cut, refused, replaced
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import BODIES, account_on, check, let_time_pass
from harness.requesting import ask, ask_append, finished, now, outcome, write_once
from harness.syncing import SyncedAccount
from mailmill.errors import StorageUnavailableError
from mailmill.store import requests
from mailmill.store.blobs import BlobRef, BlobStore
from mailmill.store.request_rows import RequestRow
from mailmill.sync.account_pass import BACKLOG_MESSAGES
from mailmill.sync.write_plan import MOST_ATTEMPTS
from servers.scripted import Command

NO_MOVE = CONDSTORE.replace(" MOVE", "")
BARE = PLAIN.replace(" UIDPLUS", "")

pytestmark = pytest.mark.both_databases(server=(QRESYNC, BARE))


def raw(number: int, message_id: bool = True) -> bytes:
    header = f"Message-ID: <{number}@example.org>\r\n" if message_id else ""
    return f"{header}Subject: {number}\r\n\r\n{number}\r\n".encode()


@pytest.fixture(params=[QRESYNC, NO_MOVE, PLAIN, BARE], ids=["all", "no MOVE", "plain", "no UIDPLUS"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[FakeImap]:
    async with FakeImap(FakeMailbox(), FakeMailbox("Archive", uid_validity=9), capabilities=request.param) as server:
        server.inbox.add(raw(1), raw(2), raw(3, message_id=False))
        yield server


@pytest.fixture
async def account(server: FakeImap, data_dir: Path) -> AsyncIterator[SyncedAccount]:
    async with account_on(server, data_dir, running=False) as account:
        assert not (await account.sync.run_once()).errors
        yield account


async def try_again(account: SyncedAccount) -> None:
    """As often as it takes a server that cuts connections; what waits for its time is due."""
    for _ in range(MOST_ATTEMPTS + 2):
        let_time_pass(account, 3600.0)
        if not (await account.sync.write_once()).errors:
            return
    raise AssertionError("it never came through")


def subjects(mailbox: FakeMailbox) -> list[bytes]:
    """What is in it and not marked as deleted, in order."""
    return [one.raw for one in mailbox.messages.values() if "\\Deleted" not in one.flags]


async def done(account: SyncedAccount, row: RequestRow) -> RequestRow:
    row = await now(account, row)
    assert (str(row.state), row.error) == ("done", "")
    return row


@pytest.mark.parametrize("applied", [True, False], ids=["done unheard", "never done"])
@pytest.mark.parametrize("command", [rb"UID MOVE", rb"UID COPY", rb"UID STORE .*Deleted", rb"UID EXPUNGE", rb"STATUS"])
async def test_moves_that_are_cut_happen_once(
    server: FakeImap, account: SyncedAccount, data_dir: Path, command: bytes, applied: bool
) -> None:
    ids = await account.message_ids()
    rows = [await ask(account, "move", "INBOX", uid, "Archive") for uid in (1, 3)]
    server.fault(command, cut(at=0), applied=applied)
    await try_again(account)
    moved = [(await done(account, row)).target_uid for row in rows]
    assert sorted(moved) == [1, 2]
    assert sorted(subjects(server.mailbox("Archive"))) == sorted([raw(1), raw(3, message_id=False)])
    assert subjects(server.inbox) == [raw(2)]
    assert not (await account.sync.run_once()).errors
    held = await account.message_ids("Archive")
    assert [held[uid] for uid in moved] == [ids[1], ids[3]]
    await check(server, data_dir)


@pytest.mark.parametrize("applied", [True, False], ids=["done unheard", "never done"])
async def test_a_copy_that_is_cut_happens_once(
    server: FakeImap, account: SyncedAccount, data_dir: Path, applied: bool
) -> None:
    server.mailbox("Archive").add(raw(1))
    rows = [await ask(account, "copy", "INBOX", 1, "Archive"), await ask(account, "copy", "INBOX", 2, "Archive")]
    server.fault(rb"UID COPY", cut(at=0), applied=applied)
    await try_again(account)
    held = [await done(account, row) for row in rows]
    # The one that was there before is not taken for ours.
    assert sorted(row.target_uid or 0 for row in held) == [2, 3]
    assert subjects(server.mailbox("Archive")) == [raw(1), raw(1), raw(2)]
    assert not (await account.sync.run_once()).errors
    await check(server, data_dir)


@pytest.mark.parametrize("applied", [True, False], ids=["done unheard", "never done"])
@pytest.mark.parametrize("message_id", [True, False])
async def test_an_upload_that_is_cut_happens_once(
    server: FakeImap, account: SyncedAccount, data_dir: Path, applied: bool, message_id: bool
) -> None:
    server.mailbox("Archive").add(raw(7, message_id))
    rows = [await ask_append(account, "Archive", raw(7, message_id)), await ask_append(account, "Archive", raw(8))]
    server.fault(rb"APPEND", cut(at=0), applied=applied)
    # Somebody else delivers something like it meanwhile.
    server.fault(rb"LOGIN|AUTHENTICATE", deliver(server.mailbox("Archive"), raw(7).replace(b"Subject", b"X-Sub")))
    await try_again(account)
    for row in rows:
        await done(account, row)
    held = subjects(server.mailbox("Archive"))
    assert (held.count(raw(7, message_id)), held.count(raw(8))) == (2, 1)
    assert not (await account.sync.run_once()).errors
    await check(server, data_dir)


async def test_an_upload_waits_for_an_object_store_that_is_away(
    server: FakeImap, account: SyncedAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await ask_append(account, "Archive", raw(7))

    async def away(_self: BlobStore, _ref: BlobRef) -> bytes:
        raise StorageUnavailableError("the object store cannot be reached")

    with monkeypatch.context() as patch:
        patch.setattr(BlobStore, "get", away)
        for _ in range(MOST_ATTEMPTS + 1):
            await try_again(account)
        waiting = await now(account, row)
        assert (waiting.finished, waiting.attempts) == (False, 0)
    await try_again(account)
    await done(account, row)
    assert subjects(server.mailbox("Archive")) == [raw(7)]


def deliver(mailbox: FakeMailbox, message: bytes):  # type: ignore[no-untyped-def]
    async def act(client, _command, answer):  # type: ignore[no-untyped-def]
        mailbox.add(message)
        await client.send(answer)

    return act


async def test_two_uploads_of_the_same_bytes_are_two_messages(server: FakeImap, account: SyncedAccount) -> None:
    """The first is cut and put off; the second, made meanwhile, must not be taken for it."""
    first = await ask_append(account, "Archive", raw(7))
    server.fault(rb"APPEND", cut(at=0), applied=False)
    server.fault(rb"APPEND", refused("NO", "not just now"), applied=False)
    assert (await account.sync.write_once()).errors
    assert not (await account.sync.write_once()).errors
    assert (await now(account, first)).attempts == 2
    second = await ask_append(account, "Archive", raw(7))
    await write_once(account)
    assert (await done(account, second)).target_uid == 1
    await try_again(account)
    assert (await done(account, first)).target_uid == 2
    assert subjects(server.mailbox("Archive")) == [raw(7)] * 2


async def test_not_now_is_tried_again_and_given_up_in_the_end(server: FakeImap, account: SyncedAccount) -> None:
    row = await ask(account, "flags", "INBOX", 1, add=[r"\Seen"])
    behind = await ask(account, "flags", "INBOX", 1, add=[r"\Flagged"])
    other = await ask(account, "flags", "INBOX", 2, add=[r"\Flagged"])
    server.fault(rb"UID STORE 1 ", refused("NO", "[INUSE] somebody has it"), times=None, applied=False)
    await write_once(account)
    held = await now(account, row)
    assert (str(held.state), held.attempts) == ("applying", 1)
    assert held.run_at > time.time()
    # What is behind it waits, what is about another message does not.
    assert str((await now(account, behind)).state) == "pending"
    await done(account, other)
    before = server.count(rb"UID STORE 1 ")
    await write_once(account)
    assert server.count(rb"UID STORE 1 ") == before
    for _ in range(MOST_ATTEMPTS):
        let_time_pass(account, 3600.0)
        await write_once(account)
    state, code, error = outcome(await now(account, row))
    assert (state, code) == ("failed", "refused")
    assert error.startswith(f"given up after {MOST_ATTEMPTS} tries: the server answered NO to UID STORE: [INUSE]")
    server.heal()
    let_time_pass(account, 3600.0)
    await write_once(account)
    await done(account, behind)
    assert server.inbox.messages[1].flags == {r"\Flagged"}


async def test_a_refusal_for_good_is_told_at_once(server: FakeImap, account: SyncedAccount) -> None:
    row = await ask(account, "flags", "INBOX", 1, add=[r"\Seen"])
    server.fault(rb"UID STORE", refused("NO", "[NOPERM] not yours"), applied=False)
    await write_once(account)
    assert outcome(await now(account, row)) == (
        "failed", "refused", "the server answered NO to UID STORE: [NOPERM] not yours"
    )  # fmt: skip


async def test_a_mailbox_that_is_not_there_is_named(server: FakeImap, account: SyncedAccount) -> None:
    gone_before = await ask(account, "move", "INBOX", 1, "Nowhere")
    gone_meanwhile = await ask(account, "copy", "INBOX", 2, "Archive")
    server.fault(rb"UID COPY", refused("NO", "[TRYCREATE] no such mailbox"), applied=False)
    await write_once(account)
    assert outcome(await now(account, gone_before)) == ("failed", "notFound", "the server has no mailbox 'Nowhere'")
    assert outcome(await now(account, gone_meanwhile)) == ("failed", "notFound", "the server has no mailbox 'Archive'")


async def test_one_of_many_at_fault_does_not_spoil_the_others(server: FakeImap, account: SyncedAccount) -> None:
    rows = [await ask(account, "flags", "INBOX", uid, add=[r"\Seen"]) for uid in (1, 2, 3)]
    server.fault(rb"UID STORE 1:3 ", refused("NO", "[CANNOT] one of them"), applied=False)
    server.fault(rb"UID STORE 2 ", refused("NO", "[CANNOT] this one"), applied=False)
    await write_once(account)
    assert [str((await now(account, row)).state) for row in rows] == ["done", "failed", "done"]
    assert [bool(one.flags) for one in server.inbox.messages.values()] == [True, False, True]


async def test_equal_requests_go_out_as_one_command(server: FakeImap, account: SyncedAccount) -> None:
    for uid in (1, 2, 3):
        await ask(account, "flags", "INBOX", uid, add=[r"\Seen"])
    await write_once(account)
    assert server.count(rb"UID STORE") == server.count(rb"UID STORE 1:3 ") == 1


async def test_a_mailbox_given_for_reading_only(server: FakeImap, account: SyncedAccount) -> None:
    row = await ask(account, "flags", "INBOX", 1, add=[r"\Seen"])
    copied = await ask(account, "copy", "INBOX", 2, "Archive")
    server.fault(rb"SELECT", replaced(rb"READ-WRITE", b"READ-ONLY"), times=None)
    await write_once(account)
    assert outcome(await now(account, row)) == ("failed", "refused", "the server opens 'INBOX' for reading only")
    await done(account, copied)


async def test_another_uid_validity_is_the_same_place(server: FakeImap, account: SyncedAccount, data_dir: Path) -> None:
    flagged = await ask(account, "flags", "INBOX", 1, add=[r"\Seen"])
    deleted = await ask(account, "delete", "INBOX", 2)
    server.inbox.renumber(77, first_uid=41)
    await write_once(account)
    await done(account, flagged)
    await done(account, deleted)
    assert subjects(server.inbox) == [raw(1), raw(3, message_id=False)]
    assert server.inbox.messages[41].flags == {r"\Seen"}
    assert not (await account.sync.run_once()).errors
    await check(server, data_dir)


async def test_a_message_in_several_other_mailboxes_is_not_guessed(server: FakeImap, account: SyncedAccount) -> None:
    server.create(FakeMailbox("Other", uid_validity=11))
    row = await ask(account, "flags", "INBOX", 1, add=[r"\Seen"])
    server.mailbox("Archive").add(raw(1))
    server.mailbox("Other").add(raw(1))
    server.inbox.expunge(1)
    await write_once(account)
    assert outcome(await now(account, row)) == (
        "failed", "conflict", "the message is not in 'INBOX' any more but in 'Archive', 'Other'"
    )  # fmt: skip


async def test_what_is_asked_while_nobody_is_connected_waits(server: FakeImap, data_dir: Path) -> None:
    async with account_on(server, data_dir) as account:
        await account.once()
        server.fault(rb"LOGIN|AUTHENTICATE", refused("NO", "[UNAVAILABLE] later"), times=None)
        server.fault(rb"LIST|STATUS|NOOP", cut(at=0))
        assert (await account.sync.sync_now()).errors
        row = await ask(account, "flags", "INBOX", 1, add=[r"\Seen"])
        await server.until(lambda: server.logins > 3)
        assert str((await now(account, row)).state) == "pending"
        server.heal()
        assert outcome(await finished(account, row)) == ("done", "", "")
        assert server.inbox.messages[1].flags == {r"\Seen"}


async def test_one_that_cuts_its_connection_each_time_is_given_up(server: FakeImap, account: SyncedAccount) -> None:
    row = await ask(account, "flags", "INBOX", 1, add=[r"\Seen"])
    other = await ask(account, "flags", "INBOX", 2, add=[r"\Answered"])
    server.fault(rb"UID STORE 1 ", cut(at=0), times=None, applied=False)
    for _ in range(MOST_ATTEMPTS + 1):
        let_time_pass(account, 3600.0)
        await account.sync.write_once()
    state, code, error = outcome(await now(account, row))
    assert (state, code) == ("failed", "connectionLost")
    assert "each was cut off: the connection was lost" in error
    await done(account, other)


async def test_a_look_that_cuts_its_connection_is_put_off_then_given_up(
    server: FakeImap, account: SyncedAccount, data_dir: Path
) -> None:
    """Nothing has gone out for it, so there is nothing to count but the look."""
    row = await ask(account, "flags", "INBOX", 1, add=[r"\Seen"])
    server.fault(rb"SELECT", cut(at=0), times=None, applied=False)
    passes = 0
    for _ in range(2 * MOST_ATTEMPTS):
        server.mailbox("Archive").add(raw(100 + passes))
        # The time has not come for it each time: the rest of the account is not held up.
        passes += not (await account.sync.run_once()).errors
        if passes % 2:
            let_time_pass(account, 3600.0)
    state, code, error = outcome(await now(account, row))
    assert (state, code) == ("failed", "connectionLost")
    assert error.startswith(f"given up after {MOST_ATTEMPTS} tries: ")
    assert passes
    await check(server, data_dir)


async def test_a_message_that_may_be_in_a_backlog_is_not_given_up(server: FakeImap, data_dir: Path) -> None:
    """Another client moves it among more mail than is fetched at once; a request about it waits for that mail."""
    fetched = asyncio.Event()

    async def once_allowed(client: Client, _command: Command, answer: Answer) -> None:
        await fetched.wait()
        await client.send(answer)

    async with account_on(server, data_dir) as account:
        await account.once()
        other = await ask(account, "flags", "INBOX", 2, add=[r"\Seen"])
        archive = server.mailbox("Archive")
        server.fault(BODIES, once_allowed, times=None)
        row = await ask(account, "flags", "INBOX", 1, add=[r"\Seen"])
        # No await from here to the expunge: the account has not looked yet.
        moved = archive.add(*(raw(number) for number in range(1000, 1000 + BACKLOG_MESSAGES)), raw(1))
        server.inbox.expunge(1)
        await finished(account, other)
        another = await ask(account, "flags", "INBOX", 3, add=[r"\Seen"])
        await finished(account, another)
        assert not (await now(account, row)).finished
        fetched.set()
        assert outcome(await finished(account, row)) == ("done", "", "")
        assert archive.messages[moved].flags == {r"\Seen"}


async def test_a_wait_in_a_crowd_is_for_ones_own_request(server: FakeImap, data_dir: Path) -> None:
    async with account_on(server, data_dir) as account:
        await account.once()
        rows = [await ask(account, "flags", "INBOX", 1 + number % 3, add=[f"k{number}"]) for number in range(30)]
        for row in await asyncio.gather(*(finished(account, row) for row in rows)):
            assert outcome(row) == ("done", "", "")
        assert {flag for one in server.inbox.messages.values() for flag in one.flags} == {f"k{n}" for n in range(30)}
        async with account.database.read() as connection:
            assert await requests.count_open(connection) == {}
        await account.once()
        await check(server, data_dir)
