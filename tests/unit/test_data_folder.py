"""The lock of the data folder: who finds it held waits for a while, and can be told not to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from mailmill.errors import StoreInUseError
from mailmill.store import data_folder
from mailmill.store.data_folder import FolderLock, lock_files


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [tmp_path / "lock", tmp_path / "mail.db.lock"]


@pytest.fixture
async def refused(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when somebody found the folder held."""
    seen, loop = asyncio.Event(), asyncio.get_running_loop()

    def take(paths: Sequence[Path]) -> FolderLock:
        try:
            return FolderLock(paths)
        except StoreInUseError:
            loop.call_soon_threadsafe(seen.set)
            raise

    monkeypatch.setattr(data_folder, "FolderLock", take)
    return seen


async def test_who_holds_it_for_a_moment_is_waited_for(paths: list[Path], refused: asyncio.Event) -> None:
    held = await asyncio.to_thread(FolderLock, paths[1:])
    waiting = asyncio.create_task(lock_files(paths, wait_seconds=60))
    await refused.wait()
    assert not waiting.done()
    held.release()
    async with asyncio.timeout(30):
        taken = await waiting
    with pytest.raises(StoreInUseError):
        await asyncio.to_thread(FolderLock, paths[:1])
    taken.release()


async def test_the_wait_has_an_end_and_holds_nothing_after_it(paths: list[Path]) -> None:
    held = await asyncio.to_thread(FolderLock, paths[1:])
    async with asyncio.timeout(30):
        with pytest.raises(StoreInUseError, match="using the data folder") as told:
            await lock_files(paths, wait_seconds=0.01)
    assert str(paths[0].parent) in told.value.message
    (await asyncio.to_thread(FolderLock, paths[:1])).release()
    held.release()


async def test_who_waits_can_be_cancelled(
    paths: list[Path], refused: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_folder, "_LOCK_POLL_SECONDS", 600.0)
    held = await asyncio.to_thread(FolderLock, paths[1:])
    waiting = asyncio.create_task(lock_files(paths, wait_seconds=600))
    await refused.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(30):
            await waiting
    held.release()
    (await asyncio.to_thread(FolderLock, paths)).release()
