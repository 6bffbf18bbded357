"""Finds out that the machine slept (or the process was stopped), from clocks that disagree with what was waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mailmill.clock import boot_seconds

_NAP_SECONDS = 5.0
# A busy loop is late by less; a sleep shorter than this breaks no connection.
_NOTEWORTHY_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Clocks:
    """One reading, in seconds. ``loop`` stands still while the machine sleeps, ``boot`` goes on where the system has
    such a clock, ``wall`` goes on everywhere and may be set. A stopped process or a paused virtual machine shows in
    one or another of them.
    """

    loop: float
    boot: float
    wall: float


def read_clocks() -> Clocks:
    return Clocks(asyncio.get_running_loop().time(), boot_seconds(), time.time())


def overslept_seconds(nap_seconds: float, before: Clocks, after: Clocks) -> float:
    """By how much a nap was longer than asked for, by the clock that saw most of it. Pure.

    A wall clock that is set forward passes for a sleep, which costs one round trip an account.
    """
    longest = max(after.loop - before.loop, after.boot - before.boot, after.wall - before.wall)
    return longest - nap_seconds


async def watch_sleep(
    woke: Callable[[float], None],
    *,
    read: Callable[[], Clocks] = read_clocks,
    nap: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Call ``woke(seconds)`` after each sleep worth the name. Until cancelled."""
    while True:
        before = read()
        await nap(_NAP_SECONDS)
        slept_seconds = overslept_seconds(_NAP_SECONDS, before, read())
        if slept_seconds >= _NOTEWORTHY_SECONDS:
            woke(slept_seconds)
