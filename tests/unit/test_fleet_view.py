"""Who owns what, as `status` tells it."""

from __future__ import annotations

from dataclasses import replace

from mailmill.app.fleet_view import nodes, owners
from mailmill.model import AccountState, Backlog
from mailmill.store.accounts import AccountRow
from mailmill.store.leases import SILENT_SECONDS, Fleet, Node, NodeRow, ShardRow

OWN = Node("a", "here", ("sync", "api"), "1")


def account(name: str, shard: int, *, paused: bool = False) -> AccountRow:
    return AccountRow(
        id=shard,
        tenant_id="default",
        name=name,
        email="",
        shard=shard,
        backlog=Backlog.PROCESS,
        state=AccountState.CONNECTED,
        state_reason="",
        state_changed_at=0.0,
        paused=paused,
        added_at=0.0,
        initialized_at=None,
    )


def node(name: str, *, silent_seconds: float = 1.0, stopping: bool = False) -> NodeRow:
    return NodeRow(name, "there", ("sync",), "1", 0.0, silent_seconds, stopping)


ROWS = [account("one", 1), account("two", 2), account("three", 3), account("paused", 1, paused=True)]


def test_one_that_is_alone_owns_all_it_syncs() -> None:
    [shown] = nodes(None, OWN, ROWS, started_at=0.0, syncs=True)
    assert (shown["id"], shown["shards"], shown["accounts"], shown["state"]) == ("a", 64, 3, "alive")
    [shown] = nodes(None, OWN, ROWS, started_at=0.0, syncs=False)
    assert (shown["shards"], shown["accounts"]) == (0, 0)


def test_a_lease_that_has_ended_is_nobodys() -> None:
    fleet = Fleet(
        nodes=(node("a"), node("b", silent_seconds=SILENT_SECONDS + 1), node("c", stopping=True)),
        shards=(
            ShardRow(1, 1, "a", 20.0),
            ShardRow(2, 4, "b", -1.0),
            ShardRow(3, 1, "c", 5.0),
            ShardRow(4, 0, "", 0.0),
        ),
    )
    assert owners(fleet, OWN, syncs=True) == {1: "a", 3: "c"}
    shown = {each["id"]: each for each in nodes(fleet, OWN, ROWS, started_at=0.0, syncs=True)}
    assert {name: (each["state"], each["shards"], each["accounts"]) for name, each in shown.items()} == {
        "a": ("alive", 1, 1),
        "b": ("silent", 0, 0),
        "c": ("stopping", 1, 1),
    }


def test_a_stopping_node_that_fell_silent_is_silent() -> None:
    assert replace(node("a", stopping=True), silent_seconds=SILENT_SECONDS + 1).state == "silent"
