from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from store_mail import NOW, Store, arrival, new_store, open_database

from mailmill.errors import ConflictError, NotFoundError
from mailmill.model import Uid
from mailmill.store import requests
from mailmill.store.blobs import BlobRef
from mailmill.store.request_rows import Failure, NewRequest, Place, RequestKind, RequestRow, Step, Upload
from mailmill.uid_set import UidSet

INBOX = Place("INBOX", 7, Uid(1))


@pytest.fixture
async def store(data_dir: Path, database_url: str) -> AsyncIterator[Store]:
    async with open_database(data_dir, database_url) as database:
        made = await new_store(database, "Archive")
        await made.apply([arrival(1, "one"), arrival(2, "two")])
        yield made


async def ask(
    store: Store, kind: str = "flags", message_id: int | None = 1, place: Place | None = INBOX, **what: Any
) -> RequestRow:
    new = NewRequest("default", store.account.id, RequestKind(kind), message_id, place, **what)
    async with store.database.write() as connection:
        return await requests.add(connection, new, NOW)


async def now(store: Store, row: RequestRow) -> RequestRow:
    async with store.database.read() as connection:
        return await requests.get(connection, row.id)


async def due(store: Store, at: float = NOW) -> list[int]:
    async with store.database.read() as connection:
        return [row.id for row in await requests.due(connection, store.account.id, at)]


async def begin(store: Store, row: RequestRow, step: Step = Step.STORE, **what: Any) -> None:
    async with store.database.write() as connection:
        await requests.begin(connection, [row], step, retry_at={row.id: NOW + 5}, **what)


async def test_a_request_is_kept_as_it_was_asked(store: Store) -> None:
    add, remove = frozenset({r"\Seen", "todo"}), frozenset({r"\Flagged"})
    row = await ask(store, add=add, remove=remove, target_path="Archive")
    assert (row.add, row.remove, row.place, row.target_path, row.attempts) == (add, remove, INBOX, "Archive", 0)
    assert await now(store, row) == row
    upload = Upload(b"\x01" * 32, frozenset({r"\Draft"}), 12.5, "<a@b>")
    appended = await ask(store, "append", None, None, target_path="Archive", upload=upload)
    assert (await now(store, appended)).upload == upload


async def test_of_each_message_the_oldest_is_due(store: Store) -> None:
    first, second = await ask(store), await ask(store)
    other = await ask(store, message_id=2, place=Place("INBOX", 7, Uid(2)))
    uploads = [await ask(store, "append", None, None, target_path="Archive") for _ in range(2)]
    assert await due(store) == [first.id, other.id, *(row.id for row in uploads)]
    async with store.database.write() as connection:
        await requests.defer(connection, first, Failure("refused", "not now"), NOW + 60, 1)
        await requests.finish(connection, other, NOW)
    # What is put off holds up its own message only.
    assert await due(store) == [row.id for row in uploads]
    async with store.database.read() as connection:
        assert await requests.next_due_at(connection, store.account.id, NOW) == NOW + 60
        assert await requests.count_open(connection) == {store.account.id: 4}
    assert (await due(store, NOW + 60))[0] == first.id
    async with store.database.write() as connection:
        await requests.fail(connection, first, Failure("conflict", "gone"), NOW)
    assert (await due(store))[0] == second.id


async def test_a_step_is_committed_with_its_mark(store: Store) -> None:
    row = await ask(store, "move", target_path="Archive")
    await begin(store, row, Step.MOVE, target=(9, 41))
    held = await now(store, row)
    assert (held.state, held.step, held.attempts, held.run_at) == ("applying", "move", 1, NOW + 5)
    assert (held.target_uid_validity, held.target_uid_next, held.target_uid) == (9, 41, None)
    await begin(store, held, Step.MOVE, target=(9, 50))
    assert ((await now(store, row)).attempts, (await now(store, row)).target_uid_next) == (2, 50)


