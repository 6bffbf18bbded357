"""Rows that crashed run alone and in a child; whatever a child does costs its message an attempt, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import runner_jobs
from sqlalchemy import update
from working import Store, a_processor, open_store, settled, working

from mailmill.message_parser import ParsedMessage
from mailmill.processing import worker as worker_module
from mailmill.processing.loader import MessageLoader
from mailmill.store.tables import work

pytestmark = pytest.mark.both_databases


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[Store]:
    async with open_store(data_dir) as made:
        yield made


async def crashed(store: Store, ids: Sequence[int]) -> None:
    async with store.database.write() as connection:
        await connection.execute(update(work).where(work.c.message_id.in_(ids)).values(crashes=1))


async def test_a_row_that_crashed_runs_while_nothing_else_does(store: Store) -> None:
    running: set[int] = set()
    beside: dict[int, set[int]] = {}

    async def watches(message: Any, context: Any) -> None:
        running.add(context.message_id)
        for one in running:
            beside.setdefault(one, set()).update(running - {one})
        for _ in range(20):
            await asyncio.sleep(0)
        running.discard(context.message_id)

    ids = await store.add([f"{n}" for n in range(60)], "a")
    suspects = ids[5:40:7]
    await crashed(store, suspects)
    async with working(store, a_processor("a", watches, concurrency=4)) as made:
        await settled(made)
    assert sorted(number for number, _ in await store.results()) == ids
    assert {one: beside[one] for one in suspects} == {one: set() for one in suspects}
    assert any(beside[one] for one in ids), "the others did run side by side"


async def test_rows_that_crashed_and_others_take_turns(store: Store) -> None:
    order: list[int] = []

    async def notes(message: Any, context: Any) -> None:
        order.append(context.message_id)

    ids = await store.add([f"{n}" for n in range(40)], "a")
    suspects = set(ids[:20])
    await crashed(store, sorted(suspects))
    async with working(store, a_processor("a", notes, concurrency=2)) as made:
        await settled(made)
    kinds = [one in suspects for one in order[:10]]
    assert True in kinds and False in kinds, "neither waits for all of the other"
    assert sorted(order) == ids


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_row_that_crashed_runs_in_a_child(store: Store, kind: str) -> None:
    ids = await store.add(["one", "two"], "a")
    await crashed(store, ids[:1])
    function = runner_jobs.where_it_ran_async if kind == "async" else runner_jobs.where_it_ran
    async with working(store, a_processor("a", function)) as made:
        await settled(made)
    found = {number: json.loads(value) for (number, _), value in (await store.results()).items()}
    assert found[1]["pid"] != os.getpid() == found[2]["pid"]
    assert found[1]["subject"] == "one"


async def test_a_poison_message_is_contained_after_one_crash(store: Store) -> None:
    """Its processor kills the process it runs in: alone in a child it costs attempts, and the service stands."""
    ids = await store.add(["poison", "good"], "a")
    await crashed(store, ids[:1])
    made = a_processor("a", runner_jobs.kill_self_over_poison, "thread", max_attempts=1)
    async with working(store, made) as one:
        await settled(one)
    assert set(await store.results()) == {(2, "a")}
    (row,) = await store.rows()
    assert (row.state, row.attempt, row.crashes) == ("failed", 1, 1)
    assert "died (signal 9)" in row.last_error


async def test_a_message_whose_parsing_kills_is_parsed_in_the_child(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(raw: bytes) -> ParsedMessage:
        raise AssertionError("parsed in the service")

    monkeypatch.setattr(worker_module, "MessageLoader", lambda *a, **k: MessageLoader(*a, parse=never, **k))
    ids = await store.add(["x"], "a")
    await crashed(store, ids)
    async with working(store, a_processor("a", runner_jobs.where_it_ran)) as made:
        await settled(made)
    assert set(await store.results()) == {(1, "a")}


@pytest.mark.parametrize(
    ("subject", "error"),
    [("kill", "died (signal 9)"), ("hang", "took longer than"), ("eat", "wanted more memory")],
)
async def test_a_child_that_misbehaves_costs_one_attempt(
    store: Store, subject: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With jitter the second try may be over before the first was looked at.
    monkeypatch.setattr("mailmill.processing.pump.retry_after", lambda **_: 3600.0)
    await store.add([subject, "good"], "a")
    processor = a_processor(
        "a", runner_jobs.misbehave, "process", timeout_seconds=30 if subject != "hang" else 3, memory_bytes=256 << 20
    )
    async with working(store, processor) as made:
        await settled(made)
        (row,) = await store.rows()
        assert (row.state, row.attempt, row.crashes) == ("waiting", 1, 0)
        assert error in row.last_error
        assert set(await store.results()) == {(2, "a")}
        async with store.database.write() as connection:
            await connection.execute(update(work).values(run_at=0.0, state="pending"))
        await settled(made)
    assert set(await store.results()) == {(1, "a"), (2, "a")}
