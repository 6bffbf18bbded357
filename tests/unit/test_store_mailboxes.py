from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_mail import NOW, Store, arrival, new_store, open_database

from mailmill.errors import NotFoundError
from mailmill.model import MailboxRef
from mailmill.store import messages
from mailmill.store.messages import Cursor, MailboxRow, StaleBatchError

INBOX = MailboxRef("INBOX", "/")


@pytest.fixture
async def store(data_dir: Path, database_url: str) -> AsyncIterator[Store]:
    async with open_database(data_dir, database_url) as database:
        yield await new_store(database)


async def listed(store: Store, *refs: MailboxRef) -> list[MailboxRow]:
    async with store.database.write() as connection:
        return await messages.apply_mailbox_list(connection, store.account.id, refs, NOW)


async def test_new_changed_and_missing_mailboxes(store: Store) -> None:
    start = await store.head()
    sent = MailboxRef("Sent", "/", "\\Sent")
    rows = await listed(store, INBOX, sent)
    assert [row.ref for row in rows] == [INBOX, sent]
    assert await listed(store, INBOX, sent) == rows
    plain = MailboxRef("Sent", ".", None, selectable=False)
    assert [row.ref for row in await listed(store, INBOX, plain)] == [INBOX, plain]
    assert [row.path for row in await listed(store, INBOX)] == ["INBOX"]
    assert await store.events(start) == [("mailboxNew", None, "Sent", {}), ("mailboxDeleted", None, "Sent", {})]


async def test_an_empty_list_is_not_believed(store: Store) -> None:
    start = await store.head()
    assert [row.path for row in await listed(store)] == ["INBOX"]
    assert await store.events(start) == []


async def test_a_deleted_mailbox_orphans_its_messages_and_starts_anew(store: Store) -> None:
    await listed(store, INBOX, MailboxRef("Old"))
    await store.apply([arrival(1, "mail")], path="Old")
    old = await store.mailbox("Old")
    start = await store.head()
    await listed(store, INBOX)
    assert await store.events(start) == [
        ("messageUpdated", 1, "Old", {"removed": ["Old"], "uid": 1}),
        ("mailboxDeleted", None, "Old", {}),
    ]
    with pytest.raises(NotFoundError):
        await store.mailbox("Old")
    for attempt in (store.apply([arrival(2, "late")], row=old), _reset(store, old, 8)):
        with pytest.raises(StaleBatchError, match="deleted"):
            await attempt
    again = next(row for row in await listed(store, INBOX, MailboxRef("Old")) if row.path == "Old")
    assert (again.id, again.cursor) == (old.id, Cursor())
    await store.apply([arrival(1, "mail")], path="Old")
    assert await store.rows("SELECT uid, expunged_at FROM place") == [(1, None)]


async def test_odd_paths_are_made_safe(store: Store) -> None:
    [_, row] = await listed(store, INBOX, MailboxRef("a\x00\ud800", "\x00"))
    assert row.path == "a\ufffd\ufffd"
    assert [row.path for row in await listed(store, INBOX, MailboxRef("a\x00\ud800", "\x00"))] == ["INBOX", row.path]


async def _reset(store: Store, row: MailboxRow, uid_validity: int) -> MailboxRow:
    async with store.database.write() as connection:
        return await messages.reset_mailbox(connection, row, uid_validity, NOW)


async def test_a_new_generation_deletes_nothing_first(store: Store) -> None:
    await store.apply([arrival(1, "stays"), arrival(2, "twice"), arrival(3, "twice"), arrival(4, "goes")])
    start = await store.head()
    row = await _reset(store, await store.mailbox(), 8)
    assert (row.cursor, row.has_old_places) == (Cursor(uid_validity=8), True)
    assert await _reset(store, row, 8) == row
    assert await store.events(start) == [("mailboxReset", None, "INBOX", {"uidValidity": 8, "previousUidValidity": 7})]
    start = await store.head()
    outcome = await store.apply(
        [arrival(uid, text) for uid, text in enumerate(("stays", "twice", "twice", "twice"), 11)]
    )
    assert (outcome.new, outcome.updated) == (0, 1)
    row = await store.mailbox()
    async with store.database.write() as connection:
        assert await messages.expunge_old_generation(connection, row, NOW) == 1
    # Renumbered places are not told; only what was added or removed besides is.
    assert await store.events(start) == [
        ("messageUpdated", 2, "INBOX", {"added": ["INBOX"], "uid": 14}),
        ("messageUpdated", 3, "INBOX", {"removed": ["INBOX"], "uid": 4}),
    ]
    row = await store.mailbox()
    assert not row.has_old_places
    assert await store.rows("SELECT uid, message_id FROM place WHERE expunged_at IS NULL ORDER BY 1") == [
        (11, 1), (12, 2), (13, 2), (14, 2)
    ]  # fmt: skip


async def test_a_lower_generation_is_a_new_one_too(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    row = await _reset(store, await store.mailbox(), 6)
    assert row.has_old_places
    await store.apply([arrival(1, "mail")], cursor=Cursor(6, 2))
    assert not (await store.mailbox()).has_old_places


async def test_the_first_generation_is_not_a_reset(store: Store) -> None:
    start = await store.head()
    assert (await _reset(store, await store.mailbox(), 8)).cursor.uid_validity == 8
    assert await store.events(start) == []


async def test_an_old_generation_is_expunged_only_by_the_current_one(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    old = await store.mailbox()
    await _reset(store, old, 8)
    with pytest.raises(StaleBatchError):
        async with store.database.write() as connection:
            await messages.expunge_old_generation(connection, old, NOW)
