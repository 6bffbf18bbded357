"""The store fails the worker: a round is repeated, nothing is recorded twice, and what is at fault fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from work_rows import events
from working import Store, a_processor, open_store, settled, working

from mailmill.errors import StorageFullError, StoreError
from mailmill.processing import worker as worker_module
from mailmill.processing.loader import MessageLoader
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.store import queue, queue_exchange, queue_front
from mailmill.store.database import Database

pytestmark = pytest.mark.both_databases


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[Store]:
    async with open_store(data_dir) as made:
        yield made


def tear_a_commit(monkeypatch: pytest.MonkeyPatch, database: Database, now: Callable[[], bool]) -> list[bool]:
    """The first transaction that is committed while ``now()`` says so stands, although its caller sees an error; what
    is returned tells that there was one."""
    real_write, real_transact = database.write, database.transact
    torn: list[bool] = []

    def tear() -> None:
        if now() and not torn:
            torn.append(True)
            raise StoreError("the connection was lost while committing")

    @asynccontextmanager
    async def write(**options: Any) -> AsyncIterator[Any]:
        async with real_write(**options) as connection:
            yield connection
        tear()

    async def transact(step: Any) -> Any:
        answer = await real_transact(step)
        tear()
        return answer

    monkeypatch.setattr(database, "write", write)
    monkeypatch.setattr(database, "transact", transact)
    return torn


async def test_an_outcome_that_cannot_be_written_fails_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await store.add([f"mail {n}" for n in range(5)], "a")
    finish = queue_exchange.finish_within

    def choosy(connection: Any, worker_id: str, finished: Any, failed: Any, now: float) -> Any:
        if any(one.claim.message_id == ids[2] for one in finished):
            raise ValueError("this value fits into no column")
        return finish(connection, worker_id, finished, failed, now)

    monkeypatch.setattr(queue_exchange, "finish_within", choosy)
    async with working(store, a_processor("a")) as made:
        await settled(made)
    assert sorted(number for number, _ in await store.results()) == [*ids[:2], *ids[3:]]
    [row] = await store.rows()
    assert (row.message_id, row.state) == (ids[2], "failed")
    assert "this value fits into no column" in row.last_error
    async with store.database.read() as connection:
        assert ("messageFailed", ids[2]) in await events(connection)


async def test_a_full_disk_fails_no_outcome(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await store.add(["one", "two"], "a")
    finish, refusals = queue_exchange.finish_within, 4

    def full(*arguments: Any) -> Any:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise StorageFullError("the disk is full")
        return finish(*arguments)

    monkeypatch.setattr(worker_module, "_MAX_BACK_OFF_SECONDS", 0.01)
    monkeypatch.setattr(queue_exchange, "finish_within", full)
    async with working(store, a_processor("a")) as made:
        await settled(made)
    assert sorted(number for number, _ in await store.results()) == ids
    assert refusals == 0


async def test_a_failed_round_is_repeated_and_nothing_recorded_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at first; then a commit stands although its caller saw an error."""
    real_finish, finishes = queue_exchange.finish_within, 0

    def finish(*arguments: Any) -> Any:
        nonlocal finishes
        finishes += 1
        if finishes == 1:
            raise StorageFullError("the database cannot grow")
        return real_finish(*arguments)

    monkeypatch.setattr(queue_exchange, "finish_within", finish)
    torn = tear_a_commit(monkeypatch, store.database, lambda: finishes == 2)
    runs = []

    async def once(message: Any, context: Any) -> str:
        runs.append(context.message_id)
        return "ok"

    await store.add(["x"], "a")
    async with working(store, a_processor("a", once)) as made:
        await settled(made)
        assert torn == [True]
    assert runs == [1]
    assert await store.results() == {(1, "a"): '"ok"'}
    async with store.database.read() as connection:
        assert await events(connection) == [("messageProcessed", 1)]


