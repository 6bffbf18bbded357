"""Several writers at once on PostgreSQL: two transactions interleaved on purpose, and what must come of it.

``first`` is in the middle of its transaction when ``second`` begins; ``second`` either waits for it or does not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from store_mail import NOW, PLAN, Store, arrival, content, new_store, open_database

from mailmill.errors import MasterKeyError
from mailmill.model import AccountState, Backlog, MailboxRef, MessageMeta, Uid
from mailmill.store import accounts, message_deletion, messages, requests, row_locks
from mailmill.store.database import Database
from mailmill.store.keys import open_key_ring
from mailmill.store.mailboxes import StaleBatchError, reset_mailbox
from mailmill.store.messages import Arrival, BatchOutcome, Cursor, StoredContent, SyncBatch
from mailmill.store.request_rows import NewRequest, RequestKind
from mailmill.store.tables import blob, message
from mailmill.uid_set import UidSet
from servers.postgres import Postgres

T = TypeVar("T")
Step = Callable[[AsyncConnection], Awaitable[T]]


@pytest.fixture
async def store(data_dir: Path, postgres_url: str) -> AsyncIterator[Store]:
    async with open_database(data_dir, postgres_url) as database:
        yield await new_store(database, "Archive")


@pytest.fixture
def interleave(postgres: Postgres, postgres_url: str) -> Callable[[Database, Step[Any], Step[Any]], Awaitable[Any]]:
    """``await interleave(database, first, second)``: ``first`` commits when ``second`` waits for it; both results."""

    async def run(database: Database, first: Step[Any], second: Step[Any]) -> list[Any]:
        begun = asyncio.Event()

        async def one() -> Any:
            async with database.write() as connection:
                done = await first(connection)
                begun.set()
                await _until_somebody_waits(postgres, postgres_url)
                return done

        async def other() -> Any:
            await begun.wait()
            async with database.write() as connection:
                return await second(connection)

        return await asyncio.gather(one(), other(), return_exceptions=True)

    return run


async def _until_somebody_waits(postgres: Postgres, url: str) -> None:
    async with asyncio.timeout(30):
        while not await postgres.fetch(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1", url.rpartition("/")[2]
        ):
            await asyncio.sleep(0)


def batch(row: messages.MailboxRow, arrivals: Sequence[Arrival]) -> Step[BatchOutcome]:
    cursor = Cursor(7, 1 + max(one.meta.uid for one in arrivals))
    planned = SyncBatch(row, 7, arrivals, (), UidSet(), cursor, ())
    return lambda connection: messages.apply_batch(connection, planned, PLAN, NOW)


async def test_one_content_in_two_mailboxes_at_once_is_one_message(store: Store, interleave: Any) -> None:
    inbox, archive = await store.mailbox(), await store.mailbox("Archive")
    first, second = await interleave(
        store.database, batch(inbox, [arrival(1, "mail")]), batch(archive, [arrival(9, "mail")])
    )
    assert (first.new, second.new) == (1, 0)
    assert await store.rows("SELECT count(*) FROM message") == [(1,)]
    assert await store.rows("SELECT uid, message_id FROM place ORDER BY uid") == [(1, 1), (9, 1)]
    told = [(name, path) for name, _, path, _ in await store.events() if name.startswith("message")]
    assert told == [("messageNew", "INBOX"), ("messageUpdated", "Archive")]


async def test_two_passes_after_a_takeover_store_once(store: Store, interleave: Any) -> None:
    inbox = await store.mailbox()
    same = [arrival(1, "one"), arrival(2, "two")]
    first, second = await interleave(store.database, batch(inbox, same), batch(inbox, same))
    assert (first.new, second.new) == (2, 0)
    assert await store.rows("SELECT count(*) FROM work") == [(4,)]
    assert [name for name, *_ in await store.events()].count("messageNew") == 2


async def test_a_batch_of_an_older_pass_does_not_take_the_cursor_back(store: Store, interleave: Any) -> None:
    inbox = await store.mailbox()
    await interleave(
        store.database, batch(inbox, [arrival(1, "one"), arrival(5, "five")]), batch(inbox, [arrival(1, "one")])
    )
    assert (await store.mailbox()).cursor.uid_next == 6


async def test_a_batch_of_a_generation_that_is_over_is_refused(store: Store, interleave: Any) -> None:
    await store.apply([arrival(1, "one")])
    inbox = await store.mailbox()
    _, second = await interleave(
        store.database, lambda connection: reset_mailbox(connection, inbox, 8, NOW), batch(inbox, [arrival(2, "two")])
    )
    assert isinstance(second, StaleBatchError)
    assert await store.rows("SELECT count(*) FROM place") == [(1,)]


async def test_accounts_do_not_wait_for_each_other(store: Store) -> None:
    """New mail of one is committed while that of another is on its way: the ids of both come from one row nowhere."""
    async with store.database.write() as connection:
        you = await accounts.ensure_account(
            connection, name="you", email="", backlog=Backlog.PROCESS, credential_mark="", now=NOW
        )
        [yours] = await messages.apply_mailbox_list(connection, you.id, [MailboxRef("INBOX", "/")], NOW)
    mine = await store.mailbox()
    async with store.database.write() as first:
        await batch(mine, [arrival(1, "mine"), arrival(2, "also")])(first)
        async with asyncio.timeout(30), store.database.write() as second:
            await batch(yours, [arrival(1, "yours")])(second)
        assert await store.rows("SELECT account_id FROM message") == [(you.id,)]
    assert len(set(await store.rows("SELECT id FROM message"))) == 3


async def test_what_reappears_while_its_end_is_confirmed_lives(store: Store, interleave: Any) -> None:
    await store.apply([arrival(1, "mail")])
    await store.apply(expunged=[1], now=NOW + 1)
    archive = await store.mailbox("Archive")
    _, confirmed = await interleave(
        store.database,
        batch(archive, [arrival(1, "mail")]),
        lambda connection: message_deletion.confirm_deleted(connection, store.account.id, NOW + 2, NOW + 3),
    )
    assert confirmed == 0
    assert await store.rows("SELECT deleted_at FROM message") == [(None,)]


async def test_an_outcome_is_told_once(store: Store, interleave: Any) -> None:
    def connected(connection: AsyncConnection) -> Awaitable[None]:
        return accounts.set_state(connection, store.account.id, AccountState.CONNECTED, "", NOW)

    assert await interleave(store.database, connected, connected) == [None, None]
    assert [name for name, *_ in await store.events()].count("authenticationSuccess") == 1


async def test_a_key_makes_one_request(store: Store, interleave: Any) -> None:
    new = NewRequest(
        "default", store.account.id, RequestKind.APPEND, target_path="INBOX", add=frozenset({"a"}), idempotency_key="k"
    )
    first, second = await interleave(
        store.database,
        lambda connection: requests.add(connection, new, NOW),
        lambda connection: requests.add(connection, new, NOW + 1),
    )
    assert first == second
    assert await store.rows("SELECT count(*) FROM request") == [(1,)]


async def test_nodes_with_different_keys_do_not_both_start(postgres_url: str, tmp_path: Path) -> None:
    async def start(name: str) -> object:
        async with open_database(tmp_path / name, postgres_url) as database:
            return await open_key_ring(database, data_dir=tmp_path / name)

    rings = await asyncio.gather(start("one"), start("two"), return_exceptions=True)
    refused = [ring for ring in rings if isinstance(ring, BaseException)]
    assert len(refused) == 1
    assert isinstance(refused[0], MasterKeyError)


async def test_locks_are_taken_in_one_order(store: Store) -> None:
    """Each of two asks for the messages in an order of its own; neither ever waits for the other for good."""
    await store.apply([arrival(uid, f"mail {uid}") for uid in range(1, 41)])
    ids = [row[0] for row in await store.rows("SELECT id FROM message")]
    shuffled = random.Random(4)

    async def hold() -> None:
        for _ in range(15):
            mine = shuffled.sample(ids, 20)
            async with store.database.write() as connection:
                await row_locks.hold_messages(connection, mine)
                for one in mine:
                    await connection.execute(update(message).where(message.c.id == one).values(processed_at=NOW))

    await asyncio.gather(hold(), hold(), hold())


async def test_blobs_are_locked_in_the_order_of_their_digests(
    store: Store, postgres: Postgres, postgres_url: str
) -> None:
    """Where a batch brings one message and mends another, whose row comes first."""
    low, high = sorted((content("one").blob, content("two").blob), key=lambda ref: ref.sha256)
    texts = {content(text).blob.sha256: text for text in ("one", "two")}
    await store.apply([arrival(1, texts[low.sha256])])
    async with store.database.write() as connection:
        await requests.keep_blob(connection, high, NOW)
    fresh = [replace(ref, segment="cd/1-1.seg") for ref in (high, low)]
    arrivals = [Arrival(MessageMeta(Uid(uid)), StoredContent(ref)) for uid, ref in enumerate(fresh, 1)]
    planned = SyncBatch(await store.mailbox("Archive"), 7, arrivals, (), UidSet(), Cursor(7, 3), lost=(low, high))

    async def mend() -> BatchOutcome:
        async with store.database.write() as connection:
            return await messages.apply_batch(connection, planned, PLAN, NOW)

    row = select(blob.c.segment)
    async with store.database.write() as connection:
        await connection.execute(row.where(blob.c.sha256 == low.sha256).with_for_update())
        mending = asyncio.create_task(mend())
        await _until_somebody_waits(postgres, postgres_url)
        other = row.where(blob.c.sha256 == high.sha256).with_for_update(skip_locked=True)
        assert await connection.scalar(other) == high.segment
    assert (await mending).new == 1
    assert await store.rows("SELECT segment FROM blob") == [("cd/1-1.seg",)] * 2
