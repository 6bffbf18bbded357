"""What was measured, as values: samples, the goal they are held against, the lines of the table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Samples:
    """All values of one side, in the order they were measured. ``unit`` is how a person reads one."""

    values: tuple[float, ...]
    unit: str

    @classmethod
    def of(cls, values: Sequence[float], unit: str) -> Samples:
        return cls(tuple(values), unit)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def percentile(self, percent: int) -> float:
        """Nearest rank: with 100 samples p99 is the second highest."""
        ranked = sorted(self.values)
        return ranked[max(0, -(-len(ranked) * percent // 100) - 1)]


def paired(ours: Samples, peer: Samples) -> Samples:
    """Ours by the peer's, round by round: neighbours in time met the same machine."""
    return Samples(tuple(a / b for a, b in zip(ours.values, peer.values, strict=True)), "×")


@dataclass(frozen=True, slots=True)
class Goal:
    """``at least`` and ``exactly`` include the limit, ``under`` does not, ``at most`` does."""

    kind: Literal["at least", "under", "at most", "exactly"]
    limit: float
    unit: str

    def met_by(self, value: float) -> bool:
        match self.kind:
            case "at least":
                return value >= self.limit
            case "under":
                return value < self.limit
            case "at most":
                return value <= self.limit
            case "exactly":
                return value == self.limit


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. A goal in × is held against ``ratio``, any other against ``ours``, by the median.

    ``judged`` overrides what the goal is held against: a percentile, or the worst of all values.
    """

    work: str
    ours: Samples
    goal: Goal | None = None
    peer_name: str = ""
    peer: Samples | None = None
    ratio: Samples | None = None
    judged: float | None = None

    @property
    def met(self) -> bool | None:
        """None where there is no goal, or where the peer it needs was not there."""
        if self.goal is None:
            return None
        if self.judged is not None:
            return self.goal.met_by(self.judged)
        if self.goal.unit == "×":
            return None if self.ratio is None else self.goal.met_by(self.ratio.median)
        return self.goal.met_by(self.ours.median)


@dataclass(frozen=True, slots=True)
class Result:
    """A row's outcome. ``notes`` are sentences below the table; ``raw`` is whatever else a reader may want in JSON."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    raw: dict[str, object] = field(default_factory=dict)