async def test_what_a_failed_round_had_claimed_comes_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was claimed, so the place that the claim reached is not to be believed."""
    for name, value in (("BELIEVED_SECONDS", 1e6), ("LONGEST_SECONDS", 1e6), ("LOOKING_SHARE", 1e-9)):
        monkeypatch.setattr(queue_front, name, value)
    monkeypatch.setattr(worker_module, "_MAX_BACK_OFF_SECONDS", 0.01)
    real_claim, failed = queue_exchange.claim_within, []

    def claim(*arguments: Any) -> Any:
        claims = real_claim(*arguments)
        if claims and not failed:
            failed.append(claims)
            raise StoreError("the connection was lost")
        return claims

    monkeypatch.setattr(queue_exchange, "claim_within", claim)
    ran = []

    async def note(message: Any, context: Any) -> None:
        ran.append(context.message_id)

    ids = await store.add([f"mail {n}" for n in range(4)], "a")
    async with working(store, a_processor("a", note, concurrency=2)) as made:
        await settled(made)
    assert [len(claims) for claims in failed] == [2]
    assert ran == ids


async def test_a_pump_that_breaks_is_started_again_with_what_it_held(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_load, broken = MessageLoader.load, []

    async def load(self: MessageLoader, message_ids: Sequence[int]) -> Any:
        if not broken:
            broken.append(True)
            raise RuntimeError("a mistake of ours")
        return await real_load(self, message_ids)

    monkeypatch.setattr(MessageLoader, "load", load)
    await store.add(["a", "b", "c"], "a")
    async with working(store, a_processor("a")) as made:
        await settled(made)
    assert len(await store.results()) == 3


async def test_a_store_of_many_that_is_gone_at_the_start_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is restarted just when a node starts: the node must not end for it."""
    real, refused = queue.promote_due, 0

    async def promote_due(*arguments: Any) -> Any:
        nonlocal refused
        refused += 1
        if refused <= 2:
            raise StoreError("the connection was lost")
        return await real(*arguments)

    monkeypatch.setattr(queue, "promote_due", promote_due)
    await store.add(["one"], "a")
    settings = WorkerSettings(threads=2, children=1, poll_seconds=3600.0, alone=False)
    async with working(store, a_processor("a"), settings=settings) as made:
        await settled(made)
    assert len(await store.results()) == 1
    assert refused == 3


async def test_a_store_of_its_own_that_cannot_be_written_at_the_start_ends_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def promote_due(*_: Any) -> Any:
        raise StorageFullError("the disk is full")

    monkeypatch.setattr(queue, "promote_due", promote_due)
    worker = Worker(store.database, store.blobs, [a_processor("a")], "w", settings=WorkerSettings(alone=True))
    with pytest.raises(StorageFullError):
        await worker.run(asyncio.Event())


async def test_a_claim_whose_commit_was_not_answered_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_claim = queue_exchange.claim_within
    lost: list[queue.Claim] = []

    def claim(*arguments: Any) -> Any:
        claims = real_claim(*arguments)
        lost.extend([] if torn else claims)
        return claims

    monkeypatch.setattr(queue_exchange, "claim_within", claim)
    torn = tear_a_commit(monkeypatch, store.database, lambda: bool(lost))
    ids = await store.add(["x", "y"], "a")
    async with working(store, a_processor("a", concurrency=2)) as made:
        await settled(made)
        assert torn == [True]
    assert [one.message_id for one in lost] == ids
    assert sorted(number for number, _ in await store.results()) == ids


async def test_one_that_waited_long_for_its_turn_proves_its_life_before_it_claims(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given up for dead meanwhile, it would lose at once what it claims, and a crash would be counted."""
    real_heartbeat, real_claim, happened = queue.heartbeat, queue_exchange.claim_within, []

    async def heartbeat(*arguments: Any) -> Any:
        happened.append("proven")
        return await real_heartbeat(*arguments)

    def claim(*arguments: Any) -> Any:
        happened.append("claim")
        return real_claim(*arguments)

    answers = iter([True, False])  # before the transaction, and in it
    monkeypatch.setattr(Worker, "_is_proven", lambda _worker: next(answers, happened[:1] == ["proven"]))
    async with working(store, a_processor("a")) as made:
        await settled(made)
        happened.clear()
        answers = iter([True, False])
        monkeypatch.setattr(queue, "heartbeat", heartbeat)
        monkeypatch.setattr(queue_exchange, "claim_within", claim)
        await store.add(["x"], "a")
        await settled(made)
    assert len(await store.results()) == 1
    assert happened[:2] == ["proven", "claim"]
