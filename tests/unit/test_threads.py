"""Threads that run processors: how many, and what becomes of one that does not come back."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from mailmill.errors import NotStartedError, ProcessorError
from mailmill.processing.threads import Threads, in_default_thread

HANGS = 0.05
"""The timeout where it is meant to be met."""


async def test_no_more_threads_than_stated_work_at_once() -> None:
    threads = Threads(2)
    at_work, most = 0, 0
    lock = threading.Lock()
    pair = threading.Barrier(2)

    def job() -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        pair.wait(10)
        with lock:
            at_work -= 1

    await asyncio.gather(*(threads.run(job, timeout_seconds=60) for _ in range(10)))
    assert most == 2
    threads.close()


async def test_a_stuck_thread_is_counted_and_replaced_until_it_returns() -> None:
    threads = Threads(1, max_stuck=1)
    release = threading.Event()
    with pytest.raises(ProcessorError, match="took longer"):
        await threads.run(release.wait, timeout_seconds=HANGS)
    assert threads.stuck == 1
    assert await threads.run(lambda: "by another", timeout_seconds=60) == "by another"
    release.set()
    while threads.stuck:
        await asyncio.sleep(0)
    assert await threads.run(lambda: "again", timeout_seconds=60) == "again"
    threads.close()


async def test_above_the_cap_jobs_wait_for_a_stuck_thread() -> None:
    threads = Threads(1, max_stuck=0)
    release = threading.Event()
    with pytest.raises(ProcessorError):
        await threads.run(release.wait, timeout_seconds=HANGS)
    waiting = asyncio.create_task(threads.run(lambda: "at last", timeout_seconds=60))
    await asyncio.sleep(0)
    assert not waiting.done()
    release.set()
    async with asyncio.timeout(30):
        assert await waiting == "at last"
    threads.close()


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_places_come_back_in_whatever_order_the_stuck_do(order: tuple[int, ...]) -> None:
    """Of three stuck ones a single one is replaced: two places are lost, until as many have come back."""
    threads = Threads(2, max_stuck=1)
    hold = [threading.Event() for _ in order]
    for event in hold:
        with pytest.raises(ProcessorError, match="took longer"):
            await threads.run(event.wait, timeout_seconds=HANGS)
    waiting = asyncio.create_task(threads.run(lambda: "ran", timeout_seconds=60))
    await asyncio.sleep(0)
    assert not waiting.done()
    async with asyncio.timeout(30):
        for still, number in zip((2, 1, 0), order, strict=True):
            hold[number].set()
            while threads.stuck > still:
                await asyncio.sleep(0)
            assert await waiting == "ran"
            waiting = asyncio.create_task(threads.run(lambda: "ran", timeout_seconds=60))
        assert await waiting == "ran"
        both, at_work = threading.Barrier(2), list[int]()

        def job() -> None:
            at_work.append(1)
            both.wait(30)
            at_work.pop()
            assert len(at_work) < 2

        await asyncio.gather(*(threads.run(job, timeout_seconds=60) for _ in range(6)))
    assert threads._started <= 3
    threads.close()


async def test_a_thread_that_cannot_be_started_costs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = Threads(1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            async with asyncio.timeout(30):
                with pytest.raises(NotStartedError, match="no thread could be started: can't start new thread"):
                    await threads.run(lambda: "ran", timeout_seconds=60)
    async with asyncio.timeout(30):
        assert await threads.run(lambda: "ran", timeout_seconds=60) == "ran"
    threads.close()


async def test_a_thread_is_started_only_where_the_others_have_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(2)
    first = await threads.run(threading.get_ident, timeout_seconds=60)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert await threads.run(threading.get_ident, timeout_seconds=60) == first
    threads.close()


async def test_the_loops_own_threads_that_cannot_be_started() -> None:
    class Refusing(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("can't start new thread")

    def fail() -> None:
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        await in_default_thread(fail)
    asyncio.get_running_loop().set_default_executor(Refusing())
    with pytest.raises(NotStartedError):
        in_default_thread(fail)


async def test_a_cancelled_waiter_takes_no_thread_along() -> None:
    threads = Threads(1)
    release = threading.Event()
    busy = asyncio.create_task(threads.run(release.wait, timeout_seconds=60))
    waiters = [asyncio.create_task(threads.run(lambda: "ran", timeout_seconds=60)) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    release.set()
    await busy
    waiters[1].cancel()
    assert await waiters[2] == "ran"
    assert await threads.run(lambda: "free", timeout_seconds=60) == "free"
    threads.close()


async def test_stuck_threads_do_not_keep_the_program_from_ending(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    await asyncio.to_thread(
        program.write_text,
        "import asyncio, threading\n"
        "from mailmill.processing.threads import Threads\n"
        "async def main():\n"
        "    try:\n"
        "        await Threads(1).run(threading.Event().wait, timeout_seconds=0.05)\n"
        "    except Exception as error:\n"
        "        print(error)\n"
        "asyncio.run(main())\n",
    )
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert (process.returncode, output) == (0, b"took longer than 0.05 s\n")
