"""Traps in what a message is: it keeps its id wherever it goes, and goes by no other's. Named in docs/sync-traps.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.fake_imap import CONDSTORE, PLAIN, QRESYNC, Answer, Client, FakeImap
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import account_on, check, on_every_tier, one_pass, raw
from harness.syncing import SyncedAccount
from mailmill.sync.context import SyncLimits
from servers.scripted import Command

pytestmark = pytest.mark.both_databases

# With EMAILID a message is known again without a download, without it by the hash of its bytes.
identities = pytest.mark.parametrize(
    "capabilities",
    [QRESYNC, QRESYNC + " OBJECTID", CONDSTORE, CONDSTORE + " OBJECTID", PLAIN, PLAIN + " OBJECTID"],
    ids=["qresync", "qresync-emailid", "condstore", "condstore-emailid", "plain", "plain-emailid"],
)


async def told(account: SyncedAccount) -> Counter[str]:
    return Counter(row.event for row in await account.events())


async def where(account: SyncedAccount, *paths: str) -> dict[str, list[int]]:
    return {path: list((await account.message_ids(path)).values()) for path in paths}


@identities
async def test_a_message_moved_twice_between_two_passes_keeps_its_id(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("B"), FakeMailbox("C"), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        b, c = server.create(FakeMailbox("B")), server.create(FakeMailbox("C"))
        server.inbox.add(raw(1), raw(2))
        c.add(raw(3))
        await one_pass(account)
        ids = await account.message_ids()
        server.inbox.move(1, b)
        b.move(1, c)
        report = await one_pass(account)
        assert report.new == 0
        await one_pass(account)
        assert (await where(account, "B", "C"))["C"][1] == ids[1]
        await check(server, data_dir)
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"]) == (3, 0)
        if "OBJECTID" in capabilities:
            assert server.count(rb"UID FETCH .*BODY") == 2


@identities
async def test_a_message_moved_away_and_back_keeps_its_id(capabilities: str, data_dir: Path) -> None:
    async with (
        FakeImap(FakeMailbox(), FakeMailbox("B"), capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        b = server.create(FakeMailbox("B"))
        server.inbox.add(raw(1), raw(2), raw(3))
        await one_pass(account)
        ids = await account.message_ids()
        b.move(server.inbox.move(2, b), server.inbox)
        await one_pass(account)
        await one_pass(account)
        assert await account.message_ids() == {1: ids[1], 3: ids[3], 4: ids[2]}
        await check(server, data_dir)
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"]) == (3, 0)


@identities
async def test_a_message_moved_twice_around_the_mailboxes_being_read_is_not_deleted(
    capabilities: str, data_dir: Path
) -> None:
    """A pass reads one mailbox after the other. Twice in a row the message goes where the pass has just been."""
    a, z = FakeMailbox("A"), FakeMailbox("Z")
    async with (
        FakeImap(FakeMailbox(), a, z, capabilities=capabilities) as server,
        account_on(server, data_dir, running=False) as account,
    ):
        z.add(raw(1), raw(2))
        await one_pass(account)
        [wanted, _] = (await where(account, "Z"))["Z"]
        at = 1

        def to_a() -> None:
            nonlocal at
            at = z.move(at, a)

        def to_z() -> None:
            nonlocal at
            at = a.move(at, z)

        def when_reading(path: bytes, action: object) -> None:
            async def act(client: Client, _command: Command, _answer: Answer) -> None:
                assert callable(action)
                action()
                await client.send(client.server._answer(client, _command))

            server.fault(rb'EXAMINE "?' + path, act, applied=False)

        # Both passes have reason to read both mailboxes, and the message is where they have just been.
        a.add(raw(3))
        z.set_flags(2, "one")
        when_reading(b"Z", to_a)
        first = account.sync._complete_pass
        passes = 0

        async def counted(*arguments: object) -> bool:
            nonlocal passes
            passes += 1
            if passes == 2:
                to_z()
                a.add(raw(4))
                z.set_flags(2, "two")
                when_reading(b"Z", to_a)
            return await first(*arguments)  # type: ignore[arg-type]

        account.sync._complete_pass = counted  # type: ignore[method-assign]
        await account.sync.run_once()
        assert passes == 2
        assert (await told(account))["messageDeleted"] == 0
        await one_pass(account)
        await check(server, data_dir)
        assert wanted in (await where(account, "A"))["A"]


@on_every_tier
async def test_a_message_moved_while_its_targets_backlog_runs_keeps_its_id(
    capabilities: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailmill.sync.account_pass.BACKLOG_MESSAGES", 10)
    archive = FakeMailbox("Archive")
    limits = SyncLimits(chunk_messages=8, group_messages=4)
    async with FakeImap(FakeMailbox(), archive, capabilities=capabilities) as server:
        server.inbox.add(raw(1), raw(2))
        async with account_on(server, data_dir, limits=limits) as account:
            await account.once()
            ids = await account.message_ids()
            archive.add(*(raw(number) for number in range(100, 140)))
            moved = False

            async def move(client: Client, _command: Command, answer: Answer) -> None:
                nonlocal moved
                if client.selected is archive and not moved:
                    moved = True
                    server.inbox.move(1, archive)
                await client.send(answer)

            server.fault(rb"UID FETCH .*BODY", move, times=None)
            await account.sync.sync_now()
            for _ in range(2):
                await account.once()
            await check(server, data_dir)
            assert ids[1] in (await where(account, "Archive"))["Archive"]
            events = await told(account)
            assert (events["messageNew"], events["messageDeleted"]) == (42, 0)


@identities
async def test_the_same_raw_mail_twice_in_one_mailbox(capabilities: str, data_dir: Path) -> None:
    """One message in two places, one messageNew; it is deleted when the last place is gone. Together, or one later."""
    async with FakeImap(capabilities=capabilities) as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2), raw(1))
        await one_pass(account)
        server.inbox.add(raw(1))
        await one_pass(account)
        ids = await account.message_ids()
        assert ids[1] == ids[3] == ids[4] != ids[2]
        server.inbox.expunge(1, 4)
        await one_pass(account)
        await check(server, data_dir)
        assert (await told(account))["messageDeleted"] == 0
        server.inbox.expunge(3)
        await one_pass(account)
        await check(server, data_dir)
        events = await told(account)
        assert (events["messageNew"], events["messageDeleted"]) == (2, 1)


@pytest.mark.parametrize("capabilities", [QRESYNC + " OBJECTID", PLAIN + " OBJECTID"], ids=["qresync", "plain"])
async def test_an_email_id_that_stands_for_two_contents_hides_neither(capabilities: str, data_dir: Path) -> None:
    """Against RFC 8474 §5.1. Where even the size differs, the bytes are fetched and decide."""
    async with FakeImap(capabilities=capabilities) as server, account_on(server, data_dir, running=False) as account:
        server.inbox.add(raw(1), raw(2, "longer than the other"))
        for message in server.inbox.messages.values():
            message.email_id = "M1"
        await one_pass(account)
        server.inbox.add(raw(3, "and this is longer than both of the others"))
        server.inbox.messages[3].email_id = "M1"
        await one_pass(account)
        await check(server, data_dir)
        assert len(set((await account.message_ids()).values())) == 3
