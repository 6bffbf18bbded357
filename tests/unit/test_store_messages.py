"""What a sync batch does to the store (``message_batch``, ``message_places``, ``message_deletion``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_mail import NOW, PLAN, Store, arrival, content, flags, known, new_store, open_database

from mailmill.errors import StorageFullError, StoreError
from mailmill.model import Backlog, MessageMeta, Uid
from mailmill.store import messages
from mailmill.store.messages import Arrival, Cursor, StaleBatchError, WorkPlan
from mailmill.store.tables import event
from mailmill.uid_set import UidSet


@pytest.fixture
async def store(data_dir: Path, database_url: str) -> AsyncIterator[Store]:
    async with open_database(data_dir, database_url) as database:
        yield await new_store(database, "Archive")


async def everything(store: Store) -> dict[str, list[tuple[object, ...]]]:
    columns = dict.fromkeys(("message", "place", "work", "blob", "parked"), "*")
    # Its number the sequencer gives, a moment later.
    columns["event"] = ", ".join(column.name for column in event.c if column.name != "seq")
    found = {table: await store.rows(f"SELECT {columns[table]} FROM {table} ORDER BY 1, 2, 3") for table in columns}
    return found | {"id_block": await store.rows("SELECT * FROM id_block"), "mailbox": await store.rows(
        "SELECT id, uid_validity, uid_next, messages, highest_mod_seq, uncovered FROM mailbox"
    )}  # fmt: skip


# -- arrivals ---------------------------------------------------------------------------------------------------------


async def test_a_new_message_is_stored_with_its_work_and_event(store: Store) -> None:
    start = await store.head()
    meta = MessageMeta(Uid(5), frozenset({"\\Seen", "$Junk"}), 99, 1000.0, 3, "E1", "T1", "G1")
    told = content("hi", from_name="A", from_address="a@b", date_header=5.0, message_id_header="<1>", in_reply_to="<0>")
    cursor = Cursor(7, 6, 1, 99, UidSet.parse("1:3"), 0, 3.0)
    outcome = await store.apply([Arrival(meta, told)], cursor=cursor)
    assert (outcome.new, outcome.updated, outcome.expunged, outcome.message_ids) == (1, 0, 0, (1,))
    columns = "id, email_id, x_gm_msgid, thread_id, size_bytes, internal_date, date_header, subject, from_name"
    assert await store.rows(
        f"SELECT {columns}, from_address, message_id_header, in_reply_to, historical FROM message"
    ) == [(1, "E1", "G1", "T1", 2, 1000.0, 5.0, "hi", "A", "a@b", "<1>", "<0>", 0)]
    assert await store.rows("SELECT uid_validity, uid, message_id, flags, mod_seq, expunged_at FROM place") == [
        (7, 5, 1, "$Junk \\Seen", 99, None)
    ]
    assert await store.rows("SELECT message_id, processor, version, state, priority FROM work ORDER BY 2") == [
        (1, "summary", 2, "pending", 0),
        (1, "threat", 1, "pending", 0),
    ]
    assert await store.events(start) == [("messageNew", 1, "INBOX", {"uid": 5})]
    row = await store.mailbox()
    assert (row.cursor, row.synced_at) == (cursor, NOW)


async def test_a_batch_that_is_replayed_changes_nothing(store: Store) -> None:
    await store.apply([arrival(1, "old"), arrival(2, "gone", "\\Seen")])
    row = await store.mailbox()
    batch = {
        "arrivals": [arrival(3, "a"), arrival(4, "a"), arrival(5, "old"), known(6, 2)],
        "flag_changes": [flags(1, "\\Seen"), flags(3, "\\Flagged"), flags(99, "\\Seen")],
        "expunged": [2, 77],
        "cursor": Cursor(7, 7, 5, None, UidSet([90])),
        "row": row,
        "parked": [(Uid(90), "broken", NOW + 60)],
    }
    outcome = await store.apply(**batch)
    assert (outcome.new, outcome.updated, outcome.expunged) == (1, 4, 1)
    before = await everything(store)
    before["parked"] = [(*parked[:4], parked[4] + 1, *parked[5:]) for parked in before["parked"]]
    outcome = await store.apply(**batch)
    assert (outcome.new, outcome.updated, outcome.expunged, outcome.message_ids) == (0, 0, 0, ())
    assert await everything(store) == before


async def test_the_same_raw_mail_twice_is_one_message_in_two_places(store: Store) -> None:
    start = await store.head()
    outcome = await store.apply([arrival(1, "same"), arrival(2, "same"), arrival(3, "other")])
    assert outcome.message_ids == (1, 2)
    assert await store.rows("SELECT uid, message_id FROM place ORDER BY 1") == [(1, 1), (2, 1), (3, 2)]
    assert await store.events(start) == [
        ("messageNew", 1, "INBOX", {"uid": 1}),
        ("messageUpdated", 1, "INBOX", {"added": ["INBOX"], "uid": 2}),
        ("messageNew", 2, "INBOX", {"uid": 3}),
    ]
    assert await store.rows("SELECT count(*) FROM work") == [(4,)]


@pytest.mark.parametrize("by", ["content", "id"])
async def test_a_further_place_is_an_update_not_a_new_message(store: Store, by: str) -> None:
    await store.apply([arrival(1, "mail")])
    start = await store.head()
    second = arrival(9, "mail") if by == "content" else known(9, 1)
    outcome = await store.apply([second], path="Archive")
    assert (outcome.new, outcome.updated) == (0, 1)
    assert await store.events(start) == [("messageUpdated", 1, "Archive", {"added": ["Archive"], "uid": 9})]
    assert await store.rows("SELECT count(*) FROM work") == [(2,)]


async def test_content_known_from_another_place_keeps_its_first_blob(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    again = content("mail")
    again = replace(again, blob=replace(again.blob, segment="cd/other.seg"))
    await store.apply([Arrival(MessageMeta(Uid(2), frozenset()), again)], path="Archive")
    assert await store.rows("SELECT segment FROM blob") == [("ab/0-0.seg",)]


async def test_a_message_learns_the_ids_its_server_gives_later(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    await store.apply([arrival(1, "mail", email_id="E", x_gm_msgid="G")], path="Archive")
    async with store.database.read() as connection:
        assert await messages.find_known(connection, store.account.id, ["E", "no"], ["G"]) == {"E": 1, "G": 1}
        assert await messages.find_known(connection, store.account.id + 1, ["E"], ["G"]) == {}


async def test_a_known_message_that_is_not_there_refuses_the_batch(store: Store) -> None:
    before = await everything(store)
    with pytest.raises(StaleBatchError, match="no message 5"):
        await store.apply([arrival(1, "mail"), known(2, 5)])
    assert await everything(store) == before


async def test_text_that_a_database_refuses_is_made_safe(store: Store) -> None:
    bad = "a\x00b\ud800c"
    good = "a\ufffdb\ufffdc"
    told = content(
        "x", from_name=bad, from_address=bad, message_id_header=bad, in_reply_to=bad, date_header=float("nan")
    )
    meta = MessageMeta(Uid(1), frozenset({bad}), None, float("inf"), email_id=bad, thread_id=bad, x_gm_msgid=bad)
    await store.apply([Arrival(meta, replace(told, subject=bad))], parked=[(Uid(2), bad, NOW)])
    [row] = await store.rows(
        "SELECT subject, from_name, from_address, message_id_header, in_reply_to, email_id, thread_id, x_gm_msgid, "
        "(SELECT flags FROM place), (SELECT reason FROM parked), internal_date, date_header FROM message"
    )
    assert row == (*[good] * 10, NOW, None)


# -- history ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backlog", "historical", "priorities"),
    [(Backlog.STORE, True, []), (Backlog.PROCESS, True, [10]), (Backlog.DELIVER, False, [0])],
)
async def test_the_backlog_policy(store: Store, backlog: Backlog, historical: bool, priorities: list[int]) -> None:
    start = await store.head()
    work = WorkPlan((("threat", 1),), backlog)
    cursor = Cursor(7, 11, historical_below=10)
    await store.apply([arrival(9, "old"), arrival(10, "new")], cursor=cursor, work=work)
    assert await store.rows("SELECT historical FROM message ORDER BY id") == [(historical,), (False,)]
    assert await store.rows(f"SELECT historical FROM event WHERE id > {start} ORDER BY id") == [(historical,), (False,)]
    assert await store.rows("SELECT priority FROM work WHERE message_id = 1") == [(level,) for level in priorities]
    assert await store.rows("SELECT priority FROM work WHERE message_id = 2") == [(0,)]


async def test_what_happens_to_old_mail_is_news(store: Store) -> None:
    cursor = Cursor(7, 11, historical_below=10)
    await store.apply([arrival(9, "old"), arrival(8, "old")], cursor=cursor)
    start = await store.head()
    await store.apply(flag_changes=[flags(9, "\\Seen")], expunged=[8], cursor=cursor)
    await store.apply([arrival(1, "old")], path="Archive")
    assert await store.rows(f"SELECT event, historical FROM event WHERE id > {start}") == [("messageUpdated", 0)] * 3


# -- flags ------------------------------------------------------------------------------------------------------------


async def test_flags(store: Store) -> None:
    await store.apply([arrival(1, "a", "\\Seen"), arrival(2, "b")])
    start = await store.head()
    same, changed, unknown = flags(1, "\\Seen"), flags(2, "b", "a"), flags(3, "\\Seen")
    outcome = await store.apply(flag_changes=[same, changed, unknown, MessageMeta(Uid(2))])
    assert outcome.updated == 1
    assert await store.events(start) == [("messageUpdated", 2, "INBOX", {"flags": ["a", "b"], "uid": 2})]
    async with store.database.read() as connection:
        mailbox = (await store.mailbox()).id
        assert await messages.flags_of(connection, mailbox, 7) == {1: "\\Seen", 2: "a b"}
        assert await messages.flags_of(connection, mailbox, 7, UidSet([2, 5])) == {2: "a b"}
        assert await messages.flags_of(connection, mailbox, 8) == {}


async def test_an_arrival_we_hold_already_brings_its_flags(store: Store) -> None:
    await store.apply([arrival(1, "a")])
    start = await store.head()
    await store.apply([arrival(1, "a", "\\Seen")])
    assert await store.events(start) == [("messageUpdated", 1, "INBOX", {"flags": ["\\Seen"], "uid": 1})]


# -- expunges, moves, deletion ----------------------------------------------------------------------------------------


async def test_a_move_keeps_the_message(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    start = await store.head()
    outcome = await store.apply(expunged=[1])
    assert outcome.expunged == 1
    async with store.database.read() as connection:
        assert await messages.orphan_count(connection, store.account.id) == 1
    await store.apply([arrival(4, "mail")], path="Archive")
    async with store.database.write() as connection:
        assert await messages.orphan_count(connection, store.account.id) == 0
        assert await messages.confirm_deleted(connection, store.account.id, NOW + 100, NOW + 100) == 0
    assert await store.events(start) == [
        ("messageUpdated", 1, "INBOX", {"removed": ["INBOX"], "uid": 1}),
        ("messageUpdated", 1, "Archive", {"added": ["Archive"], "uid": 4}),
    ]
    assert await store.rows("SELECT id, deleted_at FROM message") == [(1, None)]


async def test_deletion_waits_for_its_confirmation(store: Store) -> None:
    await store.apply([arrival(1, "mail"), arrival(2, "stays")])
    await store.apply(expunged=[1], now=NOW + 10)
    start = await store.head()
    for before, deleted in ((NOW + 10, 0), (NOW + 11, 1), (NOW + 12, 0)):
        async with store.database.write() as connection:
            assert await messages.confirm_deleted(connection, store.account.id, before, NOW + 20) == deleted
    assert await store.events(start) == [("messageDeleted", 1, "INBOX", {})]
    assert await store.rows("SELECT id, deleted_at FROM message ORDER BY id") == [(1, NOW + 20), (2, None)]
    async with store.database.read() as connection:
        assert await messages.orphan_count(connection, store.account.id) == 0


async def test_another_accounts_orphans_are_left_alone(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    await store.apply(expunged=[1])
    async with store.database.write() as connection:
        assert await messages.confirm_deleted(connection, store.account.id + 1, NOW + 9, NOW + 9) == 0
        assert await messages.orphan_count(connection, store.account.id) == 1


@pytest.mark.parametrize("uid", [1, 8])
async def test_a_deleted_message_that_reappears_lives_again(store: Store, uid: int) -> None:
    await store.apply([arrival(1, "mail")])
    await store.apply(expunged=[1])
    async with store.database.write() as connection:
        await messages.confirm_deleted(connection, store.account.id, NOW + 1, NOW + 1)
    start = await store.head()
    outcome = await store.apply([arrival(uid, "mail")])
    assert (outcome.new, outcome.updated) == (0, 1)
    assert await store.events(start) == [("messageUpdated", 1, "INBOX", {"added": ["INBOX"], "uid": uid})]
    assert await store.rows("SELECT id, deleted_at FROM message") == [(1, None)]


async def test_an_expunged_uid_that_is_there_after_all_is_revived(store: Store) -> None:
    await store.apply([arrival(1, "mail", "\\Seen")])
    await store.apply(expunged=[1])
    await store.apply([arrival(1, "mail", "\\Flagged")])
    assert await store.rows("SELECT uid, flags, expunged_at FROM place") == [(1, "\\Flagged", None)]


async def test_many_and_scattered_uids(store: Store) -> None:
    await store.apply([arrival(uid, f"mail {uid}") for uid in range(1, 1201)])
    odd = range(1, 1201, 2)
    assert (await store.apply(flag_changes=[flags(uid, "\\Seen") for uid in odd])).updated == 600
    assert (await store.apply(expunged=[*odd, *range(900, 1000)])).expunged == 650
    async with store.database.read() as connection:
        living = await messages.living_uids(connection, (await store.mailbox()).id, 7)
    assert living == UidSet(range(2, 1201, 2)) - UidSet.span(900, 999)


# -- the cursor -------------------------------------------------------------------------------------------------------


async def test_a_stale_batch_does_not_take_the_cursor_back(store: Store) -> None:
    old = await store.mailbox()
    new = Cursor(7, 20, 19, 500, UidSet.parse("3,15"), 2, 9.0)
    await store.apply(row=old, cursor=new)
    await store.apply(row=old, cursor=Cursor(7, 10, 9, 400, UidSet.parse("4"), 2, 9.0))
    assert (await store.mailbox()).cursor == replace(new, messages=9, uncovered=UidSet.parse("4,15"))


async def test_a_server_restored_from_a_backup_takes_the_cursor_back(store: Store) -> None:
    await store.apply(cursor=Cursor(7, 20, 19, 500))
    back = Cursor(7, 10, 9, 400)
    await store.apply(row=await store.mailbox(), cursor=back)
    assert (await store.mailbox()).cursor == back


async def test_a_batch_of_another_generation_is_refused(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    before = await everything(store)
    with pytest.raises(StaleBatchError, match="generation 7"):
        await store.apply([arrival(2, "other")], cursor=Cursor(8, 3))
    with pytest.raises(StoreError, match="different generations"):
        row = await store.mailbox()
        batch = messages.SyncBatch(row, 7, (), (), UidSet(), Cursor(8))
        async with store.database.write() as connection:
            await messages.apply_batch(connection, batch, PLAN, NOW)
    assert await everything(store) == before


@pytest.mark.parametrize("database_url", [""], ids=["sqlite"])  # PostgreSQL keeps its own disk
async def test_a_full_disk_leaves_the_batch_out_as_a_whole(store: Store) -> None:
    await store.apply([arrival(1, "mail")])
    before = await everything(store)
    many = [arrival(uid, f"mail {uid}", *[f"flag{number}" for number in range(50)]) for uid in range(2, 300)]
    async with store.database.write() as connection:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
        await connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 5}")
    with pytest.raises(StorageFullError):
        await store.apply(many)
    assert await everything(store) == before
    async with store.database.write() as connection:
        await connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    assert (await store.apply(many)).new == 298


# -- parked -----------------------------------------------------------------------------------------------------------


async def test_parked_messages_wait_until_they_are_covered(store: Store) -> None:
    broken = [(Uid(1), "broken", NOW + 60), (Uid(2), "broken", NOW + 61)]
    await store.apply(cursor=Cursor(7, 3, uncovered=UidSet([1, 2])), parked=broken)
    row = await store.mailbox()
    async with store.database.write() as connection:
        assert await messages.parked_uids(connection, row.id, 7) == {1: NOW + 60, 2: NOW + 61}
        await messages.park(connection, row, [(Uid(2), "again", NOW + 99)])
    assert await store.rows("SELECT uid, reason, attempts FROM parked ORDER BY 1") == [
        (1, "broken", 1),
        (2, "again", 2),
    ]
    await store.apply([arrival(1, "mail")], cursor=Cursor(7, 3, uncovered=UidSet([2])))
    async with store.database.read() as connection:
        assert await messages.parked_uids(connection, row.id, 7) == {2: NOW + 99}
        assert await messages.parked_uids(connection, row.id, 8) == {}
