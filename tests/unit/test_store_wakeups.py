from __future__ import annotations

import asyncio

import pytest

from mailmill.store.wakeups import Hint

LONG = 60.0


async def waiting(hint: Hint, count: int) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(hint.wait(LONG)) for _ in range(count)]
    while len(hint._waiters) < count:
        await asyncio.sleep(0)
    return tasks


async def test_a_hint_wakes_all_who_wait() -> None:
    hint = Hint()
    tasks = await waiting(hint, 3)
    hint.notify()
    assert await asyncio.gather(*tasks) == [True] * 3
    assert not await hint.wait(0)


async def test_a_hint_given_while_nobody_waits_is_kept_once() -> None:
    hint = Hint()
    hint.notify()
    hint.notify()
    assert await hint.wait(LONG)
    assert not await hint.wait(0)


async def test_a_reader_that_is_cancelled_leaves_its_hint_to_the_next() -> None:
    hint = Hint()
    [task] = await waiting(hint, 1)
    hint.notify()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await hint.wait(0)


async def test_waiting_leaves_nothing_behind() -> None:
    hint = Hint()
    assert not await hint.wait(0)
    [task] = await waiting(hint, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not hint._waiters
    hint.notify()
    assert await hint.wait(0)


async def test_a_subscription_misses_nothing_while_its_reader_is_busy() -> None:
    hint = Hint()
    with hint.subscribe() as busy, hint.subscribe() as other:
        hint.notify()
        assert await other.wait(LONG)
        assert await busy.wait(LONG)
        assert not await busy.wait(0)
    hint.notify()
    assert not await busy.wait(0)
