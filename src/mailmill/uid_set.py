"""Sets of UIDs as sorted, disjoint ranges: what the server lists, what we hold, what is still to be fetched.

A mailbox of 200,000 messages is a handful of ranges, so all operations work on ranges, never on single numbers. One
that was much deleted from is tens of thousands of ranges: two such sets are merged in one walk over both, and a few
ranges meet many by bisection, which copies the stretches between them as they are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from mailmill.model import Uid

_MAX_UID = 2**32 - 1

# A bisection in many ranges costs about as much as walking over so many of them.
_WALKED_PER_BISECTION = 16

_Ranges = tuple[tuple[int, int], ...]


class UidSet:
    """An immutable set of UIDs (RFC 9051 §9 ``uid-set`` without ``*``).

    Ranges are inclusive. Iteration is ascending. ``str()`` gives the IMAP form (``"1:3,7"``), empty for the empty set.
    """

    __slots__ = ("_ranges",)

    def __init__(self, uids: Iterable[int] = ()) -> None:
        ranges: list[tuple[int, int]] = []
        for uid in sorted(set(uids)):
            if ranges and ranges[-1][1] + 1 == uid:
                ranges[-1] = (ranges[-1][0], uid)
            else:
                ranges.append((uid, uid))
        self._ranges = tuple(ranges)

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]]) -> UidSet:
        """From inclusive ranges in any order, overlapping or not; ``(b, a)`` with b > a counts as ``(a, b)``."""
        merged: list[tuple[int, int]] = []
        pairs = [pair if pair[0] <= pair[1] else (pair[1], pair[0]) for pair in ranges]
        pairs.sort()
        for low, high in pairs:
            if merged and low <= merged[-1][1] + 1:
                if high > merged[-1][1]:
                    merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        return cls._of(merged)

    @classmethod
    def _of(cls, ranges: Iterable[tuple[int, int]]) -> UidSet:
        """From ranges that are in order and neither overlap nor touch."""
        self = cls.__new__(cls)
        self._ranges = tuple(ranges)
        return self

    @classmethod
    def span(cls, low: int, high: int) -> UidSet:
        """All UIDs from ``low`` to ``high``; empty where ``high < low``."""
        return cls.from_ranges([(low, high)]) if low <= high else cls()

    @classmethod
    def parse(cls, text: str) -> UidSet:
        """From the IMAP form. Raises ValueError on anything else, ``*`` and zero included."""
        if not text:
            return cls()
        ranges = []
        for part in text.split(","):
            low_text, colon, high_text = part.partition(":")
            low = _number(low_text)
            ranges.append((low, _number(high_text) if colon else low))
        return cls.from_ranges(ranges)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Inclusive, ascending, and neither overlapping nor touching."""
        return self._ranges

    def __str__(self) -> str:
        return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in self._ranges)

    def __repr__(self) -> str:
        return f"UidSet({str(self)!r})"

    def __len__(self) -> int:
        return sum(high - low + 1 for low, high in self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __iter__(self) -> Iterator[Uid]:
        for low, high in self._ranges:
            for uid in range(low, high + 1):
                yield Uid(uid)

    def __contains__(self, uid: object) -> bool:
        if not isinstance(uid, int):
            return False
        index = bisect_right(self._ranges, (uid, _MAX_UID + 1)) - 1
        return index >= 0 and self._ranges[index][0] <= uid <= self._ranges[index][1]

    def stretch_at(self, uid: int) -> range:
        """The UIDs of the range that ``uid`` is in; none where it is in no range."""
        index = bisect_right(self._ranges, (uid, _MAX_UID + 1)) - 1
        if index < 0 or self._ranges[index][1] < uid:
            return range(0)
        low, high = self._ranges[index]
        return range(low, high + 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UidSet):
            return False
        # Lengths first: tuples of different lengths are compared item by item all the same.
        mine, theirs = self._ranges, other._ranges
        return mine is theirs or (len(mine) == len(theirs) and mine == theirs)

    def __hash__(self) -> int:
        return hash(self._ranges)

    def __or__(self, other: UidSet) -> UidSet:
        many, few = _by_size(self, other)
        if not few or few == many:
            return many
        merge = _spliced if _is_few(few._ranges, many._ranges) else _merged
        return UidSet._of(merge(many._ranges, few._ranges))

    def __sub__(self, other: UidSet) -> UidSet:
        ranges, holes = self._ranges, other._ranges
        if not ranges or not holes:
            return self
        if self == other:
            return UidSet()
        if _is_few(holes, ranges):
            return UidSet._of(_pierced(ranges, holes))
        return UidSet._of(_without(ranges, holes, bisect=_is_few(ranges, holes)))

    def __and__(self, other: UidSet) -> UidSet:
        many, few = _by_size(self, other)
        if not few or few == many:
            return few
        return UidSet._of(_common(few._ranges, many._ranges, bisect=_is_few(few._ranges, many._ranges)))

    @property
    def highest(self) -> Uid | None:
        """The highest UID; None for the empty set."""
        return Uid(self._ranges[-1][1]) if self._ranges else None

    def newest(self, count: int) -> UidSet:
        """The ``count`` highest UIDs."""
        out: list[tuple[int, int]] = []
        for low, high in reversed(self._ranges):
            if count <= 0:
                break
            take = min(count, high - low + 1)
            out.append((high - take + 1, high))
            count -= take
        return UidSet._of(reversed(out))


def _by_size(one: UidSet, other: UidSet) -> tuple[UidSet, UidSet]:
    """The one of more ranges first."""
    return (one, other) if len(one._ranges) >= len(other._ranges) else (other, one)


def _is_few(some: _Ranges, many: _Ranges) -> bool:
    return len(some) * _WALKED_PER_BISECTION < len(many)


def _reaching(ranges: _Ranges, uid: int, start: int) -> int:
    """The index, from ``start`` on, of the first range that ends at ``uid`` or above."""
    index = bisect_left(ranges, (uid, 0), start)
    return index - 1 if index > start and ranges[index - 1][1] >= uid else index


def _merged(left: _Ranges, right: _Ranges) -> list[tuple[int, int]]:
    """The union, in one walk over both."""
    out: list[tuple[int, int]] = []
    low, high = -2, -2  # the range being put together; no UID touches this first one
    for next_low, next_high in _in_order(left, right):
        if next_low > high + 1:
            out.append((low, high))
            low, high = next_low, next_high
        elif next_high > high:
            high = next_high
    out.append((low, high))
    return out[1:]


def _in_order(left: _Ranges, right: _Ranges) -> Iterator[tuple[int, int]]:
    end, index = len(right), 0
    for pair in left:
        while index < end and right[index] < pair:
            yield right[index]
            index += 1
        yield pair
    yield from right[index:]


def _spliced(many: _Ranges, few: _Ranges) -> list[tuple[int, int]]:
    """The union, where ``few`` are put in between."""
    out: list[tuple[int, int]] = []
    index = 0
    for low, high in few:
        begin = _reaching(many, low - 1, index)
        out += many[index:begin]
        index = bisect_right(many, (high + 1, _MAX_UID + 1), begin)
        # What the one before was joined with may reach this one.
        joined = [out.pop()] if out and out[-1][1] >= low - 1 else []
        joined += many[begin:index]
        if joined:
            low, high = min(low, joined[0][0]), max(high, joined[-1][1])
        out.append((low, high))
    out += many[index:]
    return out


def _pierced(ranges: _Ranges, holes: _Ranges) -> list[tuple[int, int]]:
    """``ranges`` without a few ``holes``."""
    out: list[tuple[int, int]] = []
    index = 0
    for low, high in holes:
        begin = _reaching(ranges, low, index)
        out += ranges[index:begin]
        index = bisect_right(ranges, (high, _MAX_UID + 1), begin)
        # What the hole before left of a range may be cut again.
        cut = [out.pop()] if out and out[-1][1] >= low else []
        cut += ranges[begin:index]
        if cut:
            if cut[0][0] < low:
                out.append((cut[0][0], low - 1))
            if cut[-1][1] > high:
                out.append((high + 1, cut[-1][1]))
    out += ranges[index:]
    return out


def _without(ranges: _Ranges, holes: _Ranges, *, bisect: bool) -> list[tuple[int, int]]:
    """``ranges`` without ``holes``; ``bisect`` where there are many more holes than ranges."""
    out: list[tuple[int, int]] = []
    holes_end = len(holes)
    index = 0
    for low, high in ranges:
        start = low
        if bisect:
            index = _reaching(holes, low, index)
        while index < holes_end:
            hole_low, hole_high = holes[index]
            if hole_low > high:
                break
            if hole_high >= start:
                if hole_low > start:
                    out.append((start, hole_low - 1))
                start = hole_high + 1
                if hole_high > high:
                    break  # the hole goes on into the next range
            index += 1
        if start <= high:
            out.append((start, high))
    return out


def _common(few: _Ranges, many: _Ranges, *, bisect: bool) -> list[tuple[int, int]]:
    """The intersection; ``bisect`` where there are many more of the second than of the first."""
    out: list[tuple[int, int]] = []
    end = len(many)
    index = 0
    for low, high in few:
        if bisect:
            index = _reaching(many, low, index)
        while index < end:
            other_low, other_high = many[index]
            if other_low > high:
                break
            if other_high >= low:
                out.append((low if low > other_low else other_low, high if high < other_high else other_high))
                if other_high > high:
                    break  # it goes on into the next range
            index += 1
    return out


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"not a UID: {text[:20]!r}")
    value = int(text)
    if not 0 < value <= _MAX_UID:
        raise ValueError(f"UID out of range: {text[:20]}")
    return value
