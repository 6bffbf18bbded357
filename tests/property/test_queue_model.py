"""The queue against a plain model: whatever workers and operators do and whoever dies, nothing is lost, nothing is
recorded twice, and nothing is stuck.

The model is a dictionary of rows. It knows nothing of SQL, fences or tags; a claim is good in it as long as nobody took
the row back. ``summary`` may have two rows of an account in processing; which rows are throttled the model does not
predict, it checks that each is for a reason. The same on both databases: time passes by moving what the rows say back,
so that the database's own clock stays the one that is compared with.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

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
from sqlalchemy import event as sa_event
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from harness import steps
from mailmill.store import dialect, processors, queue
from mailmill.store.queue import BACKLOG, NEW_MAIL, Claim, Failed, Finished, NewWork
from mailmill.store.queue_front import Front
from mailmill.store.tables import account, event, message, metadata, result, tenant, work, worker

PROCESSORS = ("threat", "summary")
LIMITS = {"threat": None, "summary": 2}
WORKERS = ("w1", "w2", "w3")
MESSAGES = range(1, 9)
ACCOUNTS = (1, 2)
MAX_ERRORS = 10
NOW = 1000.0  # what is recorded; nothing compares it

messages = st.sampled_from(list(MESSAGES))
processor_names = st.sampled_from(PROCESSORS)
workers = st.sampled_from(WORKERS)
ids = st.none() | st.lists(messages, min_size=1, max_size=3)


def account_of(message_id: int) -> int:
    return 1 + message_id % 2


Key = tuple[int, str]


@dataclass
class Row:
    state: str = "pending"
    priority: int = NEW_MAIL
    attempt: int = 0
    crashes: int = 0
    wait_seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    holder: Claim | None = None


@dataclass
class Model:
    rows: dict[Key, Row] = field(default_factory=dict)
    results: dict[Key, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    events: list[tuple[str, int]] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)

    def row_of(self, claim: Claim) -> Row | None:
        """The row, if it is still held under exactly this claim."""
        row = self.rows.get((claim.message_id, claim.processor))
        return row if row is not None and row.holder is claim else None

    def busy(self, name: str) -> Counter[int]:
        return Counter(
            account_of(key[0]) for key, row in self.rows.items() if key[1] == name and row.state == "processing"
        )

    def complete(self, message_ids: set[int]) -> set[int]:
        """Of those that lost a row, the ones that have no work left are processed; told each time it comes to that."""
        done = {one for one in message_ids if not any(key[0] == one for key in self.rows)}
        self.events += [("messageProcessed", one) for one in sorted(done)]
        return done


class Queue(RuleBasedStateMachine):
    engine: AsyncEngine
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.claims: list[tuple[str, Claim]] = []  # every claim ever made: zombies try with old ones
        self.serial = 0
        self.fronts: dict[tuple[str, str], Front] = {}  # by worker and processor; they are never doubted by the clock

    def do(self, work_of: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
        """Run ``work_of(connection)`` as one transaction."""

        async def once() -> Any:
            async with self.engine.begin() as connection:
                return await work_of(connection)

        return self.runner.run(once())

    @initialize()
    def empty_the_store(self) -> None:
        async def fill(connection: AsyncConnection) -> None:
            for table in reversed(metadata.sorted_tables):
                await connection.execute(table.delete())
            await connection.execute(insert(tenant).values(id="default"))
            for account_id in ACCOUNTS:
                await connection.execute(insert(account).values(**_account(account_id)))
            for message_id in MESSAGES:
                await connection.execute(insert(message).values(**_message(message_id)))

        self.do(fill)

    # -- what callers do ----------------------------------------------------------------------------------------------

    @rule(
        rows=st.lists(
            st.tuples(messages, processor_names, st.sampled_from((NEW_MAIL, BACKLOG))), min_size=1, max_size=8
        )
    )
    def enqueue(self, rows: list[tuple[int, str, int]]) -> None:
        new = [NewWork(one, account_of(one), 0, name, 1, priority) for one, name, priority in rows]
        self.serial += 1
        self.do(lambda connection: queue.enqueue(connection, new, NOW + self.serial))
        for one, name, priority in rows:
            self.model.rows.setdefault((one, name), Row(priority=priority))

    @rule(worker_id=workers, name=processor_names, limit=st.integers(1, 4), crashed=st.booleans())
    def claim_by_front(self, worker_id: str, name: str, limit: int, crashed: bool) -> None:
        front = self.fronts.setdefault((worker_id, name), Front(lambda: 0.0))
        self.claim(worker_id, name, limit, crashed, front)

    @rule(worker_id=workers, name=processor_names, limit=st.integers(1, 4), crashed=st.booleans())
    def claim(self, worker_id: str, name: str, limit: int, crashed: bool, front: Front | None = None) -> None:
        claimed = self._claim(worker_id, name, limit, crashed=crashed, front=front)
        wanted = {
            key: row
            for key, row in self.model.rows.items()
            if key[1] == name and row.state == "pending" and bool(row.crashes) == crashed
        }
        busy, most = self.model.busy(name), LIMITS[name]
        free = {key: row for key, row in wanted.items() if most is None or busy[account_of(key[0])] < most}
        assert len(claimed) <= (1 if crashed else limit)
        if name in self.model.paused:
            assert not claimed
        elif not crashed or most is None:
            assert bool(claimed) == bool(free), "whoever asks while something is free gets something"
        priorities = [wanted[one.message_id, name].priority for one in claimed]
        assert priorities == sorted(priorities)
        if claimed and front is None:
            assert priorities[0] == min(row.priority for row in free.values())
        for one in claimed:
            row = free[one.message_id, name]
            assert (one.attempt, one.crashes) == (row.attempt, row.crashes)
            row.state, row.holder = "processing", one
            self.claims.append((worker_id, one))
        if most is not None:
            self._learn_throttled(name, most, claimed=bool(claimed) or bool(wanted))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Outcomes for any claims a worker ever had, stale ones among them."""
        worker_id = data.draw(st.sampled_from(sorted({name for name, _ in self.claims})))
        mine = {(one.message_id, one.processor, one.fence): one for name, one in self.claims if name == worker_id}
        chosen = data.draw(
            st.lists(st.sampled_from(sorted(mine)), min_size=1, max_size=5, unique_by=lambda key: key[:2])
        )
        finished, failed = [], []
        for key in chosen:
            kind = data.draw(st.sampled_from(("finished", "again", "for good")))
            if kind == "finished":
                self.serial += 1
                finished.append(Finished(mine[key], str(self.serial), 0.1, ("threatFound",)))
            else:
                failed.append(Failed(mine[key], kind, 10.0 if kind == "again" else None))
        self._finish(worker_id, finished, failed)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        worker_id, one = data.draw(st.sampled_from(self.claims))
        released = self.do(lambda connection: queue.release(connection, worker_id, [one]))
        row = self.model.row_of(one)
        assert released == (row is not None)
        if row is not None:
            row.state, row.holder = "pending", None

    @rule(data=st.data(), zombie=workers, heir=workers, name=processor_names, given_back=st.booleans())
    def a_zombie_comes_back(self, data: st.DataObject, zombie: str, heir: str, name: str, given_back: bool) -> None:
        """What it held was taken from it and claimed anew, perhaps by itself, before it tells what became of it."""
        self.claim(zombie, name, 3, False)
        old = [
            one for holder, one in self.claims if holder == zombie and one.processor == name and self.model.row_of(one)
        ]
        if not old:
            return
        if given_back:
            self.do(lambda connection: queue.release_all(connection, zombie))
            for row in self._held_by({zombie}):
                row.state, row.holder = "pending", None
        else:
            self.reap(set(WORKERS) - {zombie})
        self.claim(heir, name, 3, not given_back)
        outcomes = {one: data.draw(st.sampled_from(("finished", "again", "for good"))) for one in old}
        self._finish(
            zombie,
            [Finished(one, '"zombie"', 0.1, ("threatFound",)) for one, kind in outcomes.items() if kind == "finished"],
            [
                Failed(one, kind, 10.0 if kind == "again" else None)
                for one, kind in outcomes.items()
                if kind != "finished"
            ],
        )

    @rule(worker_id=workers)
    def stop_in_good_order(self, worker_id: str) -> None:
        async def stop(connection: AsyncConnection) -> None:
            await queue.release_all(connection, worker_id)
            await queue.retire(connection, worker_id)

        self.do(stop)
        for row in self._held_by({worker_id}):
            row.state, row.holder = "pending", None

    @rule(living=st.sets(workers))
    def reap(self, living: set[str]) -> None:
        async def beat_and_reap(connection: AsyncConnection) -> int:
            await connection.execute(update(worker).values(heartbeat_at=worker.c.heartbeat_at - 100))
            for worker_id in sorted(living):
                await queue.heartbeat(connection, worker_id, dialect.now(connection))
            return await queue.reap(connection, dead_after_seconds=50, now=dialect.now(connection), told_at=NOW)

        taken = self.do(beat_and_reap)
        lost = self._held_by(set(WORKERS) - living)
        assert taken == len(lost)
        self._crash(lost)

    @precondition(lambda self: any(row.state == "processing" for row in self.model.rows.values()))
    @rule(data=st.data())
    def a_deadline_passes(self, data: st.DataObject) -> None:
        key = data.draw(
            st.sampled_from(sorted(key for key, row in self.model.rows.items() if row.state == "processing"))
        )

        async def pass_and_reap(connection: AsyncConnection) -> int:
            for worker_id in WORKERS:
                await queue.heartbeat(connection, worker_id, dialect.now(connection))
            of_row = (work.c.message_id == key[0], work.c.processor == key[1])
            await connection.execute(update(work).where(*of_row).values(deadline_at=1.0))
            return await queue.reap(connection, dead_after_seconds=50, now=dialect.now(connection), told_at=NOW)

        assert self.do(pass_and_reap) == 1
        self._crash([self.model.rows[key]])

    @rule(seconds=st.sampled_from((1.0, 5.0, 30.0)))
    def time_passes(self, seconds: float) -> None:
        async def pass_and_promote(connection: AsyncConnection) -> tuple[int, float | None]:
            waiting = update(work).where(work.c.state == "waiting")
            await connection.execute(waiting.values(run_at=work.c.run_at - seconds))
            return await queue.promote_due(connection, dialect.now(connection))

        came_due, next_seconds = self.do(pass_and_promote)
        due = 0
        for row in self.model.rows.values():
            if row.state == "waiting":
                row.wait_seconds -= seconds
                if row.wait_seconds <= 0:
                    row.state = "pending"
                    due += 1
        assert came_due == due
        assert (next_seconds is None) == (not any(row.state == "waiting" for row in self.model.rows.values()))
        assert next_seconds is None or 0 < next_seconds <= 10

    # -- what operators do --------------------------------------------------------------------------------------------

    @rule(name=processor_names)
    def pause(self, name: str) -> None:
        changed = self.do(lambda connection: processors.pause(connection, name, NOW))
        assert changed == (name not in self.model.paused)
        self.model.paused.add(name)

    @rule(name=processor_names)
    def resume(self, name: str) -> None:
        changed = self.do(lambda connection: processors.resume(connection, name))
        assert changed == (name in self.model.paused)
        self.model.paused.discard(name)

    @rule(only=ids, name=st.none() | processor_names)
    def retry(self, only: list[int] | None, name: str | None) -> None:
        brought_back = self.do(lambda connection: queue.retry(connection, message_ids=only, processor=name, now=NOW))
        wanted = self._named(only, name, failed=True)
        assert brought_back == len(wanted)
        for _, row in wanted:
            row.state, row.attempt, row.crashes = "pending", 0, 0

    @rule(only=ids, name=st.none() | processor_names, only_failed=st.booleans())
    def drop(self, only: list[int] | None, name: str | None, only_failed: bool) -> None:
        dropped = self.do(
            lambda connection: queue.drop(
                connection, message_ids=only, processor=name, only_failed=only_failed, now=NOW
            )
        )
        wanted = self._named(only, name, failed=only_failed)
        assert dropped == len(wanted)
        for key, _ in wanted:
            del self.model.rows[key]
        self.model.complete({key[0] for key, _ in wanted})

    @rule()
    def upkeep_lets_in(self) -> None:
        self.do(lambda connection: queue.let_in_all(connection, LIMITS))
        self._learn_let_in()
        for name, most in LIMITS.items():
            of_name = [(account_of(key[0]), row) for key, row in self.model.rows.items() if key[1] == name]
            for account_id in ACCOUNTS:
                count = Counter(row.state for owner, row in of_name if owner == account_id)
                if count["throttled"]:
                    assert most is not None
                    assert count["pending"] >= most - count["processing"], "room, and nobody was let in"

    @rule()
    def all_is_done_at_last(self) -> None:
        """Nothing is stuck: resumed, let in and claimed until there is no more, every row comes to an end."""
        for name in PROCESSORS:
            self.resume(name)
        self.reap(set())
        self.time_passes(30.0)
        for _ in range(200):
            if all(row.state == "failed" for row in self.model.rows.values()):
                break
            for name in PROCESSORS:
                for crashed in (True, False):
                    before = len(self.claims)
                    self.claim("w1", name, 4, crashed)
                    self._finish("w1", [Finished(one, "1", 0.1) for _, one in self.claims[before:]], [])
            self.upkeep_lets_in()
        assert all(row.state == "failed" for row in self.model.rows.values())

    # -- how the model follows ----------------------------------------------------------------------------------------

    def _claim(
        self, worker_id: str, name: str, limit: int, *, crashed: bool, front: Front | None = None
    ) -> list[Claim]:
        most = LIMITS[name]

        async def claim(connection: AsyncConnection) -> list[Claim]:
            how: dict[str, Any] = {
                "processor": name,
                "worker_id": worker_id,
                "limit": limit,
                "deadline_seconds": 1e6,
                "now": dialect.now(connection),
                "crashed": crashed,
            }
            if most is None:
                return await steps.claim(connection, front=front, **how)
            await queue.take_turns(connection, [name])
            claims, _more = await queue.claim_limited(connection, account_limit=most, **how)
            return claims

        claims: list[Claim] = self.do(claim)
        return claims

    def _finish(self, worker_id: str, finished: list[Finished], failed: list[Failed]) -> None:
        """As a worker does: in the turns of the limited processors, and those of the same accounts let in after."""
        every = [*(done.claim for done in finished), *(failure.claim for failure in failed)]

        async def finish(connection: AsyncConnection) -> Any:
            limited = sorted({one.processor for one in every if LIMITS[one.processor] is not None})
            await queue.take_turns(connection, limited)
            report = await steps.finish(connection, worker_id, finished, failed, NOW)
            for name in limited:
                accounts = {one.account_id for one in every if one.processor == name}
                await queue.let_in(connection, name, accounts, LIMITS[name] or 0)
            return report

        report = self.do(finish)
        good = [done for done in finished if self.model.row_of(done.claim)]
        set_back = [failure for failure in failed if self.model.row_of(failure.claim)]
        for done in good:
            key = (done.claim.message_id, done.claim.processor)
            row = self.model.rows.pop(key)
            self.model.results[key] = (done.value, tuple(row.errors))
            self.model.events += [(name, key[0]) for name in done.announce]
        for failure in set_back:
            row = self.model.rows[failure.claim.message_id, failure.claim.processor]
            row.state, row.holder = "waiting" if failure.retry_after_seconds else "failed", None
            row.attempt += 1
            row.wait_seconds = failure.retry_after_seconds or 0.0
            row.errors = [*row.errors, "attempt"][-MAX_ERRORS:]
            if not failure.retry_after_seconds:
                self.model.events.append(("messageFailed", failure.claim.message_id))
        done_with = self.model.complete({done.claim.message_id for done in good})
        assert report.recorded == len(good) + len(set_back)
        assert report.stale == len(every) - report.recorded
        assert set(report.processed_ids) == done_with
        self._learn_let_in()

    def _crash(self, lost: list[Row]) -> None:
        for row in lost:
            row.crashes += 1
            row.holder = None
            row.errors = [*row.errors, "crash"][-MAX_ERRORS:]
            row.state = "failed" if row.crashes > queue.MAX_CRASHES else "pending"
        self.model.events += [
            ("messageFailed", key[0])
            for key, row in self.model.rows.items()
            if any(row is one for one in lost) and row.state == "failed"
        ]

    def _states(self) -> dict[Key, str]:
        async def read(connection: AsyncConnection) -> dict[Key, str]:
            rows = await connection.execute(select(work.c.message_id, work.c.processor, work.c.state))
            return {(row.message_id, row.processor): row.state for row in rows}

        states: dict[Key, str] = self.do(read)
        return states

    def _learn_throttled(self, name: str, most: int, *, claimed: bool) -> None:
        """A claim may set aside pending rows, of accounts that have enough."""
        busy = self.model.busy(name)
        for key, state in self._states().items():
            row = self.model.rows[key]
            if key[1] == name and state == "throttled" and row.state != "throttled":
                assert claimed and row.state == "pending"
                assert busy[account_of(key[0])] == most, "set aside without a reason"
                row.state = "throttled"

    def _learn_let_in(self) -> None:
        for key, state in self._states().items():
            row = self.model.rows[key]
            if row.state == "throttled" and state == "pending":
                row.state = "pending"

    def _named(self, only: list[int] | None, name: str | None, *, failed: bool) -> list[tuple[Key, Row]]:
        return [
            (key, row)
            for key, row in self.model.rows.items()
            if (row.state == "failed" or not failed)
            and (only is None or key[0] in only)
            and (name is None or key[1] == name)
        ]

    def _held_by(self, names: set[str]) -> list[Row]:
        holders = {id(one): worker_id for worker_id, one in self.claims}
        return [row for row in self.model.rows.values() if row.holder and holders[id(row.holder)] in names]

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def no_account_has_more_in_processing_than_it_may(self) -> None:
        for name, most in LIMITS.items():
            assert most is None or all(count <= most for count in self.model.busy(name).values())

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        async def read(connection: AsyncConnection) -> None:
            columns = (work.c.state, work.c.attempt, work.c.crashes, work.c.priority, work.c.errors)
            rows = await connection.execute(select(work.c.message_id, work.c.processor, *columns))
            assert {(row[0], row[1]): (*row[2:6], _kinds(row.errors)) for row in rows} == {
                key: (row.state, row.attempt, row.crashes, row.priority, tuple(row.errors))
                for key, row in self.model.rows.items()
            }
            results = await connection.execute(
                select(result.c.message_id, result.c.processor, result.c.value, result.c.errors)
            )
            assert {(row[0], row[1]): (row.value, _kinds(row.errors)) for row in results} == self.model.results
            log = await connection.execute(select(event.c.event, event.c.message_id))
            written = Counter((row.event, row.message_id) for row in log)
            extra = written - Counter(self.model.events)
            assert not extra, f"told of what did not happen: {extra}"
            missing = Counter(self.model.events) - written
            assert not missing, f"not told: {missing}"
            assert await processors.paused(connection) == self.model.paused
            counts = await queue.counts(connection)
            by_state = Counter(row.state for row in self.model.rows.values())
            assert (counts.processing, counts.failed) == (by_state["processing"], by_state["failed"])
            assert counts.pending == by_state["pending"] + by_state["waiting"] + by_state["throttled"]

        self.do(read)


