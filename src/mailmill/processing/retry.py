"""When a processor that failed is tried again (pure)."""

from __future__ import annotations

from typing import Final

BASE_SECONDS: Final = 5.0
CAP_SECONDS: Final = 3600.0


def retry_after(*, failures: int, max_attempts: int, permanent: bool, jitter: float) -> float | None:
    """In how many seconds the next try is, after ``failures`` that failed, this one included; None: never.

    Full jitter over 5 s · 2^(failures - 1), at most an hour; ``jitter`` is drawn evenly from [0, 1).
    """
    if permanent or failures >= max_attempts:
        return None
    return jitter * min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(failures - 1, 20))
