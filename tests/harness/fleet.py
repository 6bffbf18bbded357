"""Nodes of a fleet within one test: each with its own door to one PostgreSQL, and shards in place of accounts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from mailmill.app.ownership import Ownership, OwnershipSettings
from mailmill.store.accounts import SHARDS
from mailmill.store.database import Database
from mailmill.store.leases import Node
from mailmill.store.owned_database import Lease, OwnedDatabase

PATIENCE_SECONDS = 60.0


class Watched:
    """Something that others wait for to change."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await self._changed.wait()


@dataclass
class KeptShards:
    """Stands for the accounts: which shards are kept, and every start and stop of all nodes in ``history``."""

    name: str
    watched: Watched
    history: list[tuple[str, str, int]]
    leases: dict[int, Lease] = field(default_factory=dict)

    async def start(self, lease: Lease) -> None:
        if lease.holds:
            self.leases[lease.shard] = lease
            self.history.append((self.name, "start", lease.shard))
            self.watched.changed()

    async def review(self, leases: Collection[Lease]) -> None:
        """There are no accounts."""

    async def stop(self, shards: Collection[int]) -> None:
        for shard in shards:
            if self.leases.pop(shard, None) is not None:
                self.history.append((self.name, "stop", shard))
        self.watched.changed()


@dataclass
class FleetNode:
    """A node that runs until it leaves, or dies without a word."""

    name: str
    database: Database
    kept: KeptShards
    ownership: Ownership
    stop: asyncio.Event
    task: asyncio.Task[None]

    @property
    def shards(self) -> set[int]:
        return set(self.kept.leases)

    async def leave(self) -> None:
        self.stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.task

    async def die(self) -> None:
        """As after SIGKILL: it gives nothing back, and its shards are kept by nobody."""
        self.task.cancel()
        await asyncio.wait([self.task])

    def owned(self, shard: int) -> OwnedDatabase:
        return OwnedDatabase(self.database, self.kept.leases[shard])


class TestFleet:
    """The nodes of one test, by name."""

    __test__ = False

    def __init__(self, url: str, folder: Path, settings: OwnershipSettings) -> None:
        self.watched = Watched()
        self.history: list[tuple[str, str, int]] = []
        self.nodes: dict[str, FleetNode] = {}
        self._url = url
        self._folder = folder
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()

    async def join(
        self, name: str, *, roles: tuple[str, ...] = ("sync",), settings: OwnershipSettings | None = None
    ) -> FleetNode:
        database = await Database.open(self._url, data_dir=self._folder / name)
        self._stack.push_async_callback(database.close)
        kept = KeptShards(name, self.watched, self.history)
        ownership = Ownership(database, Node(name, "host", roles, "1"), kept, settings or self._settings)
        stop = asyncio.Event()
        node = FleetNode(name, database, kept, ownership, stop, asyncio.create_task(ownership.run(stop)))
        self._stack.push_async_callback(node.die)
        self.nodes[name] = node
        return node

    async def until_spread(self, *names: str) -> None:
        """Until each shard is kept by one of the nodes ``names``, and fairly."""

        def spread() -> bool:
            parts = [self.nodes[name].shards for name in names]
            sizes = [len(part) for part in parts]
            return sum(sizes) == SHARDS == len(set().union(*parts)) and max(sizes) - min(sizes) <= 1

        await self.watched.until(spread)

    async def close(self) -> None:
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def fleet(
    url: str, folder: Path, *, lease_seconds: float = 30.0, give_pause_seconds: float = 0.0
) -> AsyncIterator[TestFleet]:
    """No node yet; at the end all that run die."""
    made = TestFleet(url, folder, OwnershipSettings(lease_seconds=lease_seconds, give_pause_seconds=give_pause_seconds))
    try:
        yield made
    finally:
        await made.close()
