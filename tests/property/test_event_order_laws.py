"""However transactions, numbering and reading interleave on PostgreSQL: a reader sees each committed event once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import hypothesis
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mailmill.model import EventName
from mailmill.store import event_log, event_retention, sequencer
from mailmill.store.event_log import NewEvent

WRITERS = 4

Step = tuple[str, int]
_WRITING = st.tuples(st.sampled_from(["append", "append", "commit", "roll back"]), st.integers(0, WRITERS - 1))
_NUMBERING = st.tuples(st.sampled_from(["number", "number above", "number and die"]), st.integers(1, 4))
_READING = st.tuples(st.sampled_from(["read", "read", "remove"]), st.integers(1, 4))
STEPS = st.lists(st.one_of(_WRITING, _WRITING, _NUMBERING, _READING), min_size=10, max_size=50)
"""Rounds of them, so that commits overtake each other while somebody reads."""


@dataclass
class Log:
    """The log as one would write it down by hand."""

    open: list[list[int]] = field(default_factory=lambda: [[] for _ in range(WRITERS)])
    committed: set[int] = field(default_factory=set)
    seen: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    appended: int = 0

    @property
    def position(self) -> int:
        return self.positions[-1] if self.positions else 0


class Play:
    """One run: the steps on the database, and by hand beside it."""

    def __init__(self, writers: list[AsyncConnection], other: AsyncConnection) -> None:
        self.log = Log()
        self._writers = writers
        self._other = other
        self._newest_id = 0

    async def step(self, what: str, which: int) -> None:
        match what:
            case "append":
                await self._append(which)
            case "commit":
                await self._writers[which].commit()
                self.log.committed |= set(self.log.open[which])
                self.log.open[which] = []
            case "roll back":
                await self._writers[which].rollback()
                self.log.open[which] = []
            case "number":
                await self.number(limit=which)
            case "number above":
                await self.number(limit=which, above_id=max(0, self._newest_id - 2))
            case "number and die":
                await sequencer.number(self._other, limit=which)
                await self._other.rollback()
            case "read":
                await self.read(which)
            case "remove":
                await self._remove(which)

    async def _append(self, which: int) -> None:
        self.log.appended += 1
        self.log.open[which].append(self.log.appended)
        new = NewEvent("default", EventName.MESSAGE_NEW, 1.0, message_id=self.log.appended)
        await event_log.append(self._writers[which], [new])

    async def number(self, **options: int) -> int:
        numbered = await sequencer.number(self._other, **options)
        await self._other.commit()
        self._newest_id = max(self._newest_id, numbered.newest_id)
        return numbered.events

    async def read(self, limit: int) -> int:
        rows = await event_log.read_after(self._other, self.log.position, limit)
        await self._other.rollback()
        self.log.seen += [row.message_id or 0 for row in rows]
        self.log.positions += [row.position for row in rows]
        assert set(self.log.seen) <= self.log.committed
        return len(rows)

    async def _remove(self, limit: int) -> None:
        """What was read, and never more: a reader that is behind is told, which is another test's."""
        unread = await event_log.head(self._other) - self.log.position
        if self.log.position and not unread:
            await event_retention.prune(self._other, 2.0, limit)
        await self._other.commit()


def test_a_reader_sees_each_committed_event_once(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url, pool_size=WRITERS + 1)
    with asyncio.Runner() as runner:

        @hypothesis.settings(max_examples=60)
        @hypothesis.given(steps=STEPS)
        def run(steps: list[Step]) -> None:
            runner.run(play(engine, steps))

        try:
            run()
        finally:
            runner.run(engine.dispose())


async def play(engine: AsyncEngine, steps: list[Step]) -> None:
    async with AsyncExitStack() as opened:
        connections = [await opened.enter_async_context(engine.connect()) for _ in range(WRITERS + 1)]
        other = connections.pop()
        await other.execute(text("TRUNCATE event, delivery RESTART IDENTITY"))
        await other.execute(text("DELETE FROM setting"))
        await other.commit()
        run = Play(connections, other)
        for what, which in steps:
            await run.step(what, which)
        for which in range(WRITERS):
            await run.step("commit", which)
        while await run.number(limit=3):
            pass
        while await run.read(limit=3):
            pass
    assert sorted(run.log.seen) == sorted(run.log.committed), "each once, and none skipped"
    assert run.log.positions == sorted(set(run.log.positions)), "upwards, and no place twice"
