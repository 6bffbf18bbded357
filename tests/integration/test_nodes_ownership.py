"""Who owns what, among nodes on a real PostgreSQL: joining, leaving, dying, stalling, and the stale owner's write."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from unittest import mock

import pytest
from sqlalchemy import select, text, update

from harness.fleet import FleetNode, fleet
from mailmill.app import lease_book
from mailmill.app.ownership import living
from mailmill.app.removal import Removals
from mailmill.clock import boot_seconds
from mailmill.errors import ConflictError, LeaseLostError
from mailmill.model import Backlog
from mailmill.store import accounts, blob_references, leases
from mailmill.store.accounts import SHARDS
from mailmill.store.database import Database
from mailmill.store.leases import Node
from mailmill.store.owned_database import Lease, OwnedDatabase
from mailmill.store.store_clock import StoreClock
from mailmill.store.tables import account, setting, shard

if TYPE_CHECKING:
    from mailmill.app.application import Application

# The lease of tests in which somebody has to wait for its end.
SHORT = 2.0


async def test_the_first_node_takes_all_and_those_that_join_get_their_share(postgres_url: str, tmp_path: Path) -> None:
    async with fleet(postgres_url, tmp_path) as nodes:
        await nodes.join("a")
        await nodes.until_spread("a")
        await nodes.join("b")
        await nodes.until_spread("a", "b")
        moved = [shard for name, what, shard in nodes.history if (name, what) == ("a", "stop")]
        assert len(moved) == SHARDS // 2, "no shard moves that need not"
        await nodes.join("c")
        await nodes.until_spread("a", "b", "c")
        moves = [entry for entry in nodes.history if entry[1] == "stop"]
        assert len(moves) == SHARDS // 2 + SHARDS // 3


async def test_a_shard_is_kept_by_one_node_at_a_time(postgres_url: str, tmp_path: Path) -> None:
    async with fleet(postgres_url, tmp_path) as nodes:
        await asyncio.gather(*(nodes.join(name) for name in "abc"))
        await nodes.until_spread("a", "b", "c")
        await nodes.nodes["b"].leave()
        await nodes.until_spread("a", "c")
        await nodes.join("d")
        await nodes.until_spread("a", "c", "d")
        keeper: dict[int, str] = {}
        for name, what, number in nodes.history:
            if what == "start":
                assert number not in keeper, nodes.history
                keeper[number] = name
            else:
                assert keeper.pop(number) == name


async def test_one_that_leaves_hands_over_before_its_leases_end(postgres_url: str, tmp_path: Path) -> None:
    # With leases as long as these the test would not see their end.
    async with fleet(postgres_url, tmp_path, lease_seconds=600) as nodes:
        await nodes.join("a")
        leaver = await nodes.join("b")
        await nodes.until_spread("a", "b")
        await leaver.leave()
        await nodes.until_spread("a")
        async with nodes.nodes["a"].database.read() as connection:
            assert [node.id for node in (await leases.read_fleet(connection)).nodes] == ["a"]


async def test_what_the_dead_had_is_taken_when_their_leases_end(postgres_url: str, tmp_path: Path) -> None:
    async with fleet(postgres_url, tmp_path, lease_seconds=SHORT) as nodes:
        await nodes.join("a")
        victim = await nodes.join("b")
        await nodes.until_spread("a", "b")
        epochs = await epochs_of(nodes.nodes["a"])
        lost = victim.shards
        await victim.die()
        await nodes.until_spread("a")
        after = await epochs_of(nodes.nodes["a"])
        assert {number for number in after if after[number] == epochs[number] + 1} == lost


async def test_a_node_without_the_role_is_seen_and_gets_nothing(postgres_url: str, tmp_path: Path) -> None:
    async with fleet(postgres_url, tmp_path) as nodes:
        await nodes.join("a")
        worker = await nodes.join("w", roles=("process", "alert"))
        await nodes.until_spread("a")
        seen = await seen_by(worker, count=2)
        assert {node.id: node.roles for node in seen.nodes} == {"a": ("sync",), "w": ("process", "alert")}
        assert living(seen, 30) == ["a"]
        assert not worker.shards


async def test_one_that_cannot_renew_stops_before_its_leases_end(postgres_url: str, tmp_path: Path) -> None:
    """It finds out by its own clock: the database does not answer it."""
    async with fleet(postgres_url, tmp_path, lease_seconds=SHORT) as nodes:
        node = await nodes.join("a")
        await nodes.until_spread("a")
        async with node.database.write() as connection:
            # Its rounds now wait behind this lock; nobody else's do.
            await connection.execute(text("LOCK TABLE node IN ACCESS EXCLUSIVE MODE"))
            await nodes.watched.until(lambda: not node.shards)
            left = (await connection.execute(select(shard.c.leased_until - leases.dialect.now(connection)))).scalars()
            assert min(left) > 0, "the leases had ended before the work did"
        await nodes.until_spread("a")


async def test_writers_that_are_all_busy_cost_no_lease(postgres_url: str, tmp_path: Path) -> None:
    async with fleet(postgres_url, tmp_path, lease_seconds=SHORT) as nodes:
        node = await nodes.join("a")
        await nodes.until_spread("a")
        async with contextlib.AsyncExitStack() as busy:
            for _ in range(8):
                await busy.enter_async_context(node.database.write())
            first = await leased_until(node)
            async with asyncio.timeout(20):
                while await leased_until(node) < first + 2 * SHORT:
                    await asyncio.sleep(0)
        assert len(node.shards) == SHARDS
        assert not [entry for entry in nodes.history if entry[1] == "stop"]


async def test_one_that_was_stopped_writes_nothing_when_it_wakes(postgres_url: str, tmp_path: Path) -> None:
    """As after SIGSTOP and SIGCONT: the machine's clock went on, and no task of the node has had its turn yet."""
    async with fleet(postgres_url, tmp_path) as nodes:
        node = await nodes.join("a")
        await nodes.until_spread("a")
        door = node.owned(3)
        slept = boot_seconds() + 30.0
        with (
            mock.patch("mailmill.store.owned_database.boot_seconds", lambda: slept),
            mock.patch.object(type(node.database), "write", side_effect=AssertionError("it asked the database")),
            pytest.raises(LeaseLostError),
        ):
            async with door.write():
                raise AssertionError("it wrote")
        with pytest.raises(LeaseLostError):
            async with door.write():
                raise AssertionError("lost once is lost, though nobody has taken it")
        await nodes.watched.until(lambda: 3 in node.shards and node.kept.leases[3].holds)
        async with node.owned(3).write() as connection:
            await connection.execute(select(1))


