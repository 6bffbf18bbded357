"""The queue against a plain model: whatever workers do and whoever dies, nothing is lost or recorded twice.

The model is a dictionary of rows. It knows nothing of SQL, fences or tags; a claim is good in it as long as nobody took
the row back. The store under test is SQLite in memory.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import event as sa_event
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from mailmill.store import event_log, queue
from mailmill.store.queue import BACKLOG, NEW_MAIL, Claim, Failed, Finished, NewWork
from mailmill.store.tables import account, message, metadata, result, tenant, work

PROCESSORS = ("threat", "summary")
WORKERS = ("w1", "w2", "w3")
MESSAGES = range(1, 7)
ACCOUNTS = (1, 2)

messages = st.sampled_from(list(MESSAGES))
processors = st.sampled_from(PROCESSORS)
workers = st.sampled_from(WORKERS)


@dataclass
class Row:
    state: str = "pending"
    priority: int = NEW_MAIL
    attempt: int = 0
    crashes: int = 0
    run_at: float = 0.0
    holder: Claim | None = None


@dataclass
class Model:
    rows: dict[tuple[int, str], Row] = field(default_factory=dict)
    results: dict[tuple[int, str], str] = field(default_factory=dict)
    processed: set[int] = field(default_factory=set)
    events: list[tuple[str, int]] = field(default_factory=list)

    def row_of(self, claim: Claim) -> Row | None:
        """The row, if it is still held under exactly this claim."""
        row = self.rows.get((claim.message_id, claim.processor))
        return row if row is not None and row.holder is claim else None


class Queue(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.claims: list[tuple[str, Claim]] = []  # every claim ever made: zombies try with old ones
        self.now = 1000.0
        self.serial = 0

    def teardown(self) -> None:
        self.runner.run(self.engine.dispose())
        self.runner.close()

    def do(self, work_of: Any) -> Any:
        """Run ``work_of(connection)`` as one transaction."""

        async def once() -> Any:
            async with self.engine.begin() as connection:
                return await work_of(connection)

        return self.runner.run(once())

    @initialize()
    def make_store(self) -> None:
        self.engine = _engine()

        async def fill(connection: Any) -> None:
            await connection.run_sync(metadata.create_all)
            await connection.execute(insert(tenant).values(id="default"))
            for account_id in ACCOUNTS:
                await connection.execute(insert(account).values(**_account(account_id)))
            for message_id in MESSAGES:
                await connection.execute(insert(message).values(**_message(message_id)))

        self.do(fill)

    # -- what callers do ----------------------------------------------------------------------------------------------

    @rule(rows=st.lists(st.tuples(messages, processors, st.sampled_from((NEW_MAIL, BACKLOG))), min_size=1, max_size=6))
    def enqueue(self, rows: list[tuple[int, str, int]]) -> None:
        new = [NewWork(one, 1 + one % 2, 0, name, 1, priority) for one, name, priority in rows]
        self.do(lambda connection: queue.enqueue(connection, new, self.now))
        for one, name, priority in rows:
            self.model.rows.setdefault((one, name), Row(priority=priority))

    @rule(worker=workers, name=processors, limit=st.integers(1, 4))
    def claim(self, worker: str, name: str, limit: int) -> None:
        claimed = self.do(
            lambda connection: queue.claim(
                connection, processor=name, worker_id=worker, limit=limit, deadline_seconds=1e9, now=self.now
            )
        )
        free = {key: row for key, row in self.model.rows.items() if key[1] == name and row.state == "pending"}
        assert len(claimed) <= limit
        assert bool(claimed) == bool(free), "whoever asks while something is free gets something"
        priorities = [free[one.message_id, name].priority for one in claimed]
        assert priorities == sorted(priorities)
        if claimed:
            assert priorities[0] == min(row.priority for row in free.values())
        for one in claimed:
            row = free[one.message_id, name]
            assert (one.attempt, one.crashes) == (row.attempt, row.crashes)
            assert row.crashes == 0 or len(claimed) == 1, "a row that crashed is run alone"
            row.state, row.holder = "processing", one
            self.claims.append((worker, one))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Outcomes for any claims a worker ever had, stale ones among them."""
        worker = data.draw(st.sampled_from(sorted({name for name, _ in self.claims})))
        mine = {(one.message_id, one.processor, one.fence): one for name, one in self.claims if name == worker}
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
                failed.append(Failed(mine[key], kind, self.now + 10 if kind == "again" else None))
        report = self.do(lambda connection: queue.finish(connection, worker, finished, failed, self.now))

        good = [done for done in finished if self.model.row_of(done.claim)]
        set_back = [failure for failure in failed if self.model.row_of(failure.claim)]
        for done in good:
            key = (done.claim.message_id, done.claim.processor)
            del self.model.rows[key]
            self.model.results[key] = done.value
            self.model.events.append(("threatFound", key[0]))
        for failure in set_back:
            row = self.model.rows[failure.claim.message_id, failure.claim.processor]
            row.state, row.holder = "waiting" if failure.retry_at else "failed", None
            row.attempt += 1
            row.run_at = failure.retry_at or row.run_at
            if not failure.retry_at:
                self.model.events.append(("messageFailed", failure.claim.message_id))
        done_with = {
            done.claim.message_id
            for done in good
            if not any(key[0] == done.claim.message_id for key in self.model.rows)
        } - self.model.processed
        self.model.processed |= done_with
        self.model.events += [("messageProcessed", one) for one in sorted(done_with)]
        assert report.recorded == len(good) + len(set_back)
        assert report.stale == len(chosen) - report.recorded
        assert set(report.processed_ids) == done_with

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        worker, one = data.draw(st.sampled_from(self.claims))
        released = self.do(lambda connection: queue.release(connection, worker, [one]))
        row = self.model.row_of(one)
        assert released == (row is not None)
        if row is not None:
            row.state, row.holder = "pending", None

    @rule(worker=workers)
    def stop_in_good_order(self, worker: str) -> None:
        async def stop(connection: Any) -> None:
            await queue.release_all(connection, worker)
            await queue.retire(connection, worker)

        self.do(stop)
        for row in self._held_by({worker}):
            row.state, row.holder = "pending", None

    @rule(living=st.sets(workers))
    def reap(self, living: set[str]) -> None:
        self.now += 100

        async def beat_and_reap(connection: Any) -> int:
            for worker in sorted(living):
                await queue.heartbeat(connection, worker, self.now)
            return await queue.reap(connection, heartbeat_before=self.now - 50, now=self.now)

        taken = self.do(beat_and_reap)
        lost = self._held_by(set(WORKERS) - living)
        assert taken == len(lost)
        for row in lost:
            row.crashes += 1
            row.holder = None
            row.state = "failed" if row.crashes > queue.MAX_CRASHES else "pending"
        self.model.events += [
            ("messageFailed", key[0])
            for key, row in self.model.rows.items()
            if any(row is one for one in lost) and row.state == "failed"
        ]

    @rule(seconds=st.sampled_from((1.0, 5.0, 30.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        next_at = self.do(lambda connection: queue.promote_due(connection, self.now))
        for row in self.model.rows.values():
            if row.state == "waiting" and row.run_at <= self.now:
                row.state = "pending"
        waiting = [row.run_at for row in self.model.rows.values() if row.state == "waiting"]
        assert next_at == min(waiting, default=None)

    @rule(only=st.none() | st.lists(messages, max_size=3), name=st.none() | processors)
    def retry(self, only: list[int] | None, name: str | None) -> None:
        brought_back = self.do(
            lambda connection: queue.retry(connection, message_ids=only, processor=name, now=self.now)
        )
        wanted = [
            (key, row)
            for key, row in self.model.rows.items()
            if row.state == "failed" and (only is None or key[0] in only) and (name is None or key[1] == name)
        ]
        assert brought_back == len(wanted)
        for key, row in wanted:
            row.state, row.attempt, row.crashes = "pending", 0, 0
            self.model.processed.discard(key[0])

    def _held_by(self, names: set[str]) -> list[Row]:
        holders = {id(one): worker for worker, one in self.claims}
        return [row for row in self.model.rows.values() if row.holder and holders[id(row.holder)] in names]

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        async def read(connection: Any) -> None:
            columns = (work.c.message_id, work.c.processor, work.c.state, work.c.attempt, work.c.crashes)
            rows = {(row[0], row[1]): tuple(row[2:]) for row in await connection.execute(select(*columns))}
            assert rows == {key: (row.state, row.attempt, row.crashes) for key, row in self.model.rows.items()}
            results = await connection.execute(select(result.c.message_id, result.c.processor, result.c.value))
            assert {(row[0], row[1]): row[2] for row in results} == self.model.results
            processed = await connection.execute(select(message.c.id).where(message.c.processed_at.is_not(None)))
            assert set(processed.scalars()) == self.model.processed
            log = await event_log.read_after(connection, 0, 1_000_000)
            assert sorted((one.event, one.message_id) for one in log) == sorted(self.model.events)
            counts = await queue.counts(connection)
            by_state = [row.state for row in self.model.rows.values()]
            assert (counts.processing, counts.failed) == (by_state.count("processing"), by_state.count("failed"))
            assert counts.pending == by_state.count("pending") + by_state.count("waiting")

        if hasattr(self, "engine"):
            self.do(read)


def _engine() -> AsyncEngine:
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
        "account_id": 1 + message_id % 2,
        "sha256": message_id.to_bytes(32, "big"),
        "size_bytes": 1,
        "internal_date": 1.0,
        "historical": False,
        "stored_at": 1.0,
    }


Queue.TestCase.settings = settings(max_examples=25, stateful_step_count=30)
TestQueue = Queue.TestCase
