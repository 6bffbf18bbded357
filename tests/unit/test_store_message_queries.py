from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, update
from store_mail import NOW, Store, arrival, flags, new_store, open_database

from mailmill.errors import InvalidRequestError, NotFoundError
from mailmill.store import messages
from mailmill.store.messages import MessagePage
from mailmill.store.tables import result, work


@pytest.fixture
async def store(data_dir: Path, database_url: str) -> AsyncIterator[Store]:
    async with open_database(data_dir, database_url) as database:
        yield await new_store(database, "Archive")


async def page(store: Store, **asked: Any) -> MessagePage:
    async with store.database.read() as connection:
        return await messages.list_messages(connection, **asked)


async def subjects(store: Store, **asked: Any) -> list[str]:
    return [line.message.subject for line in (await page(store, **asked)).messages]


async def add_result(store: Store, message_id: int, processor: str, value: Any, version: int = 1) -> None:
    async with store.database.write() as connection:
        await connection.execute(
            insert(result).values(
                message_id=message_id, processor=processor, version=version, value=json.dumps(value), attempts=1,
                seconds=0.5, finished_at=NOW,
            )
        )  # fmt: skip


async def pages(store: Store, **asked: Any) -> list[str]:
    """All lines, two a page, with a message that comes in between."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        got = await page(store, page_size=2, cursor=cursor, **asked)
        found += [line.message.subject for line in got.messages]
        if got.next_cursor is None:
            return found
        if cursor is None:
            await store.apply([arrival(100, "newest", internal_date=9e9)])
        cursor = got.next_cursor


async def test_all_messages_newest_first_each_once(store: Store) -> None:
    await store.apply([arrival(uid, f"{uid}", internal_date=float(1000 - uid % 3)) for uid in range(1, 8)])
    await store.apply([arrival(1, "1"), arrival(2, "gone")], path="Archive")
    await store.apply(expunged=[2], path="Archive")
    assert await pages(store) == ["6", "3", "7", "4", "1", "5", "2"]
    assert (await subjects(store))[0] == "newest"
    assert await subjects(store, account_id=store.account.id + 1) == []


async def test_a_mailbox_lists_its_places_by_uid(store: Store) -> None:
    await store.apply([arrival(1, "a", "\\Seen", internal_date=5.0), arrival(2, "b"), arrival(3, "a"), arrival(9, "x")])
    await store.apply(expunged=[9])
    await store.apply([arrival(4, "b")], path="Archive")
    assert await pages(store, path="INBOX", account_id=store.account.id) == ["a", "b", "a"]
    got = await page(store, path="INBOX", account_id=store.account.id)
    shown = [(line.place.path, line.place.uid, line.place.flags) for line in got.messages if line.place]
    assert shown == [("INBOX", 100, ()), ("INBOX", 3, ()), ("INBOX", 2, ()), ("INBOX", 1, ("\\Seen",))]
    assert await subjects(store, path="nowhere") == []


async def test_filters_by_status_and_verdict(store: Store) -> None:
    await store.apply([arrival(uid, name) for uid, name in enumerate(("p", "r", "c", "f"), 1)])
    async with store.database.write() as connection:
        await connection.execute(delete(work).where(work.c.message_id == 3))
        for message_id, state in ((2, "processing"), (4, "failed")):
            await connection.execute(
                update(work).where(work.c.message_id == message_id, work.c.processor == "threat").values(state=state)
            )
    for status, names in {"pending": ["p"], "processing": ["r"], "completed": ["c"], "failed": ["f"]}.items():
        assert await subjects(store, status=status) == names
    await add_result(store, 3, "threat", {"verdict": "clean", "score": 1})
    await add_result(store, 3, "threat", {"verdict": "malicious", "score": 90}, version=2)
    await add_result(store, 4, "threat", {"verdict": "clean"})
    await add_result(store, 1, "other", {"verdict": "malicious"})
    assert await subjects(store, verdict="malicious") == ["c"]
    assert await subjects(store, verdict="clean", status="failed") == ["f"]
    async with store.database.read() as connection:
        assert await messages.count_verdicts(connection) == {"clean": 1, "suspicious": 0, "malicious": 1}


async def test_listings_carry_the_newest_results(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    await add_result(store, 1, "summary", "old", version=1)
    await add_result(store, 1, "summary", "new", version=10)
    await add_result(store, 1, "category", {"category": "receipt"})
    await add_result(store, 1, "invoice", {"total": 5})
    [line] = (await page(store)).messages
    assert line.results == {"summary": "new", "category": {"category": "receipt"}}


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!!", "W10", "WzEsMiwzLDQsNV0", "WyJhIiwxXQ", "W05hTiwgMV0", "\ud800", "é"]
)
async def test_a_cursor_that_is_not_ours(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidRequestError, match="cursor"):
        await page(store, cursor=cursor)


@pytest.mark.parametrize("asked", [{"status": "odd"}, {"verdict": "odd"}])
async def test_a_filter_that_does_not_exist(store: Store, asked: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError) as error:
        await page(store, **asked)
    assert "one of" in error.value.hint


async def test_one_message_with_all_about_it(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    await store.apply([arrival(7, "mail", "\\Seen")], path="Archive", now=NOW + 1)
    await store.apply(flag_changes=[flags(1, "\\Flagged")])
    await add_result(store, 1, "summary", "old")
    await add_result(store, 1, "summary", "new", version=2)
    async with store.database.read() as connection:
        found = await messages.get_message(connection, 1, account_id=store.account.id)
        assert (found.account, found.subject, found.status, found.blob.segment) == (
            "me",
            "mail",
            "pending",
            "ab/0-0.seg",
        )
        places = (await messages.places_of(connection, [1, 99]))[1]
        assert [(where.path, where.uid, where.flags) for where in places] == [
            ("INBOX", 1, ("\\Flagged",)),
            ("Archive", 7, ("\\Seen",)),
        ]
        results = await messages.results_of(connection, 1)
        assert [(one.processor, one.version, one.value) for one in results] == [
            ("summary", 2, "new"),
            ("summary", 1, "old"),
        ]
        assert [(one.processor, one.state) for one in await messages.work_of(connection, 1)] == [
            ("summary", "pending"),
            ("threat", "pending"),
        ]
        assert list(await messages.get_messages(connection, [1, 2])) == [1]
        with pytest.raises(NotFoundError):
            await messages.get_message(connection, 2)
        with pytest.raises(NotFoundError):
            await messages.get_message(connection, 1, account_id=store.account.id + 1)


async def test_counts(store: Store) -> None:
    await store.apply([arrival(1, "a"), arrival(2, "b"), arrival(3, "a")])
    await store.apply([arrival(1, "a")], path="Archive")
    await store.apply(expunged=[2])
    async with store.database.write() as connection:
        await messages.confirm_deleted(connection, store.account.id, NOW + 1, NOW + 1)
        assert await messages.count_messages(connection) == {store.account.id: 1}
        inbox, archive = (await store.mailbox()).id, (await store.mailbox("Archive")).id
        assert await messages.count_places(connection, store.account.id) == {inbox: 2, archive: 1}
        assert await messages.referenced_segments(connection) == {"ab/0-0.seg"}
