"""How much memory a run in a child process may take: ``RLIMIT_AS`` around it, counted from what the child began with.

Address space is what is counted: everything that is allocated or mapped, libraries that the run imports too. Linux
enforces it; elsewhere the limit is without effect.
"""

from __future__ import annotations

import resource
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATUS: Final = Path("/proc/self/statm")
_OOM_SCORE: Final = Path("/proc/self/oom_score_adj")


@cache
def _address_space_at_first() -> int | None:
    """In bytes, as of the first call: what the interpreter and its threads take. Later ones may have leaks in it."""
    try:
        return int(_STATUS.read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return None


@contextmanager
def at_most(memory_bytes: int | None) -> Iterator[None]:
    """Within the block, allocations beyond so much raise MemoryError (or end the process, where C code makes them)."""
    at_first = _address_space_at_first()
    if memory_bytes is None or at_first is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = at_first + memory_bytes
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def be_the_first_to_go() -> None:
    """Where the machine runs out of memory the kernel ends this process before others."""
    with suppress(OSError):
        _OOM_SCORE.write_text("1000")
