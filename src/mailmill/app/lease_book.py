"""The leases that this process has: asked for, renewed and given back, with the time that is left by its own clock.

Laws:

* The time of a lease is counted from before it was asked for, on a clock that goes on while the machine sleeps, and
  ends a margin before the database's: whoever may take it comes after we have stopped.
* What the database says we have is what we have: a lease whose commit we never heard of is found at the next round.
  So one of these asks at a time, or what one takes would be missing in what another has read before.
* All of it goes through the urgent door (`doors`): a node whose writers are all busy is alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from mailmill.clock import boot_seconds
from mailmill.store import doors, leases
from mailmill.store.database import Database, WakeName
from mailmill.store.leases import Fleet, Node
from mailmill.store.owned_database import Lease

# Of a lease, the last part is not ours to use: in it the accounts' tasks end.
_MARGIN = 1 / 6
_WAKE_NODES: tuple[WakeName, ...] = ("nodes",)


@dataclass(frozen=True, slots=True)
class Renewed:
    """What a round found: the fleet, and the leases that came or went without us."""

    fleet: Fleet
    lost: tuple[Lease, ...]


class LeaseBook:
    """One process's leases by shard. ``trouble`` is called when a lease is found to be lost between the rounds."""

    def __init__(
        self, database: Database, node: Node, lease_seconds: float, trouble: Callable[[], None] = lambda: None
    ) -> None:
        self.node = node
        self.held: dict[int, Lease] = {}
        self.lease_seconds = lease_seconds
        self._database = database
        self._trouble = trouble
        self._turn = asyncio.Lock()

    async def renew(self, *, stopping: bool = False, tell: bool = False) -> Renewed:
        """Prove life, renew all, and look around. ``tell`` has the other nodes look too. Raises StoreError."""
        async with self._turn:
            asked_at = boot_seconds()
            async with doors.write_urgent(self._database, wake=_WAKE_NODES if tell else ()) as connection:
                await leases.beat(connection, self.node, stopping=stopping)
                epochs = await leases.renew(connection, self.node.id, self.lease_seconds)
                fleet = await leases.read_fleet(connection)
            lost = tuple(lease for lease in self.held.values() if epochs.get(lease.shard) != lease.epoch)
            for lease in lost:
                self._drop(lease)
            self._note(epochs, asked_at)
            return Renewed(fleet, lost)

    async def take(self, shards: Collection[int]) -> None:
        """Take those that can be had. Raises StoreError."""
        async with self._turn:
            asked_at = boot_seconds()
            async with doors.write_urgent(self._database) as connection:
                epochs = await leases.take(connection, self.node.id, shards, self.lease_seconds)
            self._note(epochs, asked_at)

    async def release(self, given: Collection[Lease]) -> None:
        """Give leases back and tell the other nodes. They count as lost from the call on. Raises StoreError."""
        for lease in given:
            self._drop(lease)
        async with self._turn, doors.write_urgent(self._database, wake=_WAKE_NODES) as connection:
            await leases.release(connection, self.node.id, {lease.shard: lease.epoch for lease in given})

    async def retire(self) -> None:
        """Give all back and leave the fleet. Raises StoreError."""
        async with self._turn:
            for lease in list(self.held.values()):
                self._drop(lease)
            async with doors.write_urgent(self._database, wake=_WAKE_NODES) as connection:
                await leases.retire(connection, self.node.id)

    def expire(self) -> list[Lease]:
        """Drop the leases whose time is over, or that were found to be lost, and return them."""
        over = [lease for lease in self.held.values() if not lease.holds]
        for lease in over:
            self._drop(lease)
        return over

    def soonest_end(self) -> float | None:
        """Seconds until the first of the leases ends; None where there is none."""
        if not self.held:
            return None
        return min(lease.until for lease in self.held.values()) - boot_seconds()

    def _note(self, epochs: dict[int, int], asked_at: float) -> None:
        until = asked_at + self.lease_seconds * (1 - _MARGIN)
        for shard, epoch in epochs.items():
            lease = self.held.get(shard)
            if lease is None or lease.epoch != epoch:
                self.held[shard] = Lease(self.node.id, shard, epoch, until, self._trouble)
            else:
                lease.until = until

    def _drop(self, lease: Lease) -> None:
        if self.held.get(lease.shard) is lease:
            del self.held[lease.shard]
        lease.lose()
