"""When a processor that failed is tried again (pure)."""

from __future__ import annotations

from typing import Final

BASE_SECONDS: Final = 5.0
CAP_SECONDS: Final = 3600.0


def retry_at(*, failures: int, max_attempts: int, permanent: bool, now: float, jitter: float) -> float | None:
    """The time of the next try after ``failures`` tries that failed, this one included; None: never.

    Full jitter over 5 s · 2^(failures - 1), at most an hour; ``jitter`` is drawn evenly from [0, 1).
    """
    if permanent or failures >= max_attempts:
        return None
    return now + jitter * min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(failures - 1, 20))