def _kinds(errors: str) -> tuple[str, ...]:
    return tuple(one["kind"] for one in json.loads(errors))


def _engine(url: str) -> AsyncEngine:
    """SQLite in memory: the file's durability is not what is tested here."""
    if not url.startswith("sqlite"):
        return create_async_engine(url)
    engine = create_async_engine("sqlite+aiosqlite://")

    @sa_event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def _account(account_id: int) -> dict[str, Any]:
    return {
        "id": account_id,
        "tenant_id": "default",
        "name": f"account{account_id}",
        "shard": 0,
        "backlog": "process",
        "state": "connected",
        "state_changed_at": 1.0,
        "added_at": 1.0,
    }


def _message(message_id: int) -> dict[str, Any]:
    texts = dict.fromkeys(("subject", "from_name", "from_address", "message_id_header", "in_reply_to"), "")
    return texts | {
        "id": message_id,
        "account_id": account_of(message_id),
        "sha256": message_id.to_bytes(32, "big"),
        "size_bytes": 1,
        "internal_date": 1.0,
        "historical": False,
        "stored_at": 1.0,
    }


def test_the_queue_does_as_the_model(database_url: str) -> None:
    with asyncio.Runner() as runner:
        engine = _engine(database_url)

        async def make_tables() -> None:
            async with engine.begin() as connection:
                await connection.run_sync(metadata.create_all)

        runner.run(make_tables())

        class OnThisDatabase(Queue):
            pass

        OnThisDatabase.engine, OnThisDatabase.runner = engine, runner
        try:
            run_state_machine_as_test(
                OnThisDatabase, settings=settings(max_examples=settings().max_examples // 3, stateful_step_count=25)
            )
        finally:
            runner.run(engine.dispose())
