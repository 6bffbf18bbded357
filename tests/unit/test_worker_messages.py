"""How the worker comes to the messages it works over: each is read and parsed once, within bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update
from work_rows import add_mail
from working import PATIENT, Store, a_processor, open_store, settled, subject_of, working

from mailmill.errors import StoreError
from mailmill.message_parser import ParsedMessage, parse_message
from mailmill.model import SenderHistory
from mailmill.processing import worker as worker_module
from mailmill.processing.loader import MessageLoader
from mailmill.processing.registry import Context
from mailmill.processing.worker import Worker
from mailmill.store.blobs import BlobRef
from mailmill.store.tables import message, sender

pytestmark = pytest.mark.both_databases


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[Store]:
    async with open_store(data_dir) as made:
        yield made


async def test_several_processors_parse_a_message_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def counting(raw: bytes) -> ParsedMessage:
        parsed.append(raw)
        return parse_message(raw)

    monkeypatch.setattr(worker_module, "MessageLoader", lambda *a, **k: MessageLoader(*a, parse=counting, **k))
    await store.add([f"{n}" for n in range(20)], "a", "b", "c")
    async with working(store, a_processor("a"), a_processor("b", subject_of), a_processor("c")) as made:
        await settled(made)
    assert len(parsed) == 20


@pytest.mark.parametrize("keep_raw", [True, False])
async def test_raw_bytes_stay_for_a_processor_that_looks_at_them(store: Store, keep_raw: bool) -> None:
    async def raw_of(message: ParsedMessage, _: Context) -> str:
        return message.raw.decode()

    [message_id] = await store.add(["seen"], "a")
    async with working(store, a_processor("a", raw_of, keep_raw=keep_raw)) as made:
        await settled(made)
    raw = json.loads((await store.results())[message_id, "a"])
    assert raw.startswith("Subject: seen\r\n") if keep_raw else raw == ""


async def test_big_messages_are_parsed_once_and_read_in_turns(store: Store) -> None:
    big = [f"Subject: {n}\r\n\r\n".encode() + b"line of text\r\n" * 30_000 for n in range(4)]
    async with store.database.write() as connection:
        ids = await add_mail(connection, store.blobs, big)
    loader = MessageLoader(store.database, store.blobs, read_ahead_bytes=len(big[0]) * 2 + 10)
    first = await loader.load(ids)
    assert [one.message_id for one in first if one] == ids[:2]
    one = first[0]
    assert one is not None
    left, right = await asyncio.gather(one.parsed(loader.parse), one.parsed(loader.parse))
    assert left is right
    assert left.summary.subject == "0"
    assert [message.message_id for message in await loader.load(ids[2:]) if message] == ids[2:]


async def test_the_cache_keeps_to_its_bound(store: Store) -> None:
    reads: list[int] = []

    class Counting:
        async def get_many(self, refs: Any) -> dict[bytes, bytes]:
            reads.append(len(refs))
            return await store.blobs.get_many(refs)

    ids = await store.add([f"{n}" for n in range(10)])
    size = (await MessageLoader(store.database, store.blobs).load(ids[:1]))[0].size_bytes  # type: ignore[union-attr]
    loader = MessageLoader(store.database, Counting(), cache_bytes=5 * size)
    await loader.load(ids)
    await loader.load(ids[5:])
    assert reads == [10]
    await loader.load(ids[:5])
    assert reads == [10, 5]


async def test_sender_history_is_read_for_those_who_ask_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    read = MessageLoader.histories

    async def counting(self: MessageLoader, message_ids: Sequence[int]) -> dict[int, SenderHistory]:
        asked.append(list(message_ids))
        return await read(self, message_ids)

    async def told(_message: ParsedMessage, context: Context) -> Any:
        return context.history.received

    monkeypatch.setattr(MessageLoader, "histories", counting)
    ids = await store.add(["one", "two"], "curious", "plain")
    async with store.database.write() as connection:
        await connection.execute(update(message).values(from_address="anna@farm.example", recipients="", answers=""))
        await connection.execute(
            insert(sender).values(
                account_id=1, address_key="example.farm@anna", name="", received=5, received_since=0.5
            )
        )
    curious = a_processor("curious", told, wants_history=True)
    async with working(store, curious, a_processor("plain", told)) as made:
        await settled(made)
    assert sorted(one for some in asked for one in some) == ids
    assert await store.results() == {
        (one, name): value for one in ids for name, value in (("curious", "4"), ("plain", "0"))
    }


async def test_a_history_that_cannot_be_read_costs_no_attempt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read = MessageLoader.histories
    failures = [StoreError("the database is away")]

    async def failing(self: MessageLoader, message_ids: Sequence[int]) -> dict[int, SenderHistory]:
        if failures:
            raise failures.pop()
        return await read(self, message_ids)

    monkeypatch.setattr(MessageLoader, "histories", failing)
    [one] = await store.add(["one"], "curious")
    async with working(store, a_processor("curious", wants_history=True, max_attempts=1)) as made:
        await settled(made)
    assert await store.results() == {(one, "curious"): '"one"'}


async def test_damaged_raw_bytes_fail_their_message_alone(store: Store) -> None:
    class Damaged:
        async def get_many(self, refs: Sequence[BlobRef]) -> dict[bytes, bytes]:
            contents = await store.blobs.get_many(refs)
            if any(b"damaged" in content for content in contents.values()):
                raise StoreError("segment ab/1.seg is damaged")
            return contents

    await store.add(["well", "damaged", "fine"], "a")
    made = Worker(store.database, Damaged(), [a_processor("a", max_attempts=1)], "w", settings=PATIENT)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    await settled(made)
    stop.set()
    await task
    assert set(await store.results()) == {(1, "a"), (3, "a")}
    (row,) = await store.rows()
    assert "segment ab/1.seg is damaged" in row.last_error


async def test_messages_that_cannot_be_read_now_cost_no_attempt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real_load, failures = MessageLoader.load, []

    async def load(self: MessageLoader, message_ids: Sequence[int]) -> Any:
        if len(failures) < 2:
            failures.append(True)
            raise StoreError("the database failed")
        return await real_load(self, message_ids)

    monkeypatch.setattr(MessageLoader, "load", load)
    await store.add(["a"], "a")
    async with working(store, a_processor("a", max_attempts=1)) as made:
        await settled(made)
    assert await store.results() == {(1, "a"): '"a"'}
