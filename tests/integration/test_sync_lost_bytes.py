"""Mail whose stored bytes were lost, and that a server sends again: it can be read again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.fake_imap import FakeImap
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import account_on, raw
from harness.stores import collected
from mailmill.store import message_counts

pytestmark = pytest.mark.both_databases


async def test_copies_elsewhere_mend_what_was_lost(data_dir: Path) -> None:
    segments = data_dir / "blobs" / "segments"
    async with FakeImap() as server:
        server.inbox.add(raw(1), raw(2), raw(3))
        async with account_on(server, data_dir) as account:
            await account.once()
            for segment in await asyncio.to_thread(lambda: list(segments.glob("*/*.seg"))):
                await asyncio.to_thread(segment.unlink)
            server.create(FakeMailbox("Archive")).add(raw(1), raw(3), raw(4))
            await account.once()
            # What nobody names goes, however young.
            async with account.database.read() as connection:
                named = await message_counts.referenced_segments(connection)
            await collected(account.blobs, named, -1e9)
            assert await account.contents("Archive") == {1: raw(1), 2: raw(3), 3: raw(4)}
            assert len(await account.message_ids()) == 3
