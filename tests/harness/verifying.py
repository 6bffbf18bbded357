"""Verifying the account of `synced_account`, and breaking its store behind its back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness import stores
from harness.syncing import SyncedAccount
from mailmill.imap.connection import ConnectionSettings, ImapConnection
from mailmill.model import Credentials, Endpoint
from mailmill.sync.verify import VerifyOptions, VerifyReport, verify_account
from mailmill.sync.verify_compare import Gap, GapKind, Sampling
from mailmill.sync.verify_doors import OwnDoors, RunningDoors
from mailmill.uid_set import UidSet

FULL = Sampling(full=True)


@dataclass(slots=True)
class Verifier:
    """Verifies ``account``; ``running`` says whether its task runs."""

    account: SyncedAccount
    endpoint: Endpoint
    credentials: Credentials
    data_dir: Path
    running: bool = True
    pool_size: int = 3

    async def connect(self) -> ImapConnection:
        made = await ImapConnection.open(self.endpoint, ConnectionSettings(spool_dir=self.data_dir))
        await made.authenticate(self.credentials)
        return made

    async def __call__(
        self, *, repair: bool = False, sampling: Sampling = FULL, page_messages: int = 5000
    ) -> VerifyReport:
        """A report that met no error."""
        doors = (
            RunningDoors(self.account.sync, self.connect, pool_size=self.pool_size)
            if self.running
            else OwnDoors(self.account.sync, self.connect)
        )
        report = await verify_account(
            self.account.database,
            self.account.blobs,
            account="work",
            account_id=self.account.account_id,
            globs=("*",),
            doors=doors,
            options=VerifyOptions(sampling=sampling, repair=repair, page_messages=page_messages),
        )
        assert report.error is None, report.error
        return report


def named(gaps: Iterable[Gap]) -> dict[tuple[GapKind, str], str]:
    """(kind, mailbox) → UIDs, in IMAP's notation."""
    found: dict[tuple[GapKind, str], UidSet] = {}
    for gap in gaps:
        found[(gap.kind, gap.path)] = found.get((gap.kind, gap.path), UidSet()) | gap.uids
    return {which: str(uids) for which, uids in found.items()}


async def break_store(data_dir: Path, *statements: str) -> None:
    """Change the database by SQL, as nothing of ours would; the running service's own memory knows nothing of it."""

    await asyncio.to_thread(stores.change, data_dir, *statements)


async def segments(data_dir: Path) -> list[Path]:
    return await asyncio.to_thread(lambda: sorted((data_dir / "blobs" / "segments").glob("*/*.seg")))
