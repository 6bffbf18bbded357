"""The pool under everything that can happen to it, in every order that hypothesis comes up with.

One example is a list of steps. Each step is something the world does: a caller comes, a caller is cancelled, a connect
succeeds or fails, a holder leaves, a connection breaks. Between steps the loop makes a drawn number of turns, so that
steps also meet the states in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.virtual_time import run_in_virtual_time
from mailmill.errors import ConnectError, ConnectionLostError, PoolTimeoutError
from mailmill.imap.pool import Pool, PoolSettings
from servers.fake_connection import FakeConnection, FakeSelected

KINDS = [
    "come",
    "come",
    "come",
    "leave",
    "leave",
    "cancel",
    "cancel",
    "snatch",
    "connect",
    "connect",
    "connect",
    "refuse",
]
KINDS += ["break", "cut", "silence", "silence", "answer", "goodbye", "expire"]

STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 3)), max_size=60)
MANY = settings(max_examples=max(400, settings().max_examples))


@dataclass(eq=False)
class Caller:
    """Someone who wants a connection, holds it until told to leave, and remembers how it ended."""

    mailbox: str
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    connection: FakeConnection | None = None
    task: asyncio.Task[None] | None = None


class WatchedPool(Pool[FakeConnection]):
    """Notes at which of its awaits the pool met a cancellation."""

    cancelled_in: set[str]

    async def _wait_for_turn(self, *arguments: Any) -> Any:
        with self.noted("turn"):
            return await super()._wait_for_turn(*arguments)

    async def _is_alive(self, *arguments: Any) -> bool:
        with self.noted("check"):
            return await super()._is_alive(*arguments)

    async def _open(self, *arguments: Any) -> FakeConnection:
        with self.noted("open"):
            return await super()._open(*arguments)

    async def _goodbye(self, connection: FakeConnection) -> None:
        with self.noted("goodbye"):
            await super()._goodbye(connection)

    async def close(self) -> None:
        with self.noted("close"):
            await super().close()

    @contextmanager
    def noted(self, name: str) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            self.cancelled_in.add(name)
            raise


class World:
    """A pool, its callers, and a server whose every answer waits for a step."""

    def __init__(self, size: int, patience: PoolSettings | None = None) -> None:
        self.size = size
        self.cancelled_in: set[str] = set()
        self.loop = asyncio.get_running_loop()
        self.callers: list[Caller] = []
        self.connects: list[asyncio.Future[FakeConnection]] = []
        self.opened: list[FakeConnection] = []
        # No timer fires within an example, so an example is the same on every run.
        never = 1e6
        patience = patience or PoolSettings(
            size=size, max_idle_seconds=never, acquire_timeout_seconds=never, check_timeout_seconds=never
        )
        self.pool = WatchedPool(self.connect, patience)
        self.pool.cancelled_in = self.cancelled_in

    async def connect(self) -> FakeConnection:
        answer: asyncio.Future[FakeConnection] = self.loop.create_future()
        self.connects.append(answer)
        try:
            connection = await answer
        except asyncio.CancelledError:
            self.cancelled_in.add("connect, answered" if answer.done() and not answer.cancelled() else "connect")
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                answer.result().abort()  # as any connect must: whoever is cancelled leaves nothing open
            raise
        finally:
            self.connects.remove(answer)
        self.opened.append(connection)
        return connection

    async def visit(self, caller: Caller) -> None:
        async with self.pool.lease(caller.mailbox) as connection:
            assert not connection.closed, "a closed connection was handed out"
            assert not connection.busy, "a connection in the middle of an exchange was handed out"
            assert all(other.connection is not connection for other in self.callers), "leased twice"
            selected = connection.selected
            assert selected is None or selected.path == caller.mailbox, "a lease of another's mailbox"
            caller.connection = connection
            connection.selected = FakeSelected(caller.mailbox)
            try:
                await caller.leave.wait()
            finally:
                caller.connection = None

    # -- steps --------------------------------------------------------------------------------------------------------

    def take(self, kind: str, which: int) -> None:
        holding = [caller for caller in self.callers if caller.connection is not None]
        living = [caller.task for caller in self.callers if caller.task is not None and not caller.task.done()]
        unanswered = [answer for answer in self.connects if not answer.done()]
        match kind:
            case "come":
                caller = Caller(f"mailbox{which % 3}")
                caller.task = self.loop.create_task(self.visit(caller))
                self.callers.append(caller)
            case "leave" if holding:
                holding[which % len(holding)].leave.set()
            case "cancel" if living:
                living[which % len(living)].cancel()
            case "snatch" if holding:
                # The release grants a turn; whoever got it is cancelled before they run.
                holding[which % len(holding)].leave.set()
                at_work = {caller.task for caller in holding}
                for task in [task for task in living if task not in at_work][:1]:
                    self.loop.call_soon(task.cancel)
            case "connect" if unanswered:
                connection = FakeConnection(len(self.opened))
                connection.logout_waits_for = self.loop.create_future() if which % 2 else None
                unanswered[which % len(unanswered)].set_result(connection)
            case "refuse" if unanswered:
                unanswered[which % len(unanswered)].set_exception(ConnectError("refused"))
            case "break" if self.opened:
                self.opened[which % len(self.opened)].closed = True
            case "cut" if holding:
                connection_held = holding[which % len(holding)].connection
                assert connection_held is not None
                connection_held.busy = True
            case "silence" if self.opened:
                connection = self.opened[which % len(self.opened)]
                connection.last_proven_at -= 1000
                if which % 3 and (connection.noop_waits_for is None or connection.noop_waits_for.done()):
                    connection.noop_waits_for = self.loop.create_future()
            case "answer" if self.opened:
                connection = self.opened[which % len(self.opened)]
                connection.broken = which % 2 == 0
                self.answer(connection.noop_waits_for)
            case "goodbye" if self.opened:
                self.answer(self.opened[which % len(self.opened)].logout_waits_for)
            case "expire":
                self.pool.expire_all()

    @staticmethod
    def answer(waited_for: asyncio.Future[None] | None) -> None:
        if waited_for is not None and not waited_for.done():
            waited_for.set_result(None)

    # -- laws ---------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        stats = self.pool.stats
        slots = stats.leased + stats.idle + stats.connecting + stats.closing
        assert slots <= self.size, stats
        assert min(stats.leased, stats.idle, stats.connecting, stats.closing, stats.waiting) >= 0, stats
        if stats.waiting:
            assert stats.idle == 0, f"someone waits beside an idle connection: {stats}"
            assert slots == self.size, f"someone waits beside a free slot: {stats}"
        alive = sum(not connection.closed for connection in self.opened)
        assert alive <= self.size, "the server sees more connections than allowed"

    async def run(self, steps: list[tuple[str, int, int]]) -> None:
        for kind, which, turns in steps:
            self.take(kind, which)
            self.check()
            for _ in range(turns):
                await asyncio.sleep(0)
                self.check()

    def be_kind(self) -> None:
        """Everybody leaves, every connect succeeds, every answer comes."""
        for caller in self.callers:
            caller.leave.set()
        for answer in self.connects:
            if not answer.done():
                answer.set_result(FakeConnection(len(self.opened)))
        for connection in self.opened:
            self.answer(connection.noop_waits_for)
            self.answer(connection.logout_waits_for)

    async def finish(self) -> None:
        """From now on the world is kind: everybody must be served."""
        rounds = 0
        while any(caller.task is not None and not caller.task.done() for caller in self.callers):
            rounds += 1
            assert rounds < 1_000, f"someone starves: {self.pool.stats}"
            self.be_kind()
            await asyncio.sleep(0)
            self.check()
        for caller in self.callers:
            assert caller.task is not None
            if not caller.task.cancelled() and (error := caller.task.exception()) is not None:
                assert isinstance(error, ConnectError), error
        stats = self.pool.stats
        assert stats.leased == stats.connecting == stats.waiting == 0, f"a slot leaked: {stats}"


def in_a_loop(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await body()

    asyncio.run(bounded())


@MANY
@given(size=st.integers(1, 3), steps=STEPS)
def test_slots_never_exceed_the_size_and_nobody_starves(size: int, steps: list[tuple[str, int, int]]) -> None:
    async def body() -> None:
        world = World(size)
        await world.run(steps)
        await world.finish()
        world.be_kind()
        await world.pool.close()
        assert all(connection.closed for connection in world.opened)

    in_a_loop(body)


@MANY
@given(size=st.integers(1, 3), steps=STEPS, after=STEPS)
def test_close_at_any_moment_leaves_nothing_open(
    size: int, steps: list[tuple[str, int, int]], after: list[tuple[str, int, int]]
) -> None:
    async def body() -> None:
        world = World(size)
        await world.run(steps)
        closing = asyncio.create_task(world.pool.close())
        await world.run(after)
        while not closing.done():
            world.be_kind()
            await asyncio.sleep(0)
        await closing
        outcomes = await asyncio.gather(
            *(caller.task for caller in world.callers if caller.task), return_exceptions=True
        )
        for outcome in outcomes:
            assert outcome is None or isinstance(
                outcome, (asyncio.CancelledError, ConnectError, ConnectionLostError)
            ), outcome
        assert all(connection.closed for connection in world.opened)
        stats = world.pool.stats
        assert stats.leased == stats.idle == stats.connecting == stats.closing == stats.waiting == 0, stats

    in_a_loop(body)


IMPATIENT = {
    "max_idle_seconds": 3,
    "acquire_timeout_seconds": 5,
    "check_timeout_seconds": 1,
    "close_timeout_seconds": 1,
}


def test_with_deadlines_that_pass_and_cancellation_within_every_await() -> None:
    """Random walks in virtual time: everything that the pool waits for also takes too long, or is cancelled."""
    reached: set[str] = set()
    ended: set[type[BaseException]] = set()

    async def walk(seed: int) -> None:
        draw = Random(seed)
        size = draw.randint(1, 3)
        world = World(size, PoolSettings(size=size, **IMPATIENT))
        for _ in range(80):
            world.take(draw.choice(KINDS), draw.randrange(10))
            world.check()
            # Nothing between two steps, a turn or two of the loop, or long enough for a deadline.
            pause = draw.choice([None, None, 0, 0, 0, 0.5, 1, 2, 6])
            if pause is not None:
                await asyncio.sleep(pause)
                world.check()
        closing = asyncio.create_task(world.pool.close())
        await asyncio.sleep(draw.choice([0, 0.5]))
        if draw.random() < 0.3:
            closing.cancel()
        await asyncio.wait({closing})
        world.be_kind()
        tasks = [caller.task for caller in world.callers if caller.task is not None]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        ended.update(type(outcome) for outcome in outcomes if outcome is not None)
        await asyncio.sleep(2)
        stats = world.pool.stats
        assert stats.leased == stats.idle == stats.connecting == stats.closing == stats.waiting == 0, (seed, stats)
        assert all(connection.closed for connection in world.opened), seed
        reached.update(world.cancelled_in)

    for seed in range(300):
        run_in_virtual_time(walk(seed))
    assert ended == {asyncio.CancelledError, ConnectError, ConnectionLostError, PoolTimeoutError}
    assert reached == {"turn", "check", "open", "connect", "connect, answered", "goodbye", "close"}
