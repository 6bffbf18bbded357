"""Waiting for what nothing tells of: another process's state, a file, a row that changes without a hint.

Whatever gives a sign is waited for by its sign; this is for the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

_PAUSE_SECONDS = 0.05

_Found = TypeVar("_Found")


async def eventually(
    look: Callable[[], Awaitable[_Found]],
    ready: Callable[[_Found], object] = bool,
    *,
    within_seconds: float = 60.0,
) -> _Found:
    """Look again and again until what is found is ``ready``, and return it. Raises TimeoutError."""
    async with asyncio.timeout(within_seconds):
        while not ready(found := await look()):
            await asyncio.sleep(_PAUSE_SECONDS)
    return found
