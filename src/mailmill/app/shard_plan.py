"""Which node should own which shard. Pure: every node comes to the same answer from the same rows.

The plan starts from who owns what now, because a move costs each account of the shard a new connection:

* Fair: the nodes' shares differ by one shard at most.
* No move without need: an owner keeps what fits into its share. Where shares differ, the nodes that own most have the
  larger ones.
* What has to go somewhere goes by preference (rendezvous hashing: a weight for each pair of node and shard, the highest
  wins), so that nodes which see the same do not want the same shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache


def plan(nodes: Collection[str], owners: Mapping[int, str], shards: Sequence[int]) -> dict[int, str]:
    """The node of each of ``shards``; none where there are no ``nodes``.

    ``nodes`` are those that live and take shards. ``owners`` says who owns a shard now; other owners than ``nodes``
    count as nobody.
    """
    names = sorted(set(nodes))
    if not names:
        return {}
    owned: dict[str, list[int]] = {name: [] for name in names}
    homeless: list[int] = []
    for shard in shards:
        owned.get(owners.get(shard, ""), homeless).append(shard)
    target: dict[int, str] = {}
    room: dict[str, int] = {}
    for name, share in _shares(owned, len(shards)).items():
        by_preference = [
            shard for _, shard in sorted(((preference(name, each), each) for each in owned[name]), reverse=True)
        ]
        target |= dict.fromkeys(by_preference[:share], name)
        homeless += by_preference[share:]
        room[name] = max(0, share - len(by_preference))
    pairs = [(preference(name, shard), name, shard) for name in names if room[name] for shard in homeless]
    for _, name, shard in sorted(pairs, reverse=True):
        if room[name] and shard not in target:
            target[shard] = name
            room[name] -= 1
    return target


def _shares(owned: Mapping[str, Sequence[int]], shards: int) -> dict[str, int]:
    share, left_over = divmod(shards, len(owned))
    most_first = sorted(owned, key=lambda name: (-len(owned[name]), name))
    return {name: share + (place < left_over) for place, name in enumerate(most_first)}


@lru_cache(maxsize=65536)
def preference(node: str, shard: int) -> int:
    """How much a shard likes to be with a node: the same everywhere, and like a random number."""
    return int.from_bytes(hashlib.blake2b(f"{shard}\0{node}".encode(), digest_size=8).digest())
