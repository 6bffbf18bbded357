"""Threads that run processors: how many, and what becomes of one that does not come back."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from mailmill.errors import ProcessorError
from mailmill.processing.threads import Threads

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
    assert await waiting == "at last"
    threads.close()


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
