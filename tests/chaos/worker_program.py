"""A worker in a process of its own that kills itself at the n-th time it comes to a phase.

``worker_program.py DATA_DIR PHASE N``; phase ``none`` runs until the queue is empty and stops in good order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

from mailmill.processing.registry import Processor
from mailmill.processing.worker import Worker, WorkerSettings
from mailmill.store import queue_exchange
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database

OBSERVED = {"claimed": "picked_up", "ran": "ran", "recorded": "recorded"}


class Killer:
    def __init__(self, phase: str, at: int) -> None:
        self.phase = phase
        self.left = at

    def came_to(self, phase: str) -> None:
        if phase == self.phase:
            self.left -= 1
            if self.left == 0:
                os.write(1, phase.encode())
                os.kill(os.getpid(), signal.SIGKILL)

    def observe(self, stage: str, _seconds: float) -> None:
        for phase, observed in OBSERVED.items():
            if stage.partition(":")[0] == observed:
                self.came_to(phase)


async def on_loop(message: Any, context: Any) -> str:
    return str(message.summary.subject)


def in_thread(message: Any, context: Any) -> str:
    return str(message.summary.subject)


async def main(data_dir: Path, killer: Killer) -> None:
    real_claim, real_finish = queue_exchange.claim_within, queue_exchange.finish_within

    def claim(*arguments: Any) -> Any:
        claimed = real_claim(*arguments)
        if claimed:
            killer.came_to("claiming")
        return claimed

    def finish(*arguments: Any) -> Any:
        report = real_finish(*arguments)
        if report.recorded:
            killer.came_to("recording")
        return report

    queue_exchange.claim_within, queue_exchange.finish_within = claim, finish
    database = await Database.open(f"sqlite+aiosqlite:///{data_dir / 'mailmill.db'}", data_dir=data_dir)
    blobs = BlobStore(data_dir / "mail")
    processors = [
        Processor("on_loop", 1, on_loop, "async", concurrency=4),
        Processor("in_thread", 1, in_thread, "thread", concurrency=4),
    ]
    worker = Worker(
        database, blobs, processors, uuid.uuid4().hex, settings=WorkerSettings(threads=2), observe=killer.observe
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    await worker.settle()
    stop.set()
    await running
    await database.close()
    await blobs.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Killer(sys.argv[2], int(sys.argv[3]))))
