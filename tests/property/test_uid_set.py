"""UidSet is a set: every operation agrees with Python's own."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmill.uid_set import UidSet

uids = st.sets(st.integers(1, 60))


@given(uids, uids)
def test_operations_agree_with_sets(left: set[int], right: set[int]) -> None:
    a, b = UidSet(left), UidSet(right)
    assert set(a | b) == left | right
    assert set(a - b) == left - right
    assert set(a & b) == left & right
    assert len(a) == len(left)
    assert bool(a) == bool(left)
    assert (a == b) == (left == right)
    assert all((uid in a) == (uid in left) for uid in range(62))


@given(uids)
def test_text_and_back(members: set[int]) -> None:
    assert UidSet.parse(str(UidSet(members))) == UidSet(members)


@given(uids)
def test_ranges_are_disjoint_sorted_and_never_touch(members: set[int]) -> None:
    ranges = UidSet(members).ranges
    assert all(low <= high for low, high in ranges)
    assert all(first[1] + 1 < second[0] for first, second in pairwise(ranges))


@given(uids, st.integers(0, 70))
def test_newest_takes_from_the_top(members: set[int], count: int) -> None:
    assert set(UidSet(members).newest(count)) == set(sorted(members)[max(0, len(members) - count) :])


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=8))
def test_ranges_in_any_order_and_direction(ranges: list[tuple[int, int]]) -> None:
    members = {uid for low, high in ranges for uid in range(min(low, high), max(low, high) + 1)}
    assert set(UidSet.from_ranges(ranges)) == members


@pytest.mark.parametrize("text", ["0", "*", "1:*", "-1", "1,,2", "1:", "4294967296", "٣", " 1", "1:2:3"])
def test_what_is_not_a_uid_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="UID"):
        UidSet.parse(text)
