"""Sets of UIDs as sorted, disjoint ranges: what the server lists, what we hold, what is still to be fetched.

A mailbox of 200,000 messages is a handful of ranges, so all operations work on ranges, never on single numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from mailmill.model import Uid

_MAX_UID = 2**32 - 1


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
        for low, high in sorted((min(pair), max(pair)) for pair in ranges):
            if merged and low <= merged[-1][1] + 1:
                if high > merged[-1][1]:
                    merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        self = cls.__new__(cls)
        self._ranges = tuple(merged)
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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UidSet) and self._ranges == other._ranges

    def __hash__(self) -> int:
        return hash(self._ranges)

    def __or__(self, other: UidSet) -> UidSet:
        return UidSet.from_ranges(self._ranges + other._ranges)

    def __sub__(self, other: UidSet) -> UidSet:
        out: list[tuple[int, int]] = []
        holes = other._ranges
        first = 0
        for low, high in self._ranges:
            while first < len(holes) and holes[first][1] < low:
                first += 1
            index = first
            start = low
            while index < len(holes) and holes[index][0] <= high:
                hole_low, hole_high = holes[index]
                if hole_low > start:
                    out.append((start, hole_low - 1))
                start = max(start, hole_high + 1)
                index += 1
            if start <= high:
                out.append((start, high))
        return UidSet.from_ranges(out)

    def __and__(self, other: UidSet) -> UidSet:
        return self - (self - other)

    @property
    def highest(self) -> Uid | None:
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
        return UidSet.from_ranges(out)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"not a UID: {text[:20]!r}")
    value = int(text)
    if not 0 < value <= _MAX_UID:
        raise ValueError(f"UID out of range: {text[:20]}")
    return value
