"""The nodes and who owns what, in the words of the public contract. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mailmill.app import views
from mailmill.store.accounts import SHARDS, AccountRow
from mailmill.store.leases import Fleet, Node

JsonObject = dict[str, Any]


def owners(fleet: Fleet | None, own: Node, *, syncs: bool) -> Mapping[int, str]:
    """The node of each shard that has one. ``fleet`` is None where this process is alone; then it has all, if it
    ``syncs``.
    """
    if fleet is None:
        return dict.fromkeys(range(SHARDS), own.id) if syncs else {}
    return fleet.owners


def nodes(
    fleet: Fleet | None, own: Node, rows: Iterable[AccountRow], *, started_at: float, syncs: bool
) -> list[JsonObject]:
    """Each node with its shards and their accounts, the oldest first. ``started_at`` is this process's own."""
    owner_of = owners(fleet, own, syncs=syncs)
    shards = Counter(owner_of.values())
    accounts = Counter(owner_of[row.shard] for row in rows if not row.paused and row.shard in owner_of)
    if fleet is None:
        return [_node(own, started_at, 0.0, "alive", shards[own.id], accounts[own.id])]
    return [
        _node(
            Node(each.id, each.host, each.roles, each.version),
            each.started_at,
            each.silent_seconds,
            each.state,
            shards[each.id],
            accounts[each.id],
        )
        for each in fleet.nodes
    ]


def _node(node: Node, started_at: float, silent_seconds: float, state: str, shards: int, accounts: int) -> JsonObject:
    return {
        "id": node.id,
        "host": node.host,
        "version": node.version,
        "roles": list(node.roles),
        "startedAt": views.iso(started_at),
        "state": state,
        "heartbeatAgeSeconds": round(silent_seconds, 3),
        "shards": shards,
        "accounts": accounts,
    }
