"""Several processes with the role ``alert`` on one PostgreSQL share a destination, and take nothing from the living."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from harness.patience import eventually
from mailmill.alerts.dispatcher import Dispatcher
from mailmill.alerts.rules import Destination
from mailmill.model import EventName
from mailmill.store import dialect, event_log, outbox, queue, sequencer
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.event_log import NewEvent
from mailmill.store.tables import delivery, worker
from servers.webhook_receiver import Answer, Received, WebhookReceiver

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.fixture
async def nodes(postgres_url: str, tmp_path: Path) -> AsyncIterator[list[Database]]:
    """The database, as two processes open it."""
    opened = [await Database.open(postgres_url, data_dir=tmp_path / name) for name in ("a", "b")]
    yield opened
    for database in opened:
        await database.close()


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[BlobStore]:
    store = BlobStore(tmp_path / "blobs")
    yield store
    await store.close()


def hook(receiver: WebhookReceiver, concurrency: int = 3) -> Destination:
    return Destination(
        "hook", url=receiver.url, secret=SECRET, allow_private=True, timeout_seconds=20.0, concurrency=concurrency
    )


async def raise_events(database: Database, count: int) -> None:
    async with database.write() as connection:
        await event_log.append(connection, [NewEvent("default", EventName.CONNECT_ERROR, 1.0)] * count)


async def states(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(select(delivery.c.state).order_by(delivery.c.id))).scalars())


async def until_states(database: Database, wanted: list[str]) -> None:
    await eventually(lambda: states(database), lambda found: found == wanted)


@asynccontextmanager
async def dispatching(database: Database, blobs: BlobStore, name: str, *to: Destination) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(Dispatcher(database, blobs, to, name).run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


async def test_two_nodes_share_one_destination(nodes: list[Database], blobs: BlobStore) -> None:
    go = asyncio.Event()

    def answer(_request: Received) -> Answer:
        return Answer(after=go)

    async with WebhookReceiver(answer) as receiver:
        one, two = nodes
        async with dispatching(one, blobs, "one", hook(receiver)), dispatching(two, blobs, "two", hook(receiver)):
            await raise_events(one, 40)
            await receiver.wait_count(6)  # all that both may send at once: neither waits for the other
            go.set()
            await until_states(one, ["delivered"] * 40)
        assert receiver.most_open_requests == 6
        assert len({request.id for request in receiver.received}) == len(receiver.received) == 40, "each was sent once"
    async with one.read() as connection:
        alive = (await connection.execute(select(worker.c.id))).scalars().all()
    assert alive == [], "who stops in order says so"


async def test_two_planners_plan_each_event_once(nodes: list[Database], blobs: BlobStore) -> None:
    async with WebhookReceiver() as receiver:
        one, two = nodes
        async with dispatching(one, blobs, "one", hook(receiver)), dispatching(two, blobs, "two", hook(receiver)):
            async with asyncio.TaskGroup() as group:
                for index in range(60):
                    group.create_task(raise_events(nodes[index % 2], 2))
            await until_states(one, ["delivered"] * 120)
        assert len({request.id for request in receiver.received}) == len(receiver.received) == 120


async def test_a_clock_that_jumps_takes_nothing_from_the_living(
    nodes: list[Database], blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with WebhookReceiver() as receiver:
        one, two = nodes
        await raise_events(one, 1)
        async with one.write() as connection:
            await sequencer.number(connection)
        async with one.write() as connection:
            assert await outbox.plan_deliveries(connection, 10, lambda _event: ["hook"], dialect.now(connection))
            await queue.heartbeat(connection, "living", dialect.now(connection))
            claims = await outbox.claim(
                connection,
                destination="hook",
                worker_id="living",
                limit=1,
                deadline_seconds=600,
                now=dialect.now(connection),
            )
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + 86_400)
        async with dispatching(two, blobs, "two", hook(receiver)):
            await raise_events(two, 1)
            await until_states(two, ["sending", "delivered"])
        async with one.write() as connection:
            outcome = outbox.DeliveryOutcome(claims[0], delivered=False, retry_after_seconds=0.0)
            assert await outbox.finish(connection, "living", [outcome], dialect.now(connection)) == 1
        # What the one with the right clock put back is due for the one with the wrong clock, and the other way round.
        receiver.answer = lambda _request: Answer(status=503, headers={"retry-after": "0"})
        async with dispatching(two, blobs, "two", hook(receiver)):
            await receiver.wait_count(2)
        async with two.read() as connection:
            due_seconds = await outbox.next_due_seconds(connection, "hook", dialect.now(connection))
        assert due_seconds is not None
        assert due_seconds < 60
