"""Memory of a process that stays: what a burst took is given back, and what stays for good is not searched again.

A first sync takes tens of megabytes for bodies and frees them again, but glibc keeps what was freed, in an arena for
each thread that ever allocated. With two arenas and a trim now and then, the process at rest is as small as before.
Elsewhere than on glibc all of this does nothing.

The collector of cycles, on the other hand, walks all that lives whenever enough was allocated: with everything that was
imported in it, that is a pause of tens of milliseconds in the middle of a large answer.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from typing import Any, Final

_M_ARENA_MAX: Final = -8  # malloc.h
_ARENAS: Final = 2
_TRIM_SECONDS: Final = 15.0


def limit_arenas() -> None:
    """To be called before threads are started."""
    libc = _libc()
    if libc is not None:
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def settle() -> None:
    """What lives now stays for good (modules, classes, compiled patterns): the collector need not look at it again.

    To be called once, when all is imported. It takes some tens of milliseconds.
    """
    gc.collect()
    gc.freeze()


async def keep_trimmed() -> None:
    """Until cancelled."""
    libc = _libc()
    while libc is not None:
        await asyncio.sleep(_TRIM_SECONDS)
        # In a thread: it takes each arena's lock for some milliseconds.
        await asyncio.to_thread(libc.malloc_trim, 0)


def _libc() -> Any:
    try:
        libc = ctypes.CDLL(None)
        _ = (libc.mallopt, libc.malloc_trim)
    except (OSError, AttributeError):
        return None
    return libc
