"""A small account's message while another account has a million queued: how many batches are claimed before it."""

from __future__ import annotations

from bench.figures import Goal, Line, Result, Samples
from bench.queue_stores import KINDS
from bench.stage import Stage

TITLE = "A small account's message while another has 1,000,000 queued"


async def measure(stage: Stage) -> Result:
    backlog, rounds = stage.size(1_000_000, 40_000), stage.size(5, 2)
    stage.bar.expect(len(KINDS) * (rounds + 1))
    lines = []
    for name, kind in KINDS.items():
        stage.bar.doing(f"{backlog:,} rows in {name}")
        store = await stage.queues.long(kind, backlog)
        stage.bar.advance()
        before = []
        for number in range(rounds):
            stage.bar.doing(f"{name} {number + 1}/{rounds}")
            before.append((await store.step("queue_steps", "fairness"))["batches_before"])
            stage.bar.advance()
        samples = Samples.of(before, "batches")
        lines.append(
            Line(f"{name}, batches of others before", samples, Goal("at most", 2, "batches"), judged=samples.high)
        )
    return Result(tuple(lines), ("the worst of all rounds is held against the goal.",))
