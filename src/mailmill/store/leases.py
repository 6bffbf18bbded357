"""Nodes and what they own: rows of ``node`` and ``shard``. PostgreSQL only; SQLite has one process, which owns all.

Laws:

* All times are the database's: a node's own clock decides nothing here.
* An owner's transaction holds the shard's row ``FOR KEY SHARE`` (`hold`) and has seen its own name and epoch in it; a
  takeover needs it ``FOR UPDATE`` (`take`). So a takeover waits for what the old owner has begun, and whatever it
  begins afterwards finds the new epoch. Renewing touches neither name nor epoch and waits for nobody.
* The epoch goes up with each owner and never down: an owner that comes back to itself is a new one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store import dialect
from mailmill.store.tables import node, shard

SILENT_SECONDS: Final = 45.0
"""A node that has not been heard of for so long has lost its leases."""


@dataclass(frozen=True, slots=True)
class Node:
    """A process of the service. ``id`` is unique among all that ever ran; ``roles`` as configured."""

    id: str
    host: str
    roles: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as others see it. ``started_at``: seconds since the epoch; ``silent_seconds``: since its heartbeat."""

    id: str
    host: str
    roles: tuple[str, ...]
    version: str
    started_at: float
    silent_seconds: float
    stopping: bool

    @property
    def state(self) -> str:
        """``alive``, ``stopping``, or ``silent`` where it has not been heard of for `SILENT_SECONDS`."""
        if self.silent_seconds > SILENT_SECONDS:
            return "silent"
        return "stopping" if self.stopping else "alive"


@dataclass(frozen=True, slots=True)
class ShardRow:
    """Who has a shard; ``node_id`` is empty for nobody. ``left_seconds``: until the lease ends, below 0 when it has."""

    id: int
    epoch: int
    node_id: str
    left_seconds: float

    @property
    def owner(self) -> str:
        """Whose lease holds; empty where it is free or has ended."""
        return self.node_id if self.left_seconds > 0 else ""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All nodes by id and all shards by number."""

    nodes: tuple[NodeRow, ...]
    shards: tuple[ShardRow, ...]

    @property
    def owners(self) -> dict[int, str]:
        return {each.id: each.owner for each in self.shards if each.owner}


async def beat(connection: AsyncConnection, own: Node, *, stopping: bool = False) -> None:
    """Prove that a node lives; the first time makes its row."""
    now = dialect.now(connection)
    new = dialect.insert(connection, node).values(
        id=own.id,
        host=dialect.storable(own.host),
        roles=" ".join(own.roles),
        version=own.version,
        started_at=now,
        heartbeat_at=now,
        stopping=stopping,
    )
    await connection.execute(
        new.on_conflict_do_update(index_elements=[node.c.id], set_={"heartbeat_at": now, "stopping": stopping})
    )


async def renew(connection: AsyncConnection, node_id: str, lease_seconds: float) -> dict[int, int]:
    """Have all leases of a node end ``lease_seconds`` from now; returns the epoch of each shard it still has.

    A lease that had ended and that nobody took goes on: nobody else has written in between.
    """
    renewed = await connection.execute(
        update(shard)
        .where(shard.c.node_id == node_id)
        .values(leased_until=dialect.now(connection) + lease_seconds)
        .returning(shard.c.id, shard.c.epoch)
    )
    return {row.id: row.epoch for row in renewed}


async def take(
    connection: AsyncConnection, node_id: str, wanted: Collection[int], lease_seconds: float
) -> dict[int, int]:
    """Take those of ``wanted`` that are free or whose lease has ended; returns the new epoch of each shard taken.

    One that somebody is just taking, or whose old owner has a transaction open, is left for the next time.
    """
    now = dialect.now(connection)
    ended = or_(shard.c.node_id == "", shard.c.leased_until <= now)
    free = select(shard.c.id).where(shard.c.id.in_(wanted), shard.c.node_id != node_id, ended).order_by(shard.c.id)
    # FOR UPDATE before the UPDATE, which by itself would pass an owner's FOR KEY SHARE.
    locked = list(await connection.scalars(dialect.lock_out(connection, free, of=shard)))
    if not locked:
        return {}
    taken = await connection.execute(
        update(shard)
        .where(shard.c.id.in_(locked))
        .values(node_id=node_id, epoch=shard.c.epoch + 1, leased_until=now + lease_seconds)
        .returning(shard.c.id, shard.c.epoch)
    )
    return {row.id: row.epoch for row in taken}


async def hold(connection: AsyncConnection, node_id: str, shard_id: int, epoch: int) -> bool:
    """Within an owner's transaction, first of all: keep the shard from being taken until it ends.

    False where somebody else has it, or this node by a later lease: then nothing may be written.
    """
    mine = select(shard.c.id).where(shard.c.id == shard_id, shard.c.node_id == node_id, shard.c.epoch == epoch)
    return await connection.scalar(dialect.lock_shared(connection, mine, of=shard)) is not None


async def release(connection: AsyncConnection, node_id: str, epochs: Mapping[int, int]) -> None:
    """Give shards back (shard → epoch) before their leases end."""
    for epoch in set(epochs.values()):
        ids = [shard_id for shard_id, its_epoch in epochs.items() if its_epoch == epoch]
        await connection.execute(
            update(shard)
            .where(shard.c.id.in_(ids), shard.c.node_id == node_id, shard.c.epoch == epoch)
            .values(node_id="", leased_until=0.0)
        )


async def retire(connection: AsyncConnection, node_id: str) -> None:
    """A node is going: all that it has is free, and its row is gone."""
    await connection.execute(update(shard).where(shard.c.node_id == node_id).values(node_id="", leased_until=0.0))
    await connection.execute(delete(node).where(node.c.id == node_id))


async def forget_dead(connection: AsyncConnection, silent_seconds: float) -> None:
    """Remove the rows of nodes that have been silent for so long."""
    silent = select(node.c.id).where(node.c.heartbeat_at < dialect.now(connection) - silent_seconds)
    free = dialect.skip_locked(connection, silent, of=node).subquery("free")
    await connection.execute(delete(node).where(node.c.id.in_(select(free.c.id))))


async def read_fleet(connection: AsyncConnection) -> Fleet:
    """Who lives, and who has what."""
    now = dialect.now(connection)
    nodes = await connection.execute(
        select(node, (now - node.c.heartbeat_at).label("silent_seconds")).order_by(node.c.started_at, node.c.id)
    )
    shards = await connection.execute(
        select(shard.c.id, shard.c.epoch, shard.c.node_id, (shard.c.leased_until - now).label("left_seconds")).order_by(
            shard.c.id
        )
    )
    return Fleet(
        nodes=tuple(
            NodeRow(
                id=row.id,
                host=row.host,
                roles=tuple(row.roles.split()),
                version=row.version,
                started_at=row.started_at,
                silent_seconds=max(0.0, row.silent_seconds),
                stopping=row.stopping,
            )
            for row in nodes
        ),
        shards=tuple(ShardRow(row.id, row.epoch, row.node_id, row.left_seconds) for row in shards),
    )
