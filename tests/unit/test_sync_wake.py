"""Sleep found out from clocks that disagree."""

from __future__ import annotations

import asyncio

import pytest

from mailmill.clock import boot_seconds
from mailmill.sync.wake import Clocks, overslept_seconds, read_clocks, watch_sleep

START = Clocks(loop=100.0, boot=1_000.0, wall=1_700_000_000.0)


def later(loop: float, boot: float, wall: float) -> Clocks:
    return Clocks(START.loop + loop, START.boot + boot, START.wall + wall)


@pytest.mark.parametrize(
    ("after", "slept"),
    [
        (later(5, 5, 5), 0),
        (later(5, 28_805, 28_805), 28_800),  # a laptop, eight hours
        (later(5, 5, 605), 600),  # a paused virtual machine; or a system without such a clock
        (later(3_605, 3_605, 3_605), 3_600),  # a stopped process
        (later(5, 5, -3_595), 0),  # a wall clock that was set back
    ],
)
def test_the_clock_that_saw_most_of_it_counts(after: Clocks, slept: float) -> None:
    assert overslept_seconds(5, START, after) == slept


class Machine:
    """Clocks that a test moves: ``sleeps`` are by how much each nap is longer than asked for, by the boot clock."""

    def __init__(self, *sleeps: float) -> None:
        self.now = START
        self.sleeps = list(sleeps)
        self.done = asyncio.Event()

    def read(self) -> Clocks:
        return self.now

    async def nap(self, seconds: float) -> None:
        if not self.sleeps:
            self.done.set()
            await asyncio.Event().wait()
        slept = self.sleeps.pop(0)
        now = self.now
        self.now = Clocks(now.loop + seconds, now.boot + seconds + slept, now.wall + seconds + slept)


async def test_each_sleep_is_told_once_and_a_late_loop_is_none() -> None:
    machine = Machine(0, 0.5, 28_800, 0, 3, 60, 0)
    told: list[float] = []
    async with asyncio.timeout(10):
        task = asyncio.create_task(watch_sleep(told.append, read=machine.read, nap=machine.nap))
        await machine.done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [round(seconds) for seconds in told] == [28_800, 60]


async def test_real_clocks_go_forward() -> None:
    before = read_clocks()
    await asyncio.sleep(0)
    after = read_clocks()
    assert after.loop >= before.loop
    assert after.boot >= before.boot
    assert boot_seconds() >= after.boot
