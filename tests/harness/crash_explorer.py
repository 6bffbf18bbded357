"""Every crash that a scenario can meet: the scenario is played again and again, and dies at the n-th commit point, for
every n.

::

    SCENARIO = [lambda server: server.inbox.expunge(1), lambda server: server.rename("A", "B")]
    await make_template(template, made)
    await explore(SCENARIO, made, template, folder)

A commit point is a moment at which something of what is stored has just been made durable, or is about to be: before
and after each COMMIT, before and after raw messages are synced. What happens between two of them leaves no trace, so
these are all the crashes there are. The dead "process" writes nothing more; what it remembered is gone with it; the
server goes on without it (the scenario's next step comes while it is dead). ``tests/chaos`` does the same with real
processes and ``kill -9``, at the points that it names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from harness import stores, truth
from harness.fake_imap import FakeImap
from harness.syncing import SyncedAccount, synced_account
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.owned_database import OwnedDatabase
from mailmill.store.sqlite_database import SqliteDatabase
from mailmill.sync.context import SyncLimits

Step = Callable[[FakeImap], object]

# Small steps, so that there are many commit points.
LIMITS = SyncLimits(chunk_messages=4, group_messages=2, change_messages=2, flag_sweep_seconds=0)


class Crash(BaseException):
    """The end of the process, as far as all of mailmill is concerned: nothing catches it, nothing is written after."""


class Mortal:
    """Counts commit points, and dies at the one numbered ``at``, for good. ``points`` are those that were come to."""

    def __init__(self, at: int) -> None:
        self.points: list[str] = []
        self.dead = False
        self._at = at

    def came_to(self, point: str) -> None:
        if not self.dead:
            self.points.append(point)
            self.dead = len(self.points) == self._at
        if self.dead:
            raise Crash(point)

    @contextmanager
    def living(self) -> Iterator[None]:
        """All writes of the account in the block go past this."""
        put_batch = BlobStore.put_batch
        mortal = self

        def mortal_write(write: Callable[..., AbstractAsyncContextManager[Any]]) -> Callable[..., Any]:
            @asynccontextmanager
            async def until_death(self: Database, **options: Any) -> AsyncIterator[Any]:
                async with write(self, **options) as connection:
                    yield connection
                    mortal.came_to("uncommitted")
                mortal.came_to("committed")

            return until_death

        async def mortal_put_batch(self: BlobStore, contents: Any) -> Any:
            mortal.came_to("blobs unwritten")
            refs = await put_batch(self, contents)
            mortal.came_to("blobs synced")
            return refs

        with (
            mock.patch.object(SqliteDatabase, "write", mortal_write(SqliteDatabase.write)),
            # On PostgreSQL what is written through another door is not the account's, and comes when it will.
            mock.patch.object(OwnedDatabase, "write", mortal_write(OwnedDatabase.write)),
            mock.patch.object(BlobStore, "put_batch", mortal_put_batch),
        ):
            yield


async def make_template(folder: Path, made: Callable[[], FakeImap] | None = None) -> None:
    """A store to be copied for each life: empty, or in sync with the server that ``made`` makes."""
    if made is None:
        database = await stores.open_database(folder)
        await database.close()
        return
    async with made() as server, _process(server, folder) as account:
        await _pass(account)
        await asyncio.to_thread(truth.check, folder, server.truth())


async def explore(steps: Sequence[Step], made: Callable[[], FakeImap], template: Path, folder: Path) -> int:
    """Play ``steps`` on servers that ``made`` makes, a full pass after each, once for every crash there is. After each
    the store must equal the server. Returns how many crashes there were.
    """
    crashes = 0
    while True:
        data_dir = folder / f"life{crashes + 1}"
        await asyncio.to_thread(stores.copy, template, data_dir)
        mortal = Mortal(crashes + 1)
        async with made() as server:
            history = {raw for held in server.truth().values() for _, raw in held.values()}
            rest = await _live(steps, server, data_dir, mortal)
            try:
                if mortal.dead:
                    await _recover(rest, server, data_dir)
                await asyncio.to_thread(_check, data_dir, server, history)
            except BaseException as error:
                where = mortal.points[-1] if mortal.dead else "nowhere"
                error.add_note(f"after a crash at commit point {crashes + 1} ({where}), {len(rest)} steps left")
                raise
        await asyncio.to_thread(stores.remove, data_dir)
        if not mortal.dead:
            return crashes
        crashes += 1


async def _live(steps: Sequence[Step], server: FakeImap, data_dir: Path, mortal: Mortal) -> Sequence[Step]:
    """Until the scenario or the process ends; returns the steps that are left."""
    with mortal.living():
        left = list(steps)
        try:
            async with _process(server, data_dir) as account:
                while left:
                    left.pop(0)(server)
                    await _pass(account)
                await _pass(account)
        except BaseException as error:
            if not is_crash(error):
                raise
        return left


async def _recover(steps: Sequence[Step], server: FakeImap, data_dir: Path) -> None:
    async with _process(server, data_dir) as account:
        for step in steps:
            step(server)
            await _pass(account)
        await _pass(account)
        await _pass(account)


def _process(server: FakeImap, data_dir: Path) -> AbstractAsyncContextManager[SyncedAccount]:
    return synced_account(data_dir, server.endpoint(), server.credentials(), running=False, limits=LIMITS)


async def _pass(account: SyncedAccount) -> None:
    """As ``mailmill sync`` does it: connect, one pass or two, log out."""
    report = await account.sync.run_once()
    assert not report.errors, report.errors


def is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(is_crash(each) for each in error.exceptions)
    return isinstance(error, Crash)


def _check(data_dir: Path, server: FakeImap, history: set[bytes]) -> None:
    truth.check(data_dir, server.truth())
    with truth.opened(data_dir) as database:
        rows = database.execute(
            "SELECT segment, offset_bytes, blob.size_bytes, historical FROM message JOIN blob USING (sha256)"
        ).fetchall()
        for segment, offset, size, historical in rows:
            with (data_dir / "blobs" / "segments" / segment).open("rb") as file:
                file.seek(offset)
                assert historical or file.read(size) not in history, "old mail was told as new"
        parked = database.execute("SELECT count(*) FROM parked").fetchone()[0]
        assert parked == 0, "something is parked that could be had"
        orphans = database.execute(
            "SELECT count(*) FROM message WHERE deleted_at IS NULL AND NOT EXISTS "
            "(SELECT 1 FROM place WHERE message_id = message.id AND expunged_at IS NULL)"
        ).fetchone()[0]
        assert orphans == 0, "a message that is nowhere is not deleted"
