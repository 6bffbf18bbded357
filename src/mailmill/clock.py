"""A clock that goes on while the machine sleeps. The loop's own (CLOCK_MONOTONIC) stands still then."""

from __future__ import annotations

import time

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def boot_seconds() -> float:
    """Seconds since the machine started, sleep included where the system counts it (Linux: CLOCK_BOOTTIME).

    Never goes back. Comparable within one machine's run only.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)
