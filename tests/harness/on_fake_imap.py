"""Steps that the tests of faults share: an account on `FakeImap`, a pass, and the comparison every test ends in."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from harness import truth
from harness.fake_imap import TIERS, FakeImap
from harness.syncing import SyncedAccount, synced_account
from mailmill.sync.report import PassReport

# Which commands a fault is for.
BODIES = rb"UID FETCH .*BODY"
METADATA = rb"UID FETCH .*RFC822.SIZE"
CHANGES = rb"UID FETCH .*CHANGEDSINCE"

on_every_tier = pytest.mark.parametrize("capabilities", list(TIERS.values()), ids=list(TIERS))


def raw(number: int, text: str = "") -> bytes:
    return f"Subject: {number}\r\n\r\n{text or number}\r\n".encode()


@asynccontextmanager
async def account_on(server: FakeImap, data_dir: Path, **options: Any) -> AsyncIterator[SyncedAccount]:
    """In sync with ``server``, and tried again at once after an error: how long to wait is tested where it is decided
    (``test_sync_failures``). ``options`` are those of `synced_account`.
    """
    with mock.patch("mailmill.sync.account_sync.delay_seconds", lambda *_arguments, **_options: 0):
        async with synced_account(data_dir, server.endpoint(), server.credentials(), **options) as account:
            yield account


async def check(server: FakeImap, data_dir: Path) -> None:
    """The store equals the server, each message has one id and one messageNew (`truth.check`)."""
    await asyncio.to_thread(truth.check, data_dir, server.truth())


async def one_pass(account: SyncedAccount) -> PassReport:
    """Connect, one pass, log out, as ``mailmill sync`` does."""
    report = await account.sync.run_once()
    assert not report.errors, report.errors
    return report


async def passes_until_whole(account: SyncedAccount, most: int = 6) -> int:
    """How many passes met an error before one did not."""
    for failed in range(most):
        if not (await account.sync.run_once()).errors:
            return failed
    raise AssertionError(f"{most} passes were not enough")


async def parked(account: SyncedAccount) -> str:
    """The UIDs that are parked, as text."""
    return ",".join(map(str, await account.column("select uid from parked order by uid")))


def let_time_pass(account: SyncedAccount, seconds: float = 2 * 24 * 3600.0) -> None:
    """By the account's clock; all that is parked is due again."""
    context = account.sync._context
    before = context.clock
    object.__setattr__(context, "clock", lambda: before() + seconds)


def arrived(count: int) -> Callable[[Any], bool]:
    """For `SyncedAccount.wait_for`: so many messages are new."""
    return lambda rows: Counter(row.event for row in rows)["messageNew"] >= count
