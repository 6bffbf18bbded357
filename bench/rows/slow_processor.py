"""1,000 messages through a processor that waits a second, as for an answer of an AI; alone, and on two nodes.

With 200 at a time five seconds are the least it can take. Two nodes are two processes on one PostgreSQL, each with 50
at a time, against one process with 50. Timed from the first one's start to the moment nothing is left; each process has
loaded all it needs and opened nothing yet when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Awaitable, Callable

from bench import REPOSITORY, processes
from bench.figures import Goal, Line, Result, Samples, paired
from bench.processes import BenchError
from bench.queue_stores import KINDS, QueueStore
from bench.stage import Stage

TITLE = "1,000 messages through a processor that waits 1 s"

_TIMEOUT_SECONDS = 180


async def measure(stage: Stage) -> Result:
    messages = stage.size(1000, 100)
    many, few = stage.size(200, 20), stage.size(50, 5)
    rounds = stage.size(3, 1)
    warm_up = stage.size(1, 0)

    def side(kind: str, nodes: int, concurrency: int) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            store = stage.queues.new(kind)
            await store.step("worker_steps", "store", messages, 0)
            seconds = await _seconds(store, nodes, concurrency, messages)
            store.clear()
            return seconds

        return run

    sides = {name: side(kind, 1, many) for name, kind in KINDS.items()}
    sides |= {"one node": side("postgresql", 1, few), "two nodes": side("postgresql", 2, few)}
    stage.bar.expect((rounds + warm_up) * len(sides))
    measured = await stage.interleaved(rounds, sides, warm_up=warm_up)
    samples = {name: Samples.of(seconds, "s") for name, seconds in measured.items()}
    lines = [Line(f"{name}, {many} at a time", samples[name], Goal("at most", 8, "s")) for name in KINDS]
    one, two = samples["one node"], samples["two nodes"]
    goal = Goal("at most", 0.55, "×")
    lines.append(Line(f"two nodes, {few} at a time each", two, goal, f"one node, {few}", one, paired(two, one)))
    return Result(tuple(lines), (), {"messages": messages, "seconds": measured})


async def _seconds(store: QueueStore, nodes: int, concurrency: int, messages: int) -> float:
    programs = []
    with contextlib.ExitStack() as stack:
        for number in range(nodes):
            # The raw bytes lie in the folder that all share; the lock of a data folder is each node's own.
            folder = store.folder if nodes == 1 else store.node_folder(number)
            command = store.command("worker_steps", "wait", concurrency, folder=folder)
            program = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=processes.clean_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(_end, program)
            programs.append(program)
        for program in programs:
            assert program.stdout is not None
            if await asyncio.to_thread(program.stdout.readline) != "ready\n":
                raise BenchError("a node did not start")
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                outs = await asyncio.gather(*(asyncio.to_thread(program.communicate, "go\n") for program in programs))
        except TimeoutError:
            raise BenchError(f"{messages} messages were not done after {_TIMEOUT_SECONDS} s") from None
    told = [json.loads(out) for out, _ in outs]
    if sum(each["ran"] for each in told) < messages:
        raise BenchError(f"not every message was processed: {told}")
    return float(max(each["ended"] for each in told) - min(each["began"] for each in told))


def _end(program: subprocess.Popen[str]) -> None:
    program.kill()
    program.wait()
