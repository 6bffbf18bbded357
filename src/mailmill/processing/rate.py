"""How many runs a minute, spread evenly (pure): a token bucket that holds what one second brings, and at least one.

So in any minute there start at most ``per_minute`` runs and one second's worth more.
"""

from __future__ import annotations


class Rate:
    """Belongs to one processor on one node. Times are of any clock that only goes forward."""

    def __init__(self, per_minute: float) -> None:
        self.burst = max(1, int(per_minute / 60))
        self._seconds_each = 60 / per_minute
        # When the bucket was, or will be, full: each start moves it on by what one start costs.
        self._full_at = float("-inf")

    def reserve(self, now: float) -> float:
        """Take the next start; in how many seconds it may be."""
        full_at = max(now, self._full_at)
        self._full_at = full_at + self._seconds_each
        return max(0.0, self._full_at - self.burst * self._seconds_each - now)
