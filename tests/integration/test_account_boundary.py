"""What an account meets stays in it: its task goes on, and whoever asked for a pass gets an answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest import mock

import pytest
from sqlalchemy import text

from harness.fake_imap import FakeImap
from harness.on_fake_imap import account_on, check, raw
from harness.syncing import SyncedAccount
from mailmill.errors import StoreError
from mailmill.sync.account_pass import AccountPass

pytestmark = pytest.mark.both_databases


async def until_whole(account: SyncedAccount) -> None:
    while (await account.sync.sync_now()).errors:
        await asyncio.sleep(0)


async def test_an_account_outlives_its_own_error_handling(data_dir: Path) -> None:
    """A bug in a pass, and a log that cannot be written: the boundary's own work fails too."""
    async with asyncio.timeout(30), FakeImap() as server, account_on(server, data_dir) as account:
        await account.once()
        server.inbox.add(raw(1))
        broken_log = mock.Mock(**{"error.side_effect": OSError("no space left on device")})
        with (
            mock.patch.object(AccountPass, "all_mailboxes", side_effect=RuntimeError("a bug")),
            mock.patch.object(account.sync, "_log", broken_log),
        ):
            report = await account.sync.sync_now()
        assert [error.code for error in report.errors] == ["error"]
        assert broken_log.error.called
        await until_whole(account)
        await check(server, data_dir)


@pytest.mark.parametrize("step", ["confirm_deleted", "complete"])
async def test_whoever_waits_is_answered_when_the_end_of_a_pass_fails(step: str, data_dir: Path) -> None:
    async with asyncio.timeout(30), FakeImap() as server, account_on(server, data_dir) as account:
        await account.once()
        with mock.patch.object(AccountPass, step, side_effect=StoreError("the disk is gone")):
            report = await account.sync.sync_now()
        assert [error.message for error in report.errors] == ["the disk is gone"]
        await until_whole(account)


async def test_whoever_waits_is_answered_when_the_account_is_stopped(data_dir: Path) -> None:
    began = asyncio.Event()

    async def for_ever(*_arguments: object, **_options: object) -> None:
        began.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(30), FakeImap() as server, account_on(server, data_dir, running=False) as account:
        with mock.patch.object(AccountPass, "all_mailboxes", for_ever):
            running = asyncio.create_task(account.sync.run())
            await began.wait()
            asked = asyncio.create_task(account.sync.sync_now())
            await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait([running])
        assert running.cancelled()
        for report in (await asked, await account.sync.sync_now()):
            assert [error.code for error in report.errors] == ["connectionLost"]


async def test_a_cursor_that_cannot_be_read_is_made_anew(data_dir: Path) -> None:
    async with asyncio.timeout(30), FakeImap() as server:
        server.inbox.add(raw(1), raw(2), raw(3))
        async with account_on(server, data_dir) as account:
            await account.once()
            async with account.database.write() as writer:
                await writer.execute(text("DELETE FROM place WHERE uid = 2"))
                await writer.execute(text("UPDATE mailbox SET uncovered = 'nonsense'"))
        async with account_on(server, data_dir) as account:
            await account.once()
            assert set(await account.held()) == {1, 2, 3}
            await check(server, data_dir)