async def test_requests_behind_a_move_go_with_the_message(store: Store) -> None:
    row = await ask(store, "move", target_path="Archive")
    behind = await ask(store)
    elsewhere = await ask(store, place=Place("Archive", 9, Uid(5)))
    async with store.database.write() as connection:
        await requests.finish(connection, row, NOW, made=(9, Uid(41)), note="well")
    held = await now(store, row)
    assert (held.state, held.target_uid_validity, held.target_uid, held.note) == ("done", 9, 41, "well")
    assert (await now(store, behind)).place == Place("Archive", 9, Uid(41))
    assert (await now(store, elsewhere)).place == Place("Archive", 9, Uid(5))


async def test_a_copy_takes_no_request_with_it(store: Store) -> None:
    row = await ask(store, "copy", target_path="Archive")
    behind = await ask(store)
    async with store.database.write() as connection:
        await requests.finish(connection, row, NOW, made=(9, Uid(41)))
    assert (await now(store, behind)).place == INBOX


async def test_a_key_stands_for_one_request(store: Store) -> None:
    seen = frozenset({r"\Seen"})
    row = await ask(store, add=seen, idempotency_key="k")
    # Where the message was by then is no part of what was asked.
    assert (await ask(store, add=seen, idempotency_key="k", place=Place("Archive", 9, Uid(1)))).id == row.id
    for other in ({"add": frozenset({r"\Flagged"})}, {"add": seen, "message_id": 2}, {"kind": "delete"}):
        with pytest.raises(ConflictError):
            await ask(store, idempotency_key="k", **other)
    assert (await ask(store, add=seen)).id != row.id


async def test_uids_that_others_made_are_taken(store: Store) -> None:
    first = await ask(store, "append", None, None, target_path="Archive")
    second = await ask(store, "append", None, None, target_path="Archive")
    async with store.database.write() as connection:
        await requests.finish(connection, first, NOW, made=(9, Uid(41)))
    async with store.database.read() as connection:
        assert await requests.taken_uids(connection, second, "Archive", 9) == UidSet([41])
        assert await requests.taken_uids(connection, second, "Archive", 8) == UidSet()
        assert await requests.taken_uids(connection, first, "Archive", 9) == UidSet()


async def test_what_a_message_is_known_by(store: Store) -> None:
    row = await ask(store)
    async with store.database.read() as connection:
        content = await requests.content_of(connection, row)
    assert content is not None
    assert content.size_bytes == 3
    upload = Upload(b"\x02" * 32, message_id_header="<x@y>")
    appended = await ask(store, "append", None, None, target_path="Archive", upload=upload)
    async with store.database.read() as connection:
        assert await requests.content_of(connection, appended) is None
    ref = BlobRef(upload.sha256, "ab/1.seg", 5, 77)
    async with store.database.write() as connection:
        await requests.keep_blob(connection, ref, NOW)
        await requests.keep_blob(connection, ref, NOW)
    async with store.database.read() as connection:
        found = await requests.content_of(connection, appended)
        assert found is not None
        assert (found.size_bytes, found.message_id_header) == (77, "<x@y>")
        assert await requests.blob_of(connection, upload) == ref


async def test_requests_are_listed_and_pruned(store: Store) -> None:
    rows = [await ask(store) for _ in range(3)]
    async with store.database.write() as connection:
        await requests.finish(connection, rows[0], NOW)
        await requests.fail(connection, rows[1], Failure("refused", "no\x00", "do"), NOW + 10)
    async with store.database.read() as connection:
        listed = await requests.list_requests(connection, store.account.id)
        assert [row.id for row in listed] == [row.id for row in reversed(rows)]
        [failed] = await requests.list_requests(connection, store.account.id, state="failed")
        assert (failed.error_code, failed.error, failed.error_hint) == ("refused", "no\ufffd", "do")
        with pytest.raises(NotFoundError):
            await requests.get(connection, rows[0].id, account_id=store.account.id + 1)
    async with store.database.write() as connection:
        assert await requests.prune(connection, NOW + 5) == 1
    with pytest.raises(NotFoundError):
        await now(store, rows[0])
    # An id is never given twice.
    assert (await ask(store)).id == rows[2].id + 1


async def test_a_new_request_gives_a_hint(store: Store) -> None:
    with store.database.wake.requests.subscribe() as hints:
        await ask(store)
        assert await hints.wait(0)
