"""When a destination is left alone. Pure: it is told what happened and when, and says how much may be sent.

::

    well ──FAILURES in a row──▶ cooling ──the wait is over──▶ probing (one at a time)
      ▲                            ▲                              │
      └────────── a success ───────┼──────────────────────────────┤
                                   └────────── a failure ─────────┘

Without it a destination that is down would burn the attempts of every row that waits for it, and hold a slot per row
for a whole timeout. A refusal is an answer: it counts as being well.
"""

from __future__ import annotations

from typing import Final

FAILURES: Final = 5
FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 300.0


class Health:
    """The health of one destination. Times are seconds of any one clock."""

    def __init__(self, concurrency: int) -> None:
        self.failures = 0
        self.resume_at = 0.0
        self._concurrency = concurrency
        self._pause = FIRST_PAUSE_SECONDS

    @property
    def well(self) -> bool:
        return self.failures < FAILURES

    def allowance(self, in_flight: int, now: float) -> int:
        """How many more may be sent now."""
        if self.well:
            return max(0, self._concurrency - in_flight)
        return 1 if in_flight == 0 and now >= self.resume_at else 0

    def succeeded(self) -> None:
        self.failures = 0
        self._pause = FIRST_PAUSE_SECONDS

    def failed(self, sent_at: float, now: float, chance: float, wait_seconds: float = 0.0) -> None:
        """A try that was sent at ``sent_at`` failed at ``now``; ``wait_seconds`` is what the destination asked for
        (429, 503 with Retry-After): it is left alone at once.

        Those that were in flight together when the destination fell count as one pause, not as one each. ``chance`` is
        a random number in 0–1: the pause is between half and all of its length.
        """
        together = not self.well and sent_at < self.resume_at
        self.failures = max(self.failures + 1, FAILURES if wait_seconds > 0 else 0)
        pause = min(wait_seconds, LONGEST_PAUSE_SECONDS)
        if not self.well and not together:
            pause = max(pause, self._pause * (0.5 + chance / 2))
            self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2)
        if pause > 0:
            self.resume_at = max(self.resume_at, now + pause)