# -- the lock ---------------------------------------------------------------------------------------------------------


async def taken(database: Database, node_id: str, number: int, seconds: float) -> dict[int, int]:
    async with database.write() as connection:
        return await leases.take(connection, node_id, [number], seconds)


async def expire(database: Database, number: int) -> None:
    async with database.write() as connection:
        await connection.execute(update(shard).where(shard.c.id == number).values(leased_until=1.0))


@pytest.fixture
async def store(postgres_url: str, tmp_path: Path) -> Database:
    database = await Database.open(postgres_url, data_dir=tmp_path / "node")
    try:
        yield database
    finally:
        await database.close()


async def test_a_stale_owners_transaction_and_a_takeover_never_both_happen(store: Database) -> None:
    """The interleaving that a condition without a lock lets through: the old owner has looked and not yet committed."""
    epoch = (await taken(store, "old", 7, 30))[7]
    door = OwnedDatabase(store, Lease("old", 7, epoch, boot_seconds() + 60))
    async with door.write() as connection:
        await connection.execute(setting.insert().values(name="written by", value="old"))
        await expire(store, 7)
        assert await taken(store, "new", 7, 30) == {}, "taken while the old owner's transaction runs"
    assert await taken(store, "new", 7, 30) == {7: epoch + 1}
    with pytest.raises(LeaseLostError):
        async with door.write():
            raise AssertionError("the old owner writes after the takeover")


async def test_a_write_that_begins_during_a_takeover_waits_and_is_refused(store: Database) -> None:
    epoch = (await taken(store, "old", 7, 30))[7]
    await expire(store, 7)
    lease = Lease("old", 7, epoch, boot_seconds() + 60)

    async def write() -> None:
        async with OwnedDatabase(store, lease).write():
            raise AssertionError("the old owner writes during the takeover")

    async with store.write() as connection:
        assert await leases.take(connection, "new", [7], 30) == {7: epoch + 1}
        writing = asyncio.create_task(write())
        await until_waiting(store)
    with pytest.raises(LeaseLostError):
        await writing
    assert not lease.holds


async def test_renewing_waits_for_no_owners_transaction(store: Database) -> None:
    """Or one slow transaction would cost a node all of its shards. Nor does it let a takeover pass."""
    epoch = (await taken(store, "a", 7, 30))[7]
    door = OwnedDatabase(store, Lease("a", 7, epoch, boot_seconds() + 60))
    async with asyncio.timeout(20), door.write():
        async with store.write() as connection:
            assert await leases.renew(connection, "a", 30) == {7: epoch}
        async with door.write() as second:
            await second.execute(select(1))
        await expire(store, 7)
        assert await taken(store, "b", 7, 30) == {}


