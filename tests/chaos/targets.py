"""Where nodes are to die next: the phases that must be hit, and which of them comes first. Pure but for its dice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable


def _both(*points: str) -> tuple[str, ...]:
    return tuple(f"{point}/{when}" for point in points for when in ("uncommitted", "committed"))


# Each node comes to these when it is told to stop, and to no other time.
PARTING = _both("leave", "retire")

# An account comes to it once in its life.
ONCE = _both("initialized")

REQUIRED = (
    *ONCE,
    *_both("accounts", "retention", "pause missing", "state", "mailboxes", "renew", "take", "hand over"),
    *_both("new", "added", "flags", "expunged", "cursor", "deleted"),
    *_both("claim", "finish", "heartbeat", "reap", "promote"),
    *_both("number", "plan", "delivery claim", "delivery finish", "recover"),
    *_both("request", "request begun", "request done", "errand", "errand answered", "errand removed"),
    *PARTING,
    *("blobs/unwritten", "blobs/synced", "ran", "webhook/unsent", "webhook/answered"),
    *("answered/UID STORE", "answered/UID MOVE"),
)
"""Every commit point of the service as it runs here, before and after, and what lies between an effect on the outside
and its record."""

# Come to once in a store's life, before there is anything to lose; when nothing was done; or when something went wrong.
BESIDE = frozenset(
    {
        *_both("key", "blob place", "housekeeping", "quiet", "drop", "give back", "delivery give back", "parked"),
        *_both("request failed", "request deferred", "request relocated"),
        *("hold/unasked", "finish/unasked"),
    }
)


class Targets:
    """Which of ``phases`` come next: those that were hit least, the ones waited for in vain after the others."""

    def __init__(self, phases: Iterable[str], dice: random.Random) -> None:
        self.hits: Counter[str] = Counter(dict.fromkeys(phases, 0))
        self._phases = tuple(self.hits)
        self._missed: Counter[str] = Counter()
        self._dice = dice

    def next(self, most: int, among: Collection[str] = ()) -> list[str]:
        """Up to so many, all as rarely hit: one of them that is come to often would keep a rare one from its turn.

        ``among``: of these alone, where there are any.
        """
        score = {phase: self.hits[phase] + self._missed[phase] for phase in among or self._phases}
        least = [phase for phase in score if score[phase] == min(score.values())]
        return self._dice.sample(least, min(most, len(least)))

    def hit(self, phase: str) -> None:
        self.hits[phase] += 1

    def missed(self, phases: Iterable[str]) -> None:
        self._missed.update(phases)

    def below(self, wanted: int) -> Collection[str]:
        """The phases that were hit less often."""
        return [phase for phase in self._phases if self.hits[phase] < wanted]
