"""A store that is in use, with what keeps it: for the tests of backups and checks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pydantic import SecretStr
from store_mail import Store, arrival, new_store, open_database

from mailmill.app.maintenance import Maintenance
from mailmill.model import Backlog
from mailmill.settings import Settings
from mailmill.settings.models import ServiceSettings
from mailmill.store import messages
from mailmill.store.blob_marker import prove_place
from mailmill.store.blobs import BlobStore
from mailmill.store.messages import Arrival, StoredContent, WorkPlan

NO_WORK = WorkPlan((), Backlog.PROCESS)


@dataclass(slots=True)
class Opened:
    """A store that is in use."""

    settings: Settings
    store: Store
    blobs: BlobStore
    maintenance: Maintenance

    async def put(self, *contents: str, first_uid: int = 1) -> None:
        refs = await self.blobs.put_batch([content.encode() for content in contents])
        arrivals: list[Arrival] = [
            replace(arrival(uid, content), content=StoredContent(ref, subject=content))
            for uid, (content, ref) in enumerate(zip(contents, refs, strict=True), first_uid)
        ]
        await self.store.apply(arrivals, work=NO_WORK)

    async def raw(self, message_id: int) -> bytes:
        async with self.store.database.read() as connection:
            return await self.blobs.get((await messages.get_message(connection, message_id)).blob)

    async def segments(self) -> list[Path]:
        folder = self.blobs.segments_folder
        assert folder is not None
        return await asyncio.to_thread(lambda: sorted(folder.glob("*/*.seg")))


def settings_of(data_dir: Path, url: str = "") -> Settings:
    url = url or f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}"
    return Settings(service=ServiceSettings(data_dir=data_dir, database_url=SecretStr(url)))


@asynccontextmanager
async def opened(settings: Settings, *, new: bool = True) -> AsyncIterator[Opened]:
    data_dir = settings.service.data_dir
    async with open_database(data_dir, settings.service.database_url.get_secret_value()) as database:
        blobs = BlobStore(data_dir / "blobs", proof=partial(prove_place, database))
        application: Any = SimpleNamespace(settings=settings, database=database, blobs=blobs)
        store = await new_store(database) if new else Store(database, cast("Any", None))
        try:
            yield Opened(settings, store, blobs, Maintenance(application))
        finally:
            await blobs.close()


def quiet(_phase: str, _done: int, _total: int) -> None:
    return
