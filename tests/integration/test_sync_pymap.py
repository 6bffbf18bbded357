"""An account on pymap: a server of another make without mod-sequences, so every change is found the plain way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness import truth
from harness.other_client import OtherClient
from harness.syncing import SyncedAccount, synced_account
from mailmill.model import AccountState
from mailmill.sync.context import SyncLimits
from servers.pymap import Pymap


@pytest.fixture
def own_pymap() -> Iterator[Pymap]:
    """Its demo mail is this test's own to change."""
    with Pymap() as server:
        yield server


def raw(number: int) -> bytes:
    return f"Subject: number {number}\r\nMessage-ID: <{number}@example.org>\r\n\r\n{number}\r\n".encode()


def other_client(server: Pymap) -> OtherClient:
    credentials = server.credentials()
    return OtherClient(server.host, server.port, credentials.username, credentials.password)


@asynccontextmanager
async def account_on(server: Pymap, data_dir: Path, **options: object) -> AsyncIterator[SyncedAccount]:
    async with synced_account(data_dir, server.endpoint(), server.credentials(), **options) as account:  # type: ignore[arg-type]
        yield account


async def check(other: OtherClient, data_dir: Path) -> None:
    await asyncio.to_thread(truth.check, data_dir, await other.truth())


async def test_a_first_sync_holds_all_that_the_server_has(pymap: Pymap, data_dir: Path) -> None:
    async with (
        other_client(pymap) as other,
        account_on(pymap, data_dir, limits=SyncLimits(chunk_messages=3, group_messages=1)) as account,
    ):
        report = await account.once()
        assert report.new > 0
        await check(other, data_dir)
        again = await account.once()
        assert (again.new, again.updated, again.expunged) == (0, 0, 0)
        assert account.sync.view().state is AccountState.CONNECTED
        features = account.connections[0].features
        assert not (features.qresync or features.condstore)


async def test_what_another_client_does_is_in_the_store_after_a_pass(own_pymap: Pymap, data_dir: Path) -> None:
    async with other_client(own_pymap) as other, account_on(own_pymap, data_dir) as account:
        await other.create("Projects")
        await other.append("INBOX", *(raw(number) for number in range(1, 7)))
        await account.once()
        await check(other, data_dir)
        uids = sorted(await account.message_ids())[-6:]
        ids = await account.message_ids()

        await other.append("INBOX", raw(100), flags=[r"\Flagged"])
        await account.once()
        await check(other, data_dir)

        await other.set_flags("INBOX", f"{uids[0]},{uids[2]}", r"\Seen", r"\Answered")
        await other.set_flags("INBOX", str(uids[1]), r"\Seen", action="-FLAGS")
        await account.once()
        await check(other, data_dir)

        await other.copy("INBOX", str(uids[3]), "Projects")
        await other.move("INBOX", str(uids[4]), "Projects")
        await account.once()
        await check(other, data_dir)
        assert set((await account.message_ids("Projects")).values()) == {ids[uids[3]], ids[uids[4]]}

        await other.expunge("INBOX", str(uids[5]))
        await account.once()
        rows = await account.wait_for(lambda rows: any(row.event == "messageDeleted" for row in rows))
        await check(other, data_dir)
        assert [row.message_id for row in rows if row.event == "messageDeleted"] == [ids[uids[5]]]
        assert all(row.data != {} for row in rows if row.event == "messageUpdated")

        # As many come as go: the count alone tells nothing.
        await other.expunge("INBOX", str(uids[0]))
        await other.append("INBOX", raw(101))
        await account.once()
        await check(other, data_dir)

        await other.delete("Projects")
        await account.once()
        rows = await account.wait_for(lambda rows: sum(row.event == "messageDeleted" for row in rows) >= 3)
        await check(other, data_dir)
        assert Counter(row.event for row in rows)["mailboxDeleted"] == 1


async def test_changes_are_seen_without_asking(own_pymap: Pymap, data_dir: Path) -> None:
    """pymap never tells what changed between the last command and its IDLE: the poll is what guarantees."""
    async with (
        other_client(own_pymap) as other,
        account_on(own_pymap, data_dir, poll_interval_seconds=1) as account,
    ):
        await account.once()
        before = Counter(row.event for row in await account.events())["messageNew"]
        for number in range(3):
            await other.append("INBOX", raw(number))
            await account.wait_for(
                lambda rows, wanted=before + number + 1: sum(row.event == "messageNew" for row in rows) >= wanted
            )
        newest = max(await account.message_ids())
        await other.set_flags("INBOX", str(newest), r"\Flagged")
        await account.wait_for(lambda rows: any(row.event == "messageUpdated" for row in rows))
        await other.expunge("INBOX", str(newest))
        await account.wait_for(lambda rows: any(row.event == "messageDeleted" for row in rows))
        await check(other, data_dir)
        assert account.sync.view().push == "idle"
        assert len(account.connections) == 1


async def test_a_server_that_comes_back_with_other_mail(own_pymap: Pymap, data_dir: Path) -> None:
    """pymap keeps its mail in memory: a restart is another generation of everything."""
    async with account_on(own_pymap, data_dir, running=False) as account:
        assert not (await account.sync.run_once()).errors
        messages = await account.scalar("select count(*) from message")
        await asyncio.to_thread(own_pymap.stop)
        report = await account.sync.run_once()
        assert report.error is not None
        assert report.error.code == "connect"
        await asyncio.to_thread(own_pymap.start)
        assert not (await account.sync.run_once()).errors
        async with other_client(own_pymap) as other:
            await check(other, data_dir)
        assert await account.scalar("select count(*) from message") == messages
