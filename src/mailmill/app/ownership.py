"""Which accounts this node keeps in sync, where several nodes share one PostgreSQL.

::

    round:   renew what we have ──▶ plan (shard_plan) ──▶ give up what others should have ──▶ take what is ours and free
             every few seconds, at a hint that a node came, went or gave something up, and soon again while it moves
    guard:   a lease whose time is over by our own clock is stopped at once, whatever the rounds are waiting for

Laws:

- What has begun by a lease ends before the lease is given back; what hangs is left behind: it can write no more.
- A newcomer's share moves a few shards at a time, so that the servers see no storm of logins. What is free is taken at
  once, however much it is: nobody keeps it in sync.
- What became of the accounts of our shards is looked at in each round: one that was paused is stopped within it.
- A failed round is repeated soon. Until then the leases run, and the guard counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import structlog

from mailmill.app import shard_plan
from mailmill.app.lease_book import LeaseBook
from mailmill.errors import MailmillError
from mailmill.store import doors, leases
from mailmill.store.database import Database
from mailmill.store.leases import Fleet, Node
from mailmill.store.owned_database import Lease

SYNC_ROLE = "sync"

# Long enough that one of several lost answers does no harm, short enough that a crash is noticed soon.
_RENEWALS_PER_LEASE = 3.75
_GIVEN_AT_ONCE = 4
_GIVE_PAUSE_SECONDS = 1.0
_HINT_PAUSE_SECONDS = 0.1
_RETRY_SECONDS = 1.0
_GUARD_SECONDS = 0.5
_END_SECONDS = 3.0
_DEAD_KEPT_SECONDS = 3600.0
_FORGET_DEAD_EVERY_SECONDS = 300.0

_log = structlog.get_logger("mailmill.nodes")


class ShardAccounts(Protocol):
    """The accounts of the shards that come and go."""

    async def start(self, lease: Lease) -> None:
        """Begin to keep the accounts of a shard in sync. Raises StoreError where nothing was begun."""

    async def stop(self, shards: Collection[int]) -> None:
        """End them, within some seconds. Must give the order before its first await."""

    async def review(self, leases: Collection[Lease]) -> None:
        """Of these shards, end the accounts that were paused since, and begin those that go on. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class OwnershipSettings:
    """``lease_seconds``: how long a node that fell silent keeps what it has. The same on all nodes.

    ``given_at_once`` shards are given up together, then comes a pause of ``give_pause_seconds``.
    """

    lease_seconds: float = 30.0
    given_at_once: int = _GIVEN_AT_ONCE
    give_pause_seconds: float = _GIVE_PAUSE_SECONDS

    @property
    def renew_seconds(self) -> float:
        return self.lease_seconds / _RENEWALS_PER_LEASE


