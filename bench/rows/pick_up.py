"""One new message on an idle system, from the commit that stores it to the start of its processor.

The messages come one by one, each after the last one is done and recorded and the loop was idle. On SQLite sync and
processors share a process and a store. On PostgreSQL a second node's part is played by a second store in the same
process, on connections of its own, so that what wakes the worker is the database's NOTIFY and not a hint within the
process.
"""

from __future__ import annotations

from bench.figures import Goal, Line, Result, Samples
from bench.queue_stores import KINDS
from bench.stage import Stage

TITLE = "One new message, from its commit to the start of its processor"


async def measure(stage: Stage) -> Result:
    count = stage.size(300, 20)
    stage.bar.expect(len(KINDS))
    lines = []
    told = {}
    for name, kind in KINDS.items():
        stage.bar.doing(name)
        store = stage.queues.new(kind)
        seconds = (await store.step("worker_steps", "pick_up", count))["seconds"]
        store.clear()
        samples = Samples.of([each * 1e3 for each in seconds], "ms")
        told[name] = samples.values
        lines.append(Line(f"{name}, p99", Samples.of([samples.percentile(99)], "ms"), Goal("at most", 50, "ms")))
        lines.append(Line("  median, lowest, highest", samples))
        stage.bar.advance()
    return Result(tuple(lines), (), {"ms": told})
