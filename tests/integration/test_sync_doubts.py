"""What the store does not believe: absence that nobody confirms, completeness that some mailbox belies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.fake_imap import FakeImap
from harness.fake_imap_faults import altered, refused, replaced
from harness.fake_mailbox import FakeMailbox
from harness.syncing import SyncedAccount, synced_account
from mailmill.app import views
from mailmill.model import AccountState
from mailmill.store.mailboxes import list_mailboxes, list_parked
from mailmill.sync.context import SyncLimits

pytestmark = pytest.mark.both_databases


def raw(number: int) -> bytes:
    return f"Subject: {number}\r\n\r\n{number}\r\n".encode()


def on(server: FakeImap, data_dir: Path, **options: Any) -> Any:
    return synced_account(data_dir, server.endpoint(), server.credentials(), **options)


async def told(account: SyncedAccount) -> Counter[str]:
    return Counter(row.event for row in await account.events())


@pytest.mark.parametrize(
    "answer",
    [
        altered(lambda answer: [line for line in answer if not line.startswith(b"* ESEARCH")]),
        replaced(rb"UID ALL \S+", b"UID"),
        replaced(rb"UID ALL (\S+)", rb'UID ALL "\1"'),
    ],
    ids=["absent", "empty", "quoted"],
)
async def test_a_search_that_finds_nothing_in_a_full_mailbox(answer: Any, data_dir: Path) -> None:
    async with FakeImap() as server, on(server, data_dir, running=False) as account:
        server.inbox.add(*(raw(number) for number in range(1, 21)))
        assert not (await account.sync.run_once()).errors
        server.inbox.expunge(7)
        server.fault(
            rb"UID FETCH .*CHANGEDSINCE", altered(lambda answer: [line for line in answer if b"VANISHED" not in line])
        )
        server.fault(rb"UID SEARCH", answer, times=None)
        report = await account.sync.run_once()
        assert report.error is not None
        assert report.error.code == "protocol"
        assert len(await account.held()) == 20
        assert (await told(account))["messageDeleted"] == 0


async def test_a_list_that_leaves_out_a_mailbox_deletes_nothing(data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("Archive")) as server,
        on(server, data_dir, running=False) as account,
    ):
        server.create(FakeMailbox("Lists")).add(raw(1), raw(2))
        assert not (await account.sync.run_once()).errors
        server.fault(rb"LIST", altered(lambda answer: [line for line in answer if b"Lists" not in line]))
        report = await account.sync.run_once()
        assert not report.errors
        events = await told(account)
        assert (events["mailboxDeleted"], events["messageDeleted"]) == (0, 0)
        assert not (await account.sync.run_once()).errors
        assert len(await account.held("Lists")) == 2


async def test_a_narrower_choice_of_mailboxes_deletes_nothing(data_dir: Path) -> None:
    async with FakeImap(FakeMailbox(), FakeMailbox("Archive")) as server:
        async with on(server, data_dir, running=False) as account:
            server.inbox.add(raw(1))
            server.create(FakeMailbox("Lists")).add(raw(2))
            assert not (await account.sync.run_once()).errors
        async with on(server, data_dir, running=False, mailboxes=("inbox",)) as account:
            report = await account.sync.run_once()
            assert (report.mailboxes, report.expunged, report.errors) == (1, 0, [])
            events = await told(account)
            assert (events["mailboxDeleted"], events["messageDeleted"]) == (0, 0)
            assert len(await account.held("Lists")) == 1


async def test_brackets_in_a_choice_stand_for_themselves(data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("[Gmail]/All Mail"), FakeMailbox("G/x")) as server,
        on(server, data_dir, running=False, mailboxes=("[Gmail]/*",)) as account,
    ):
        report = await account.sync.run_once()
        assert (report.mailboxes, report.errors) == (1, [])


async def test_a_choice_that_matches_nothing_is_an_error(data_dir: Path) -> None:
    async with FakeImap() as server, on(server, data_dir, running=False, mailboxes=("Inbocks",)) as account:
        report = await account.sync.run_once()
        assert report.error is not None
        assert "Inbocks" in report.error.message


async def test_a_mailbox_that_is_closed_to_us_holds_up_nothing(data_dir: Path) -> None:
    private = FakeMailbox("Private")
    async with FakeImap(FakeMailbox(), private) as server, on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2))
        server.fault(rb'EXAMINE "?Private', refused("NO", "[NOPERM] not yours"), times=None)
        report = await account.sync.run_once()
        assert report.error is not None
        assert report.error.mailbox == "Private"
        assert (await told(account))["accountInitialized"] == 1
        server.inbox.expunge(1)
        await account.sync.run_once()
        assert (await told(account))["messageDeleted"] == 1
        # It opens up at last: what it holds was there before the account was added.
        server.heal()
        private.add(raw(3))
        assert not (await account.sync.run_once()).errors
        assert await account.scalar("select count(*) from event where event='messageNew' and historical") == 3


async def test_a_backlog_that_fails_keeps_the_first_sync_unfinished(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailmill.sync.account_pass.BACKLOG_MESSAGES", 10)
    limits = SyncLimits(chunk_messages=10, group_messages=5)
    archive = FakeMailbox("Archive")
    async with FakeImap(FakeMailbox(), archive) as server:
        archive.add(*(raw(number) for number in range(1, 41)))
        server.fault(rb'EXAMINE "?Archive', refused("NO", "[UNAVAILABLE] not now"), times=None)
        async with on(server, data_dir, limits=limits) as account:
            for _ in range(3):
                report = await account.sync.sync_now()
                assert report.error is None or report.error.mailbox == "Archive"
            assert await account.scalar("select initialized_at from account") is None
            server.heal()
            report = await account.sync.sync_now()
            assert not report.errors
            assert len(await account.held("Archive")) == 40
            assert await account.scalar("select count(*) from event where event='messageNew' and not historical") == 0


async def test_a_login_refused_to_a_backlog_stops_the_account(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailmill.sync.account_pass.BACKLOG_MESSAGES", 10)
    archive = FakeMailbox("Archive")
    async with FakeImap(FakeMailbox(), archive) as server, on(server, data_dir) as account:
        await account.once()
        server.fault(rb"AUTHENTICATE|LOGIN", refused("NO", "[AUTHENTICATIONFAILED] no"), times=None)
        archive.add(*(raw(number) for number in range(1, 41)))
        await account.sync.sync_now()
        rows = await account.wait_for(lambda rows: any(row.event == "authenticationError" for row in rows))
        assert Counter(row.event for row in rows)["authenticationError"] == 1
        assert account.sync.view().state is AccountState.AUTHENTICATION_ERROR
        for _ in range(3):
            assert (await account.sync.sync_now()).error is not None
        assert server.logins == 2


async def test_what_could_not_be_fetched_is_shown_with_its_reason(data_dir: Path) -> None:
    async with FakeImap() as server, on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2), raw(3))
        server.inbox.messages[2].withheld = True
        assert not (await account.sync.run_once()).errors
        async with account.database.read() as connection:
            [mailbox] = await list_mailboxes(connection, account.account_id)
            parked = await list_parked(connection, account.account_id)
        assert [(uid, "does not send it" in reason) for uid, reason, _ in parked[mailbox.id]] == [(2, True)]
        shown = views.mailbox(mailbox, 2, parked[mailbox.id])["parked"]
        assert [(each["uid"], each["retryAt"][-1]) for each in shown] == [(2, "Z")]