async def test_what_was_given_back_is_taken_only_after_its_last_transaction(store: Database) -> None:
    epoch = (await taken(store, "a", 7, 30))[7]
    door = OwnedDatabase(store, Lease("a", 7, epoch, boot_seconds() + 60))
    async with store.write() as giving:
        await leases.release(giving, "a", {7: epoch})
        late = door.write()
        await late.__aenter__()
    assert await taken(store, "b", 7, 30) == {}
    await late.__aexit__(None, None, None)
    assert await taken(store, "b", 7, 30) == {7: epoch + 1}


async def test_who_has_it_again_is_another_owner(store: Database) -> None:
    epoch = (await taken(store, "a", 7, 30))[7]
    old = OwnedDatabase(store, Lease("a", 7, epoch, boot_seconds() + 60))
    async with store.write() as connection:
        await leases.release(connection, "a", {7: epoch})
    again = (await taken(store, "a", 7, 30))[7]
    assert again == epoch + 1
    with pytest.raises(LeaseLostError):
        async with old.write():
            raise AssertionError("written under a lease that was given back")


async def test_a_live_lease_is_not_taken_and_one_that_ended_goes_on_unless_it_was(store: Database) -> None:
    epoch = (await taken(store, "a", 7, 30))[7]
    assert await taken(store, "b", 7, 30) == {}
    await expire(store, 7)
    async with store.write() as connection:
        assert await leases.renew(connection, "a", 30) == {7: epoch}
    assert await taken(store, "b", 7, 30) == {}


async def test_a_lease_whose_commit_was_never_heard_of_is_found(store: Database) -> None:
    book = lease_book.LeaseBook(store, Node("a", "host", ("sync",), "1"), 30)
    await taken(store, "a", 7, 30)
    await book.renew()
    assert [lease.shard for lease in book.held.values()] == [7]


async def test_an_account_that_a_node_may_still_keep_is_not_deleted(store: Database) -> None:
    removals = Removals(
        cast("Application", SimpleNamespace(database=store, clock=StoreClock(store), accounts={}, node="asked"))
    )
    async with store.write() as connection:
        row = await accounts.ensure_account(
            connection, name="work", email="", backlog=Backlog.PROCESS, credential_mark="", now=1.0
        )
        await leases.beat(connection, Node("old", "old", ("sync",), "1"))
    assert await taken(store, "old", row.shard, 60)
    with pytest.raises(ConflictError, match="in use"):
        await removals.remove("work", purge=True)
    async with store.write() as connection:
        [node] = (await leases.read_fleet(connection)).nodes
        await accounts.pause_missing(connection, (), node.started_at + 1)
    with pytest.raises(ConflictError, match="node old may still keep"):
        await removals.remove("work", purge=True)
    async with store.write() as connection:
        # As if the node had been started anew since.
        await connection.execute(update(account).values(state_changed_at=node.started_at - 1))
    assert (await removals.remove("work", purge=True))["purged"]


async def test_a_hold_waits_until_what_is_being_forgotten_is_forgotten(store: Database) -> None:
    """Or the snapshot of the backup behind it would name what goes a moment later."""

    async def hold() -> None:
        async with store.write() as connection:
            await blob_references.hold(connection, 60)

    async with store.write() as connection:
        await blob_references.forget(connection, [], 0.0)
        holding = asyncio.create_task(hold())
        await until_waiting(store)
    await holding


async def leased_until(node: FleetNode) -> float:
    """When the first of all leases ends, in seconds of the database's clock."""
    async with node.database.read() as connection:
        return min((await connection.execute(select(shard.c.leased_until))).scalars())


async def epochs_of(node: FleetNode) -> dict[int, int]:
    async with node.database.read() as connection:
        return {each.id: each.epoch for each in (await leases.read_fleet(connection)).shards}


async def seen_by(node: FleetNode, *, count: int) -> leases.Fleet:
    """The fleet as soon as it has ``count`` nodes."""
    async with asyncio.timeout(20):
        while True:
            async with node.database.read() as connection:
                seen = await leases.read_fleet(connection)
            if len(seen.nodes) == count:
                return seen
            await node.database.wake.nodes.wait(0.1)


async def until_waiting(database: Database) -> None:
    """Until a session of this database waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20):
        while True:
            async with database.read() as connection:
                if await connection.scalar(waiting):
                    return
            await asyncio.sleep(0)
