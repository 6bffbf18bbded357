"""What asks for changes, without the API around it: a caller that goes away, a question that is asked twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from harness.fake_imap import FakeImap
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import account_on, check, raw
from harness.requesting import finished
from harness.syncing import SyncedAccount
from mailmill.app.changes import Changes
from mailmill.errors import ConflictError, InvalidRequestError
from mailmill.model import AccountState
from mailmill.store import requests

pytestmark = pytest.mark.both_databases

WAIT = 20.0


@asynccontextmanager
async def asking(server: FakeImap, data_dir: Path) -> AsyncIterator[tuple[SyncedAccount, Changes]]:
    """An account in sync with ``server``, and `Changes` as a service has them."""
    async with asyncio.timeout(60), account_on(server, data_dir) as account:
        await account.once()
        row = SimpleNamespace(id=account.account_id, name="work", tenant_id="default", state=AccountState.CONNECTED)
        application: Any = SimpleNamespace(
            database=account.database,
            blobs=account.blobs,
            clock=time.time,
            accounts={"work": SimpleNamespace(row=row, sync=account.sync, kept=True)},
        )
        yield account, Changes(application)


def mailboxes() -> FakeImap:
    server = FakeImap(FakeMailbox(), FakeMailbox("Archive", uid_validity=9), FakeMailbox("Trash", uid_validity=11))
    server.inbox.add(raw(1), raw(2))
    return server


async def test_what_is_committed_is_carried_out_though_nobody_waits(data_dir: Path) -> None:
    """A client that hangs up while its request is being written: the row is there, so it is done."""
    async with mailboxes() as server, asking(server, data_dir) as (account, changes):
        real = account.database.write

        @asynccontextmanager
        async def cut_after_commit(**options: Any) -> AsyncIterator[Any]:
            async with real(**options) as connection:
                yield connection
            raise asyncio.CancelledError

        with mock.patch.object(account.database, "write", cut_after_commit):
            asked = asyncio.create_task(changes.flags("work", 1, add=["seen"], wait_seconds=WAIT))
            await asyncio.wait([asked])
        assert asked.cancelled()
        async with account.database.read() as connection:
            [row] = await requests.list_requests(connection, account.account_id)
        assert str((await finished(account, row)).state) == "done"
        assert {flag for one in server.inbox.messages.values() for flag in one.flags} == {r"\Seen"}


async def test_a_key_answers_for_its_request_wherever_the_message_is_by_then(data_dir: Path) -> None:
    async with mailboxes() as server, asking(server, data_dir) as (account, changes):
        first, second = sorted((await account.message_ids()).values())
        deleted = [
            await changes.delete("work", first, path="INBOX", idempotency_key="a", wait_seconds=WAIT) for _ in range(2)
        ]
        assert [(each["state"], each["targetPath"]) for each in deleted] == [("done", "Trash")] * 2
        moved = [
            await changes.move("work", second, "Archive", path="INBOX", idempotency_key="b", wait_seconds=WAIT)
            for _ in range(2)
        ]
        removed = [
            await changes.delete("work", first, permanent=True, idempotency_key="c", wait_seconds=WAIT)
            for _ in range(2)
        ]
        for same in (deleted, moved, removed):
            assert same[0] == same[1]
        for target, key in (("Trash", "b"), ("Archive", "a")):
            with pytest.raises(ConflictError, match="Idempotency-Key"):
                await changes.move("work", second, target, idempotency_key=key, wait_seconds=WAIT)
        with pytest.raises(ConflictError, match="Idempotency-Key"):
            await changes.delete("work", first, permanent=True, idempotency_key="a", wait_seconds=WAIT)
        await account.once()
        await check(server, data_dir)


async def test_asking_twice_at_once_is_one_request(data_dir: Path) -> None:
    async with mailboxes() as server, asking(server, data_dir) as (account, changes):
        asked = [changes.append("work", "Archive", raw(7), idempotency_key="once", wait_seconds=WAIT) for _ in range(8)]
        answers = await asyncio.gather(*asked)
        assert len({answer["id"] for answer in answers}) == 1
        assert len(server.mailbox("Archive").messages) == 1
        await account.once()
        await check(server, data_dir)


async def test_a_key_of_blanks_and_one_too_long(data_dir: Path) -> None:
    async with mailboxes() as server, asking(server, data_dir) as (_account, changes):
        for key in ("", "x" * 201):
            with pytest.raises(InvalidRequestError, match="Idempotency-Key"):
                await changes.flags("work", 1, add=["seen"], idempotency_key=key, wait_seconds=WAIT)
