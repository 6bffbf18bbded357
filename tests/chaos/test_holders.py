"""Who holds a lock: found also where whoever took it is dead."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from chaos.holders import holders, told

# Takes the lock, forks, and leaves it to the child, which waits without an end.
_LEAVES_ITS_LOCK = """
import fcntl, os, signal, sys
fcntl.flock(os.open(sys.argv[1], os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)
if child := os.fork():
    print(child, flush=True)
    os._exit(0)
signal.pause()
"""


async def test_the_fork_of_a_dead_holder_is_found(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    taker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _LEAVES_ITS_LOCK, str(lock), stdout=asyncio.subprocess.PIPE
    )
    assert taker.stdout is not None
    child = int(await taker.stdout.readline())
    try:
        await taker.wait()
        found = await asyncio.to_thread(_seen_with_a_bystander, lock)
    finally:
        os.kill(child, signal.SIGKILL)
    assert [each["pid"] for each in found] == [child]
    assert str(lock) in found[0]["command"]
    assert str(child) in told(found)
    async with asyncio.timeout(30):
        while await asyncio.to_thread(holders, lock):
            await asyncio.sleep(0.01)
    assert told([]) == "nobody who could be found"


def _seen_with_a_bystander(lock: Path) -> list[dict[str, Any]]:
    with lock.open():
        return holders(lock)
