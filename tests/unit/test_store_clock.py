"""The clock that nodes share: theirs may be hours off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailmill.errors import StoreError
from mailmill.store import dialect, store_clock
from mailmill.store.database import Database
from mailmill.store.store_clock import StoreClock

HOURS = 3600.0
REAL = time.time


@pytest.mark.parametrize("off_seconds", [5 * HOURS, -5 * HOURS])
async def test_on_postgresql_it_is_the_servers(
    postgres_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch, off_seconds: float
) -> None:
    database = await Database.open(postgres_url, data_dir=data_dir)
    clock = StoreClock(database)
    monkeypatch.setattr(time, "time", lambda: REAL() + off_seconds)
    await clock.look()
    async with database.read() as connection:
        theirs = await dialect.read_now(connection)
    assert abs(clock() - theirs) < HOURS
    # A jump between two looks is none of ours, in either direction.
    before = clock()
    monkeypatch.setattr(time, "time", lambda: REAL() - off_seconds)
    assert before <= clock() < before + HOURS
    await database.close()


class Answers:
    """Looks at a database: how long each answer is on its way, and how far the database's clock is off by it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
        self._left = list(seconds)
        self.now = 1000.0
        self.off = 0.0
        monkeypatch.setattr(dialect, "read_now", self._read_now)
        monkeypatch.setattr(store_clock, "boot_seconds", lambda: self.now)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        yield

    async def _read_now(self, _connection: object) -> float:
        told = self.now + self.off
        self.now += self._left.pop(0)
        return told

    def expect(self, *seconds: float) -> None:
        assert not self._left, "it should have looked once more"
        self._left = list(seconds)


def on(answers: Answers) -> StoreClock:
    database: Any = SimpleNamespace(alone=False, read=answers.read)
    return StoreClock(database)


async def test_a_slow_answer_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(monkeypatch, 0.0)
    clock = on(answers)
    await clock.look()
    assert clock() == answers.now
    answers.expect(50.0)
    await clock.look()
    assert clock() == answers.now, "it jumped by half of the way"
    answers.expect(0.5)
    answers.off = 100.0
    await clock.look()
    assert clock() == answers.now + 100.0 - 0.25, "a failover brings another clock"


async def test_at_the_start_the_quickest_of_three_answers_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(monkeypatch, 20.0, 4.0, 30.0)
    clock = on(answers)
    await clock.look()
    assert clock() == answers.now - 2.0
    answers.expect()


async def test_at_the_start_a_quick_answer_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(monkeypatch, 20.0, 0.5)
    clock = on(answers)
    await clock.look()
    assert clock() == answers.now - 0.25
    answers.expect()


async def test_whatever_a_look_meets_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asyncio.Event()
    failures = iter([StoreError("away"), OSError("no")])

    async def look() -> None:
        for failure in failures:
            raise failure
        looked.set()

    monkeypatch.setattr(store_clock, "LOOK_SECONDS", 0.0)
    clock = on(Answers(monkeypatch))
    monkeypatch.setattr(clock, "look", look)
    keeping = asyncio.create_task(clock.keep())
    async with asyncio.timeout(30):
        await looked.wait()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


async def test_on_sqlite_it_is_the_process_s_own(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await Database.open(f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}", data_dir=data_dir)
    clock = StoreClock(database)
    monkeypatch.setattr(time, "time", lambda: 1234.5)
    await clock.look()
    assert clock() == 1234.5
    await database.close()


async def test_while_the_database_is_away_it_goes_on(
    postgres_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await Database.open(postgres_url, data_dir=data_dir)
    clock = StoreClock(database)
    await clock.look()
    before = clock()

    def away() -> None:
        raise StoreError("away")

    monkeypatch.setattr(time, "time", lambda: REAL() + 5 * HOURS)
    monkeypatch.setattr(database, "read", away)
    with pytest.raises(StoreError, match="away"):
        await clock.look()
    assert before <= clock() < before + HOURS
    await database.close()
