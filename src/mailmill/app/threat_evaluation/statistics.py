"""The statistics of an evaluation. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final

Z_95: Final = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: two-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` of ``of``; ``share``, ``low`` and ``high`` (the 95 % interval) lie between 0 and 1, None of nothing."""

    count: int
    of: int
    share: float | None
    low: float | None
    high: float | None


def share(count: int, of: int) -> Share:
    """A share with its Wilson score interval, which holds for small counts and none at all (Wilson 1927)."""
    if not of:
        return Share(count, of, None, None, None)
    part = count / of
    square = Z_95 * Z_95
    middle = (part + square / (2 * of)) / (1 + square / of)
    reach = Z_95 / (1 + square / of) * sqrt(part * (1 - part) / of + square / (4 * of * of))
    low = 0.0 if count == 0 else max(0.0, middle - reach)
    high = 1.0 if count == of else min(1.0, middle + reach)
    return Share(count, of, part, low, high)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """How likely a positive scores above a negative, ties counted half (the area under the ROC curve).

    None where there are none of either kind.
    """
    if not positive or not negative:
        return None
    ranked = sorted(negative)
    above = sum(bisect_left(ranked, one) + bisect_right(ranked, one) for one in positive)
    return above / (2 * len(positive) * len(negative))


def quantile(values: Sequence[float], part: float) -> float | None:
    """The nearest-rank quantile: the smallest value that at least ``part`` of all do not exceed; None of nothing."""
    if not values:
        return None
    ranked = sorted(values)
    return ranked[max(0, ceil(part * len(ranked)) - 1)]


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
