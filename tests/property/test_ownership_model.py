"""Ownership against a plain model: whoever joins, dies, is cut off or comes back late, what one owner of a shard
commits lies before the takeover of the next.

PostgreSQL alone: on SQLite one process has everything, and leases do not exist there (the queue's model,
``test_queue_model``, runs on both). What runs is the real thing, `LeaseBook` over `leases` and `OwnedDatabase`, with
transactions of several nodes open at once: an owner's stays open while others ask for its shard, a takeover's while the
old owner renews, gives back or writes. Any of them is committed, cut before its COMMIT, or cut after it, when nobody
hears of it.

Two clocks, both the test's: the database's, and each node's own. That of the node ``stuck`` stands still, so it always
takes its leases for good: only the row's lock and epoch keep its writes out. A write is tried with any lease there ever
was.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Float, delete, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from harness.interleaving import somebody_waits
from mailmill.app import lease_book
from mailmill.app.lease_book import LeaseBook
from mailmill.errors import LeaseLostError, StoreError
from mailmill.store import dialect, owned_database
from mailmill.store.database import Database
from mailmill.store.leases import Node
from mailmill.store.owned_database import Lease, OwnedDatabase
from mailmill.store.tables import node, setting, shard
from mailmill.store.wakeups import WakeName

STUCK = "stuck"
NODES = ("a", "b", STUCK)
SHARDS = (0, 1, 2)
LEASE_SECONDS = 30.0
MOST_OPEN = 3  # writes
PATIENCE_SECONDS = 30

Fate = Literal["committed", "undone", "unheard"]
"""What becomes of a transaction: ``undone``, it was cut before its COMMIT; ``unheard``, before the answer to it."""

fates = st.sampled_from(("committed", "committed", "undone", "unheard"))
nodes = st.sampled_from(NODES)
some_shards = st.sets(st.sampled_from(SHARDS), min_size=1)

T = TypeVar("T")


# -- what runs --------------------------------------------------------------------------------------------------------


class Step:
    """What a node does in one transaction, in a task of its own. Before its COMMIT it waits for `decide`."""

    def __init__(self, node_id: str, work: Callable[[], Awaitable[Any]]) -> None:
        self.node_id = node_id
        self.at_commit = asyncio.Event()
        self.fate: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(work))

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        _step.set(self)
        return await work()

    def decide(self, fate: Fate) -> None:
        if not self.fate.done():
            self.fate.set_result(fate)

    async def state(self, database: Database) -> str:
        """``done``, ``open`` before its COMMIT, or ``waiting`` for somebody's lock: whichever comes first."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (self.task.done() or self.at_commit.is_set()):
                if await somebody_waits(database):
                    return "waiting"
        return "done" if self.task.done() else "open"

    async def resumed(self) -> None:
        """Wait until it, for whom nobody stands in the way any more, is done or open before its COMMIT."""
        reached = asyncio.create_task(self.at_commit.wait())
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.wait((self.task, reached), return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()


_step: ContextVar[Step] = ContextVar("step")


class Interrupted(Database):
    """``database``, whose transactions end as their `Step` is told."""

    def __init__(self, database: Database) -> None:
        self.wake = database.wake
        self.alone = database.alone
        self._database = database

    @asynccontextmanager
    async def write(self, *, wake: Collection[WakeName] = ()) -> AsyncIterator[AsyncConnection]:
        step = _step.get()
        async with self._database.write(wake=wake) as connection:
            yield connection
            step.at_commit.set()
            fate = await step.fate
            if fate == "undone":
                raise StoreError("cut before the COMMIT")
        if fate == "unheard":
            raise StoreError("cut after the COMMIT")

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._database.read()

    async def close(self) -> None:
        pass


@dataclass
class Clocks:
    """``now`` is the database's; ``boot`` each node's own."""

    now: float = 1000.0
    boot: dict[str, float] = field(default_factory=lambda: dict.fromkeys(NODES, 50.0))
    looking: str = ""  # whose clock is read by who is in no step

    def boot_seconds(self) -> float:
        step = _step.get(None)
        return self.boot[step.node_id if step is not None else self.looking]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for node_id in NODES:
            self.boot[node_id] += 0 if node_id == STUCK else seconds

    @contextmanager
    def in_place(self) -> Iterator[None]:
        with (
            mock.patch.object(dialect, "now", lambda _connection: literal(self.now, Float)),
            mock.patch.object(lease_book, "boot_seconds", self.boot_seconds),
            mock.patch.object(owned_database, "boot_seconds", self.boot_seconds),
        ):
            yield


# -- the model --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """A shard: who has it, by which epoch, and until when by the database's clock."""

    owner: str = ""
    epoch: int = 0
    until: float = 0.0


@dataclass
class OpenWrite:
    step: Step
    lease: Lease
    number: int


@dataclass
class OpenTake:
    step: Step
    taken: dict[int, Held]


@dataclass
class Waiting:
    """What waits for the end of the takeover that is open; ``resumed`` says what must come of it then."""

    step: Step
    resumed: Callable[[], None]


class Ownership(RuleBasedStateMachine):
    database: Database
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.clocks = Clocks()
        self._patched = self.clocks.in_place()
        self._patched.__enter__()
        self.shards = dict.fromkeys(SHARDS, Held())
        self.written: dict[int, tuple[int, int]] = {}
        self.writes: list[OpenWrite] = []
        self.taking: OpenTake | None = None
        self.waiting: Waiting | None = None
        self.leases: list[Lease] = []  # every one there ever was: zombies write with old ones
        self.highest = dict.fromkeys(SHARDS, 0)
        self.serial = itertools.count(1)
        self.steps: list[Step] = []
        behind = Interrupted(self.database)
        self.door = behind
        self.books = {name: LeaseBook(behind, Node(name, "host", ("sync",), "1"), LEASE_SECONDS) for name in NODES}

    def teardown(self) -> None:
        async def undo() -> None:
            for step in self.steps:
                step.task.cancel()
            await asyncio.gather(*(step.task for step in self.steps), return_exceptions=True)

        self.runner.run(undo())
        self._patched.__exit__(None, None, None)

    @initialize()
    def each_has_a_shard(self) -> None:
        async def clear() -> None:
            async with self.database.write() as connection:
                await connection.execute(update(shard).values(node_id="", epoch=0, leased_until=0.0))
                await connection.execute(delete(setting).where(setting.c.name.startswith("written ")))
                await connection.execute(delete(node))

        self.runner.run(clear())
        for node_id, number in zip(NODES, SHARDS, strict=True):
            self._take(node_id, {number}, "committed", stays_open=False)

    # -- what nodes do ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.waiting is None and self._asking())
    @rule(data=st.data(), what=st.sampled_from(("take", "take", "renew", "give back", "retire")), fate=fates)
    def a_node_asks(self, data: st.DataObject, what: str, fate: Fate) -> None:
        node_id = data.draw(st.sampled_from(self._asking()))
        held = list(self.books[node_id].held.values())
        match what:
            case "take":
                self._take(node_id, data.draw(some_shards), fate, stays_open=data.draw(st.booleans()))
            case "give back" if held:
                given = data.draw(st.lists(st.sampled_from(held), min_size=1, unique_by=id))
                self._give_back(node_id, given, fate)
            case "retire":
                self._retire(node_id, fate)
            case _:
                self._renew(node_id, fate)

    def _asking(self) -> list[str]:
        """The nodes that may ask for something: in one whose takeover is open, all else waits for its turn."""
        return [name for name in NODES if self.taking is None or self.taking.step.node_id != name]

    def _take(self, node_id: str, wanted: set[int], fate: Fate, *, stays_open: bool) -> None:
        """Nobody waits for whoever holds a shard: it is left for the next time."""
        in_use = {write.lease.shard for write in self.writes} | set(self.taking.taken if self.taking else ())
        taken = {
            number: Held(node_id, held.epoch + 1, self.clocks.now + LEASE_SECONDS)
            for number, held in self.shards.items()
            if number in wanted - in_use and held.owner != node_id and (not held.owner or held.until <= self.clocks.now)
        }
        step, state = self._begin(node_id, lambda: self.books[node_id].take(wanted))
        assert state == "open", "a takeover waits for nobody"
        opened = OpenTake(step, taken)
        if stays_open and self.taking is None:
            self.taking = opened
        else:
            self._end_take(opened, fate)

    @precondition(lambda self: self.taking is not None)
    @rule(fate=fates)
    def a_takeover_ends(self, fate: Fate) -> None:
        opened, self.taking = self.taking, None
        assert opened is not None
        self._end_take(opened, fate)
        if self.waiting is not None:
            waited, self.waiting = self.waiting, None
            self.runner.run(waited.step.resumed())
            waited.resumed()

    def _renew(self, node_id: str, fate: Fate) -> None:
        book = self.books[node_id]
        before = dict(book.held)
        step, _ = self._begin(node_id, book.renew)
        now = self.clocks.now

        def ends() -> None:
            mine = {
                number: Held(node_id, held.epoch, now + LEASE_SECONDS)
                for number, held in self.shards.items()
                if held.owner == node_id
            }
            renewed = self._end(step, fate)
            if fate != "undone":
                self.shards |= mine
            if fate != "committed":
                return
            ran = {number: held for number, held in self.shards.items() if held.until > self.clocks.now}
            owners = {number: held.owner for number, held in ran.items() if held.owner}
            assert {number: name for number, name in renewed.fleet.owners.items() if number in SHARDS} == owners
            assert {number: lease.epoch for number, lease in book.held.items()} == {
                number: held.epoch for number, held in mine.items()
            }
            gone = [lease for lease in before.values() if book.held.get(lease.shard) is not lease]
            assert {id(lease) for lease in renewed.lost} == {id(lease) for lease in gone}

        self._now_or_later(step, ends, [number for number in SHARDS if self.shards[number].owner == node_id])

    def _give_back(self, node_id: str, given: list[Lease], fate: Fate) -> None:
        book = self.books[node_id]
        step, _ = self._begin(node_id, lambda: book.release(given))
        assert not any(self._believes(lease) for lease in given), "lost from the call on"
        epochs = {lease.shard: lease.epoch for lease in given}

        def ends() -> None:
            mine = self._under(node_id, epochs)
            self._end(step, fate)
            if fate != "undone":
                self.shards |= {number: Held("", self.shards[number].epoch, 0.0) for number in mine}

        self._now_or_later(step, ends, self._under(node_id, epochs))

    def _retire(self, node_id: str, fate: Fate) -> None:
        step, _ = self._begin(node_id, self.books[node_id].retire)

        def mine() -> list[int]:
            return [number for number, held in self.shards.items() if held.owner == node_id]

        def ends() -> None:
            gone = mine()
            self._end(step, fate)
            if fate != "undone":
                self.shards |= {number: Held("", self.shards[number].epoch, 0.0) for number in gone}
            assert not self.books[node_id].held

        self._now_or_later(step, ends, mine())

    @rule(node_id=nodes, seconds=st.sampled_from((1.0, 20.0, 31.0)))
    def time_passes(self, node_id: str, seconds: float) -> None:
        """And a node looks whether it still has what it had."""
        self.clocks.advance(seconds)
        self.clocks.looking = node_id
        assert not any(lease.holds for lease in self.books[node_id].expire())
        assert all(lease.holds for lease in self.books[node_id].held.values())

    @precondition(lambda self: self.waiting is None and self.taking is None and self._owners_leases())
    @rule(data=st.data(), late=st.sampled_from(("writes", "writes", "renews", "gives back", "retires")), fate=fates)
    def a_lease_ends_and_its_owner_is_late(self, data: st.DataObject, late: str, fate: Fate) -> None:
        """It comes back while somebody is taking over, and before that is decided."""
        lease = data.draw(st.sampled_from(self._owners_leases()))
        heir = data.draw(st.sampled_from([name for name in NODES if name != lease.node_id]))
        self.clocks.advance(LEASE_SECONDS + 1)
        self._take(heir, {lease.shard}, "committed", stays_open=True)
        match late:
            case "writes":
                self._write(lease)
            case "renews":
                self._renew(lease.node_id, fate)
            case "gives back":
                self._give_back(lease.node_id, [lease], fate)
            case "retires":
                self._retire(lease.node_id, fate)

    @precondition(lambda self: self.waiting is None and self.leases)
    @rule(data=st.data())
    def somebody_writes(self, data: st.DataObject) -> None:
        """Under any lease that ever was."""
        self._write(data.draw(st.sampled_from(self.leases)))

    @precondition(lambda self: self.waiting is None and self._owners_leases())
    @rule(data=st.data())
    def an_owner_writes(self, data: st.DataObject) -> None:
        self._write(data.draw(st.sampled_from(self._owners_leases())))

    def _write(self, lease: Lease) -> None:
        """The transaction stays open: others go on meanwhile."""
        if len(self.writes) == MOST_OPEN:
            return
        number = next(self.serial)
        believed = self._believes(lease)

        async def write() -> None:
            async with OwnedDatabase(self.door, lease).write() as connection:
                said = f"{lease.shard} {lease.epoch}"
                await connection.execute(insert(setting).values(name=f"written {number}", value=said))

        step, state = self._begin(lease.node_id, write)

        def begins() -> None:
            if believed and self._under(lease.node_id, {lease.shard: lease.epoch}):
                assert self._state(step) == "open"
                self.writes.append(OpenWrite(step, lease, number))
            else:
                assert self._state(step) == "done", "a zombie is in"
                assert isinstance(step.task.exception(), LeaseLostError)
                assert not self._believes(lease), "told once, it knows"

        if not believed:
            assert state == "done", "its own clock tells it, and nobody is asked"
        self._now_or_later(step, begins, self._under(lease.node_id, {lease.shard: lease.epoch}) if believed else [])

    @precondition(lambda self: self.writes and self.waiting is None)
    @rule(data=st.data(), fate=fates)
    def a_write_ends(self, data: st.DataObject, fate: Fate) -> None:
        write = self.writes.pop(data.draw(st.integers(0, len(self.writes) - 1)))
        self._end(write.step, fate)
        if fate != "undone":
            assert self.shards[write.lease.shard].epoch == write.lease.epoch, "committed after a takeover"
            self.written[write.number] = (write.lease.shard, write.lease.epoch)

    @precondition(lambda self: self.waiting is None and self.taking is None and self._owners_leases())
    @rule(data=st.data(), late=st.booleans())
    def a_shard_goes_to_another_and_comes_back(self, data: st.DataObject, late: bool) -> None:
        """The same node has it again, by a later lease; what it had begun by the former one may still try to write."""
        lease = data.draw(st.sampled_from(self._owners_leases()))
        heir = data.draw(st.sampled_from([name for name in NODES if name != lease.node_id]))
        for node_id in (heir, lease.node_id):
            self.clocks.advance(LEASE_SECONDS + 1)
            self._take(node_id, {lease.shard}, "committed", stays_open=False)
        if late:
            self._write(lease)

    # -- how the model follows ----------------------------------------------------------------------------------------

    def _begin(self, node_id: str, work: Callable[[], Awaitable[Any]]) -> tuple[Step, str]:
        async def begin() -> tuple[Step, str]:
            step = Step(node_id, work)
            self.steps.append(step)
            return step, await step.state(self.database)

        return self.runner.run(begin())

    def _state(self, step: Step) -> str:
        return self.runner.run(step.state(self.database))

    def _end(self, step: Step, fate: Fate) -> Any:
        """What the step returned; None where it was cut."""

        async def end() -> Any:
            step.decide(fate)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.wait((step.task,))
            if fate == "committed":
                return step.task.result()
            assert isinstance(step.task.exception(), StoreError)
            return None

        result = self.runner.run(end())
        self.leases += [lease for lease in self.books[step.node_id].held.values() if lease not in self.leases]
        return result

    def _end_take(self, opened: OpenTake, fate: Fate) -> None:
        self._end(opened.step, fate)
        if fate != "undone":
            self.shards |= opened.taken
        if fate == "committed":
            held = self.books[opened.step.node_id].held
            assert {number: held[number].epoch for number in opened.taken} == {
                number: each.epoch for number, each in opened.taken.items()
            }

    def _now_or_later(self, step: Step, ends: Callable[[], None], rows: Collection[int]) -> None:
        """What changes ``rows``, or holds them, waits where a takeover of one of them is open."""
        awaited = self.taking is not None and any(number in self.taking.taken for number in rows)
        assert (self._state(step) == "waiting") == awaited
        if awaited:
            self.waiting = Waiting(step, ends)
        else:
            ends()

    def _owners_leases(self) -> list[Lease]:
        return [lease for lease in self.leases if self._under(lease.node_id, {lease.shard: lease.epoch})]

    def _under(self, node_id: str, epochs: dict[int, int]) -> list[int]:
        """Those of these shards that the node has by these very leases."""
        return [
            number
            for number, epoch in epochs.items()
            if (self.shards[number].owner, self.shards[number].epoch) == (node_id, epoch)
        ]

    def _believes(self, lease: Lease) -> bool:
        self.clocks.looking = lease.node_id
        return lease.holds

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        async def read() -> tuple[dict[int, Held], dict[int, tuple[int, int]]]:
            async with self.database.read() as connection:
                rows = await connection.execute(select(shard).where(shard.c.id.in_(SHARDS)))
                shards = {row.id: Held(row.node_id, row.epoch, row.leased_until) for row in rows}
                said = await connection.execute(select(setting).where(setting.c.name.startswith("written ")))
                written = {int(row.name.split()[1]): tuple(map(int, row.value.split())) for row in said}
                return shards, written  # type: ignore[return-value]

        shards, written = self.runner.run(read())
        assert shards == self.shards
        assert written == self.written
        for number, held in shards.items():
            assert held.epoch >= self.highest[number], "an epoch went down"
            self.highest[number] = held.epoch

    @invariant()
    def whose_clock_goes_stops_before_its_lease_ends(self) -> None:
        """So of the nodes with a clock, at most one at a time takes a shard for its own."""
        for lease in self.leases:
            if lease.node_id != STUCK and self._believes(lease):
                held = self.shards[lease.shard]
                assert (held.owner, held.epoch) == (lease.node_id, lease.epoch)
                assert held.until > self.clocks.now


def test_shards_are_owned_as_in_the_model(postgres_url: str, tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_database() -> Database:
            database = await Database.open(postgres_url, data_dir=tmp_path / "node")
            stack.push_async_callback(database.close)
            return database

        class OnThisDatabase(Ownership):
            pass

        OnThisDatabase.database, OnThisDatabase.runner = runner.run(open_database()), runner
        try:
            run_state_machine_as_test(
                OnThisDatabase, settings=settings(max_examples=settings().max_examples // 2, stateful_step_count=30)
            )
        finally:
            runner.run(stack.aclose())
