"""Where the pending rows of a lane begin, as who looks for them has seen it last.

PostgreSQL keeps the entry of a row that was claimed or deleted in its index for as long as an old transaction could
still see the row. While one stays open (an export, a forgotten session) every claim, and everything that is queued,
would walk over all that went through the queue since. So a claim that came back full tells the next one where it ended,
and that one begins there.

Laws:

- Rows come to stand before that place: what is retried, released or let in; what is of a better priority; what was
  given its tag before claims went past it, and committed after. So it is believed for a moment only, and after a hint
  no longer than it takes for looking from the beginning to be a small share of the time.
- A claim that finds fewer rows than it may take looks from the beginning before it says that there are no more, and so
  in a lane that keeps running empty every claim does.
- It is memory only: what is forgotten is looked for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

BELIEVED_SECONDS: Final = 0.5
"""How long a place is believed where nobody doubts it."""

LOOKING_SHARE: Final = 0.05
"""Of the time, as a rule at most, that goes into looking from the beginning."""

LONGEST_SECONDS: Final = 5.0
"""How long a place is believed at most: an answer may have been slow for other reasons than the length of the look."""


class Turn(NamedTuple):
    """The place of a row in the order of its lane; a lower one is claimed first."""

    priority: int
    vt: float


BEGINNING: Final = Turn(-(2**31), 0.0)
"""Before every row."""


class Front:
    """One lane's, kept from look to look."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = BEGINNING
        self._look_at = 0.0
        self._look_at_if_doubted = 0.0
        self._doubted = False

    def turn(self) -> Turn:
        """Where the next look is to begin."""
        if self._clock() >= (self._look_at_if_doubted if self._doubted else self._look_at):
            self._turn = BEGINNING
            self._doubted = False
        return self._turn

    def looked(self, seconds: float) -> None:
        """Somebody has looked from the beginning, which took so many seconds."""
        now, pause = self._clock(), min(seconds / LOOKING_SHARE, LONGEST_SECONDS)
        self._look_at_if_doubted = now + pause
        self._look_at = now + max(pause, BELIEVED_SECONDS)

    def reached(self, last: Turn | None) -> None:
        """Nothing is known to stand before this place; None: nothing is known."""
        self._turn = BEGINNING if last is None else last

    def doubt(self) -> None:
        """There may be rows before it: a hint came. It holds until the next look, also where one is under way."""
        self._doubted = True
