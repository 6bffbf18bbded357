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


few = st.sets(st.integers(1, 700), max_size=6)
spans = st.lists(st.tuples(st.integers(1, 700), st.integers(0, 40)), max_size=3)


@given(few, spans, few, spans, st.integers(2, 5))
def test_a_few_ranges_meet_many(
    added: set[int], wide: list[tuple[int, int]], removed: set[int], holes: list[tuple[int, int]], step: int
) -> None:
    """The paths for a small operand, on both sides, against a set of some hundred ranges."""
    few_members = added | {uid for low, length in wide for uid in range(low, low + length)}
    many_members = set(range(1, 700, step)) - removed
    many_members -= {uid for low, length in holes for uid in range(low, low + length)}
    small, large = UidSet(few_members), UidSet(many_members)
    for a, b, left, right in (
        (small, large, few_members, many_members),
        (large, small, many_members, few_members),
    ):
        # Equal ranges, so the outcome is also in normal form.
        assert a | b == UidSet(left | right)
        assert a - b == UidSet(left - right)
        assert a & b == UidSet(left & right)


@given(uids)
def test_operations_with_itself_and_with_nothing(members: set[int]) -> None:
    one, same, nothing = UidSet(members), UidSet(members), UidSet()
    assert one | same == one & same == one - nothing == one | nothing == nothing | one == one
    assert one - same == one & nothing == nothing & one == nothing - one == nothing


def test_tens_of_thousands_of_ranges_are_walked_once() -> None:
    """Counted, not timed: every range that an operation looks at is one comparison or one bisection."""
    looked = 0

    class Counted(int):
        def __lt__(self, other: int) -> bool:
            nonlocal looked
            looked += 1
            return int(self) < int(other)

        def __gt__(self, other: int) -> bool:
            nonlocal looked
            looked += 1
            return int(self) > int(other)

    count = 20_000
    left = UidSet.from_ranges([(Counted(3 * n), Counted(3 * n)) for n in range(1, count)])
    right = UidSet.from_ranges([(Counted(3 * n + 1), Counted(3 * n + 1)) for n in range(1, count, 2)])
    one = UidSet([3 * count // 2])
    for operation, most in (
        (lambda: left | right, 8 * count),
        (lambda: left - right, 8 * count),
        (lambda: left & right, 8 * count),
        (lambda: left | one, 100),
        (lambda: left - one, 100),
        (lambda: left & one, 100),
        (lambda: one - left, 100),
    ):
        looked = 0
        operation()
        assert looked <= most


@given(uids)
def test_text_and_back(members: set[int]) -> None:
    assert UidSet.parse(str(UidSet(members))) == UidSet(members)


@given(uids)
def test_ranges_are_disjoint_sorted_and_never_touch(members: set[int]) -> None:
    ranges = UidSet(members).ranges
    assert all(low <= high for low, high in ranges)
    assert all(first[1] + 1 < second[0] for first, second in pairwise(ranges))


@given(uids)
def test_the_stretch_at_a_uid_is_the_whole_range_around_it(members: set[int]) -> None:
    uid_set = UidSet(members)
    for uid in range(62):
        stretch = uid_set.stretch_at(uid)
        assert (uid in stretch) == (uid in members)
        assert not stretch or (stretch[0], stretch[-1]) in uid_set.ranges


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
