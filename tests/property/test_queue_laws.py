"""However the transactions of workers and reapers overlap on PostgreSQL: each row is recorded once, by its last claim,
or failed; each message is told of once; claims and reapers wait for nobody, and nobody waits for good.

The queue's model (``test_queue_model``) says what each step does, one transaction after the other; here they are open
side by side, are committed or rolled back in any order, and an outcome that must wait is left waiting meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import hypothesis
from hypothesis import strategies as st
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from harness import steps
from mailmill.store import queue
from mailmill.store.queue import Claim, Finished, NewWork
from mailmill.store.tables import account, event, message, result, work

MESSAGES = (1, 2, 3)
PROCESSORS = ("threat", "summary")
ROWS = len(MESSAGES) * len(PROCESSORS)
WORKERS = ("w1", "w2", "w3")
REAPERS = ("r1", "r2")
PATIENCE_SECONDS = 30

Move = tuple[str, str]
DRAINING = ("claim threat", "claim summary", "claim crashed", "finish")
_WORKING = st.tuples(
    st.sampled_from(("claim threat", "claim summary", "claim crashed", "finish", "finish", "commit", "roll back")),
    st.sampled_from(WORKERS),
)
_REAPING = st.tuples(st.sampled_from(("reap", "commit", "roll back")), st.sampled_from(REAPERS))
MOVES = st.lists(st.one_of(_WORKING, _WORKING, _WORKING, _REAPING), min_size=15, max_size=50)


@dataclass
class Player:
    """One process, with at most one transaction. ``held`` are the claims that it believes to hold."""

    name: str
    connection: AsyncConnection
    pid: int
    held: list[Claim] = field(default_factory=list)
    step: asyncio.Task[Any] | None = None  # of the transaction that is open
    committed: Callable[[Any], None] = lambda _answer: None


class Play:
    """One run."""

    def __init__(self, players: list[Player], looking: AsyncConnection) -> None:
        self.players = {player.name: player for player in players}
        self.recorded = 0
        self.fences: Counter[tuple[int, str, int]] = Counter()
        self._looking = looking

    async def move(self, what: str, name: str) -> None:
        player = self.players[name]
        match what:
            case "commit" | "roll back":
                if player.step is not None and player.step.done():
                    await self._end(player, commit=what == "commit")
            case _ if player.step is not None:
                pass
            case "claim threat" | "claim summary":
                await self.claim(player, [what.split()[1]], crashed=False)
            case "claim crashed":
                await self.claim(player, PROCESSORS, crashed=True)
            case "finish":
                await self.finish(player)
            case "reap":
                await self._begin(player, _reap, lambda _count: None)
                assert player.step is not None and player.step.done(), "a reaper waits for somebody"

    async def claim(self, player: Player, names: Sequence[str], *, crashed: bool) -> None:
        def committed(claims: list[Claim]) -> None:
            self.fences.update((one.message_id, one.processor, one.fence) for one in claims)
            player.held += claims

        async def claim(connection: AsyncConnection) -> list[Claim]:
            claims: list[Claim] = []
            for name in names:
                claims += await steps.claim(
                    connection,
                    processor=name,
                    worker_id=player.name,
                    limit=2,
                    deadline_seconds=3600,
                    now=100.0,
                    crashed=crashed,
                )
            return claims

        await self._begin(player, claim, committed)
        assert player.step is not None and player.step.done(), "a claim waits for somebody"

    async def finish(self, player: Player) -> None:
        if not player.held:
            return
        outcomes = [Finished(one, str(one.fence), 0.1) for one in player.held]

        def committed(report: queue.FinishReport) -> None:
            self.recorded += report.recorded
            player.held = []

        await self._begin(
            player, lambda connection: steps.finish(connection, player.name, outcomes, [], 20.0), committed
        )

    async def end_all(self) -> None:
        """Whoever does not wait commits, until nobody is left."""
        while left := [player for player in self.players.values() if player.step is not None]:
            ready = [player for player in left if player.step is not None and player.step.done()]
            assert ready, "all wait for each other"
            await self._end(ready[0], commit=True)

    async def _begin(
        self, player: Player, work_of: Callable[[AsyncConnection], Awaitable[Any]], committed: Callable[[Any], None]
    ) -> None:
        async def run() -> Any:
            return await work_of(player.connection)

        player.step, player.committed = asyncio.create_task(run()), committed
        await self._settle()

    async def _end(self, player: Player, *, commit: bool) -> None:
        assert player.step is not None
        answer = player.step.result()
        if commit:
            await player.connection.commit()
            player.committed(answer)
        else:
            await player.connection.rollback()
        player.step = None
        await self._settle()

    async def _settle(self) -> None:
        """Until each step is done, or waits for a row that another transaction has."""
        waiting = text("SELECT pid FROM pg_locks WHERE NOT granted AND pid = ANY(:pids)")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running := {each.pid for each in self.players.values() if each.step and not each.step.done()}:
                found = set(await self._looking.scalars(waiting, {"pids": list(running)}))
                await self._looking.rollback()
                if found == running:
                    break


async def _reap(connection: AsyncConnection) -> int:
    """Nobody gives signs of life: whoever holds a row is taken for dead."""
    return await queue.reap(connection, dead_after_seconds=10, now=200.0, told_at=200.0)


def test_each_row_is_recorded_once_or_failed(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url, pool_size=len(WORKERS) + len(REAPERS) + 1)
    with asyncio.Runner() as runner:

        @hypothesis.settings(max_examples=40)
        @hypothesis.given(moves=MOVES)
        def run(moves: list[Move]) -> None:
            runner.run(play(engine, moves))

        try:
            run()
        finally:
            runner.run(engine.dispose())


async def play(engine: AsyncEngine, moves: list[Move]) -> None:
    async with AsyncExitStack() as opened:
        looking = await opened.enter_async_context(engine.connect())
        await _fill(looking)
        players = []
        for name in (*WORKERS, *REAPERS):
            connection = await opened.enter_async_context(engine.connect())
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            await connection.rollback()
            players.append(Player(name, connection, pid or 0))
        run = Play(players, looking)
        for player in players:
            opened.push_async_callback(_stop, player)
        for what, name in moves:
            await run.move(what, name)
        await run.end_all()
        for _ in range(2 * ROWS):
            for name in (WORKERS[0], REAPERS[0]):
                for what in DRAINING if name in WORKERS else ("reap",):
                    await run.move(what, name)
                    await run.end_all()
        await _check(looking, run)


async def _stop(player: Player) -> None:
    if player.step is not None:
        player.step.cancel()
        await asyncio.wait((player.step,))


async def _check(looking: AsyncConnection, run: Play) -> None:
    left = (await looking.execute(select(work.c.message_id, work.c.processor, work.c.state))).all()
    assert {row.state for row in left} <= {"failed"}
    recorded = (await looking.execute(select(result.c.message_id, result.c.processor, result.c.value))).all()
    assert run.recorded == len(recorded) == ROWS - len(left), "recorded twice, or lost"
    assert all(count == 1 for count in run.fences.values()), "two claims of a row by one fence"
    newest: dict[tuple[int, str], int] = {}
    for number, name, fence in sorted(run.fences):
        newest[number, name] = fence
    for row in recorded:
        assert int(row.value) == newest[row.message_id, row.processor], "recorded by a zombie"
    told = Counter([tuple(row) for row in await looking.execute(select(event.c.event, event.c.message_id))])
    failed = Counter(row.message_id for row in left)
    assert told == Counter({("messageFailed", number): count for number, count in failed.items()}) + Counter(
        ("messageProcessed", number) for number in MESSAGES if number not in failed
    )


async def _fill(connection: AsyncConnection) -> None:
    await connection.execute(text("TRUNCATE account, message, work, result, event, worker CASCADE"))
    texts = dict.fromkeys(("subject", "from_name", "from_address", "message_id_header", "in_reply_to"), "")
    await connection.execute(
        insert(account).values(
            id=1,
            tenant_id="default",
            name="work",
            shard=0,
            backlog="process",
            state="connected",
            state_changed_at=1.0,
            added_at=1.0,
        )
    )
    for number in MESSAGES:
        await connection.execute(
            insert(message).values(
                id=number,
                account_id=1,
                sha256=number.to_bytes(32, "big"),
                size_bytes=1,
                internal_date=1.0,
                historical=False,
                stored_at=1.0,
                **texts,
            )
        )
    rows = [NewWork(number, 1, 0, name, 1, queue.NEW_MAIL) for number in MESSAGES for name in PROCESSORS]
    await queue.enqueue(connection, rows, 10.0)
    await connection.commit()
