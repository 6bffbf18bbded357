"""Steps that the tests on all real servers share: mail, an account in sync, and the comparison every test ends in."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from harness import truth
from harness.other_client import OtherClient
from harness.syncing import SyncedAccount, synced_account
from servers.mail_server import MailServer


def raw(number: int, body: str = "") -> bytes:
    return (
        f"From: Ann <ann{number}@example.org>\r\nTo: me@example.org\r\nSubject: number {number}\r\n"
        f"Message-ID: <{number}@example.org>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\r\n{body or number}\r\n"
    ).encode()


@asynccontextmanager
async def account_on(server: MailServer, user: str, data_dir: Path, **options: Any) -> AsyncIterator[SyncedAccount]:
    """``options`` are those of `synced_account`."""
    async with synced_account(data_dir, server.endpoint(), server.credentials(user), **options) as account:
        yield account


async def check(server: MailServer, user: str, data_dir: Path) -> None:
    """The store equals the server, each message has one id and one messageNew (`truth.check`)."""
    credentials = server.credentials(user)
    async with OtherClient(server.host, server.port, credentials.username, credentials.password) as other:
        held = await other.truth()
    await asyncio.to_thread(truth.check, data_dir, held)


async def told(account: SyncedAccount) -> Counter[str]:
    """How often each event is in the log."""
    return Counter(row.event for row in await account.events())


async def told_of(account: SyncedAccount, event: str) -> list[int | None]:
    """The messages of all events of one kind, in order."""
    return [row.message_id for row in await account.events() if row.event == event]