class Ownership:
    """One per process of a fleet, of whatever roles: a node that does not sync has a heartbeat and takes nothing."""

    def __init__(
        self, database: Database, node: Node, accounts: ShardAccounts, settings: OwnershipSettings | None = None
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._settings = settings or OwnershipSettings()
        self._stirred = asyncio.Event()
        self._book = LeaseBook(database, node, self._settings.lease_seconds, trouble=self._stirred.set)
        self._begun: dict[int, Lease] = {}
        self._next_gift_at = 0.0
        self._forget_dead_at = 0.0

    @property
    def owned(self) -> dict[int, Lease]:
        """The shards whose accounts are kept in sync here now."""
        return dict(self._begun)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set; then all is handed over. Cancelled, it leaves its leases to end by themselves."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._rounds()), group.create_task(self._guard())]
                await stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            if stop.is_set():
                await self._leave()
            else:
                await self._accounts.stop(self._forget(list(self._begun)))

    # -- rounds -------------------------------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        loop = asyncio.get_running_loop()
        tell = True
        with self._database.wake.nodes.subscribe() as hints:
            while True:
                try:
                    # A round must not outlast the time of its leases: the next one has a connection of its own.
                    async with asyncio.timeout(self._settings.renew_seconds):
                        moving = await self._round(tell=tell)
                    tell = False
                    pause = self._settings.renew_seconds * random.uniform(0.8, 1.0)  # noqa: S311
                    if moving:
                        pause = min(pause, max(0.0, self._next_gift_at - loop.time()))
                except (MailmillError, TimeoutError) as error:
                    _log.warning(
                        "leases not renewed", error=str(error) or "no answer in time", held=len(self._book.held)
                    )
                    pause = self._retry_seconds * random.uniform(0.5, 1.0)  # noqa: S311
                except Exception as error:  # noqa: BLE001 - the boundary: the guard ends what must end, we try again
                    trace = "".join(traceback.format_exception(error))
                    _log.error("a round of the leases failed", error=str(error), exception=trace)
                    pause = self._retry_seconds
                await asyncio.sleep(_HINT_PAUSE_SECONDS)
                await hints.wait(pause)

    async def _round(self, *, tell: bool) -> bool:
        """Returns whether shards are still to be given up."""
        renewed = await self._book.renew(tell=tell)
        if renewed.lost:
            _log.warning("shards were taken over", shards=sorted(lease.shard for lease in renewed.lost))
        await self._settle()
        fleet = renewed.fleet
        target = shard_plan.plan(
            living(fleet, self._settings.lease_seconds), fleet.owners, [s.id for s in fleet.shards]
        )
        moving = await self._give([lease for lease in self._book.held.values() if target.get(lease.shard) != self._id])
        free = {each.id for each in fleet.shards if not each.owner}
        wanted = [shard for shard in free if target.get(shard) == self._id and shard not in self._book.held]
        if wanted:
            before = set(self._book.held)
            await self._book.take(wanted)
            if taken := sorted(set(self._book.held) - before):
                _log.info("took shards", shards=taken)
            await self._settle()
        await self._after_a_round()
        return moving

    async def _after_a_round(self) -> None:
        """What may wait: none of it must keep a lease from being renewed."""
        clock = asyncio.get_running_loop().time
        try:
            await self._accounts.review(list(self._begun.values()))
            if clock() >= self._forget_dead_at:
                self._forget_dead_at = clock() + _FORGET_DEAD_EVERY_SECONDS
                async with doors.write_urgent(self._database) as connection:
                    await leases.forget_dead(connection, max(_DEAD_KEPT_SECONDS, 10 * self._settings.lease_seconds))
        except MailmillError as error:
            _log.warning("accounts that were paused since, and dead nodes, are looked after later", error=str(error))

    async def _settle(self) -> None:
        """Have running what we have, and nothing else."""
        gone = [shard for shard, lease in self._begun.items() if self._book.held.get(shard) is not lease]
        if gone:
            await self._accounts.stop(self._forget(gone))
        for shard, lease in list(self._book.held.items()):
            if shard not in self._begun and lease.holds:
                self._begun[shard] = lease
                try:
                    await self._accounts.start(lease)
                except BaseException:
                    self._begun.pop(shard, None)
                    raise
                if self._begun.get(shard) is not lease:
                    # The guard ended it while its accounts were being looked up.
                    await self._accounts.stop([shard])

    async def _give(self, surplus: list[Lease]) -> bool:
        """Give up some of ``surplus``; returns whether there is more."""
        loop = asyncio.get_running_loop()
        if not surplus or loop.time() < self._next_gift_at:
            return bool(surplus)
        given = surplus[: self._settings.given_at_once]
        self._next_gift_at = loop.time() + self._settings.give_pause_seconds
        await self._accounts.stop(self._forget([lease.shard for lease in given]))
        await self._book.release(given)
        _log.info("gave up shards", shards=sorted(lease.shard for lease in given))
        return len(surplus) > len(given)

    # -- the end of leases --------------------------------------------------------------------------------------------

    async def _guard(self) -> None:
        while True:
            # Before anything else after a sleep, or a stop of the process.
            over = self._book.expire()
            gone = self._forget([lease.shard for lease in over if self._begun.get(lease.shard) is lease])
            if gone:
                _log.error(
                    "leases ended; their accounts are stopped here",
                    shards=sorted(gone),
                    hint="the database was out of reach, or this process was stopped; another node takes over",
                )
                await self._accounts.stop(gone)
            soonest = self._book.soonest_end()
            # The loop's clock stands still while the machine sleeps: never far ahead by it.
            pause = _GUARD_SECONDS if soonest is None else min(_GUARD_SECONDS, max(0.0, soonest))
            self._stirred.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stirred.wait()

    async def _leave(self) -> None:
        """Hand over all: the others know before the accounts have stopped, and take as soon as they have."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                ending = self._accounts.stop(self._forget(list(self._begun)))
                await asyncio.gather(ending, self._book.renew(stopping=True, tell=True))
        except (MailmillError, TimeoutError) as error:
            _log.warning("stopping without a word to the other nodes", error=str(error))
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._book.retire()
        except (MailmillError, TimeoutError) as error:
            _log.warning("stopped without giving the shards back: their leases end by themselves", error=str(error))

    def _forget(self, shards: Collection[int]) -> list[int]:
        """Not ours any more from now on; returns those that had begun."""
        return [shard for shard in shards if self._begun.pop(shard, None) is not None]

    @property
    def _retry_seconds(self) -> float:
        return min(_RETRY_SECONDS, self._settings.renew_seconds)

    @property
    def _id(self) -> str:
        return self._book.node.id


def living(fleet: Fleet, lease_seconds: float) -> list[str]:
    """The nodes that shards may go to."""
    return [
        each.id
        for each in fleet.nodes
        if SYNC_ROLE in each.roles and not each.stopping and each.silent_seconds < lease_seconds
    ]
