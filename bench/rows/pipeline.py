"""The whole way of a message from stored to completed, in one process: claim, read, parse, run, record.

The processor returns the length of the subject, and nothing is to be delivered, so all that is timed is ours. The mail
is stored beforehand, by the statements of a sync. Each run is a fresh store; small mail is what the goal is held
against, mail like that of a real mailbox is shown, for there the parser is most of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bench import corpus
from bench.figures import Goal, Line, Result, Samples
from bench.queue_stores import KINDS
from bench.stage import Stage

TITLE = "From stored to completed with a trivial processor, one process"

_MAIL = {"messages of 1 to 3 kB": 0, f"of {corpus.MEAN_BYTES // 1000} kB on average": corpus.MEAN_BYTES}


async def measure(stage: Stage) -> Result:
    rounds = stage.size(5, 2)
    counts = {0: stage.size(10_000, 1000), corpus.MEAN_BYTES: stage.size(2000, 200)}
    sides = {(name, mail): (kind, mean) for name, kind in KINDS.items() for mail, mean in _MAIL.items()}

    def side(kind: str, mean_bytes: int) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def run() -> dict[str, Any]:
            store = stage.queues.new(kind)
            await store.step("worker_steps", "store", counts[mean_bytes], mean_bytes)
            told: dict[str, Any] = await store.step("worker_steps", "pipeline")
            store.clear()
            return told

        return run

    stage.bar.expect((rounds + 1) * len(sides))
    measured = await stage.interleaved(
        rounds, {f"{name}, {mail}": side(kind, mean) for (name, mail), (kind, mean) in sides.items()}
    )
    lines = []
    for title, runs in measured.items():
        goal = Goal("at least", 3000, "messages/s") if title.endswith("kB") else None
        lines.append(Line(title, Samples.of([each["messages"] / each["seconds"] for each in runs], "messages/s"), goal))
        cpu = Samples.of([each["cpu_seconds"] / each["messages"] * 1e6 for each in runs], "µs")
        lines.append(Line("  CPU a message, of our process", cpu))
    return Result(tuple(lines), (), {"runs": measured})
