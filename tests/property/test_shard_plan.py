"""Laws of the plan: fair, without needless moves, the same everywhere, and settled once it is carried out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mailmill.app.shard_plan import plan

SHARDS = range(16)

names = st.sampled_from([f"node-{number}" for number in range(9)])
fleets = st.sets(names, min_size=1)
owners = st.dictionaries(st.sampled_from(list(SHARDS)), names)


def moved(before: dict[int, str], after: dict[int, str], living: set[str]) -> int:
    """Shards that a living owner has to give up."""
    return sum(before[shard] in living and after[shard] != before[shard] for shard in before)


@given(fleets, owners)
def test_shares_differ_by_one_at_most(living: set[str], owned: dict[int, str]) -> None:
    target = plan(living, owned, SHARDS)
    shares = Counter(target.values())
    counts = [shares[name] for name in living]
    assert set(target) == set(SHARDS)
    assert max(counts) - min(counts) <= 1


@given(fleets, owners)
def test_nobody_gives_up_more_than_fairness_asks(living: set[str], owned: dict[int, str]) -> None:
    target = plan(living, owned, SHARDS)
    share, left_over = divmod(len(SHARDS), len(living))
    held = sorted((Counter(owned.values())[name] for name in living), reverse=True)
    least = sum(max(0, count - share - (place < left_over)) for place, count in enumerate(held))
    assert moved(owned, target, living) == least


@given(fleets, owners)
def test_a_plan_that_was_carried_out_stands(living: set[str], owned: dict[int, str]) -> None:
    target = plan(living, owned, SHARDS)
    assert plan(living, target, SHARDS) == target


@given(fleets, names)
def test_one_that_joins_gets_its_share_and_nobody_else_gains(living: set[str], newcomer: str) -> None:
    living = living - {newcomer} or {"other"}
    before = plan(living, {}, SHARDS)
    after = plan(living | {newcomer}, before, SHARDS)
    changed = [shard for shard in SHARDS if before[shard] != after[shard]]
    assert {after[shard] for shard in changed} == {newcomer}
    assert len(changed) == len(SHARDS) // (len(living) + 1)


@given(fleets, names)
def test_one_that_leaves_moves_only_what_it_had(living: set[str], leaver: str) -> None:
    before = plan(living | {leaver}, {}, SHARDS)
    rest = living - {leaver}
    if rest:
        after = plan(rest, before, SHARDS)
        assert all(before[shard] == leaver for shard in SHARDS if before[shard] != after[shard])


@given(st.lists(names, min_size=1), owners)
def test_the_order_in_which_nodes_are_named_does_not_matter(living: list[str], owned: dict[int, str]) -> None:
    assert plan(living, owned, SHARDS) == plan(living[::-1], dict(reversed(owned.items())), SHARDS)


def test_without_nodes_there_is_no_plan() -> None:
    assert plan([], {1: "gone"}, SHARDS) == {}


def test_more_nodes_than_shards_have_one_each_or_none() -> None:
    target = plan([f"node-{number}" for number in range(100)], {}, SHARDS)
    assert len(set(target.values())) == len(SHARDS)
