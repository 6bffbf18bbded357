"""What a claim of 100 rows costs with 10,000, 100,000 and 1,000,000 queued, of 1 and of 1,000 accounts.

A store grows from one length to the next. A claim is timed from its statement to its rows, its commit not included;
what was claimed is given back, so the length stays.
"""

from __future__ import annotations

from bench.figures import Goal, Line, Result, Samples
from bench.queue_stores import KINDS
from bench.stage import Stage

TITLE = "A claim's cost with 10,000 to 1,000,000 rows, 1 and 1,000 accounts"

_FLAT = 1.5


async def measure(stage: Stage) -> Result:
    lengths = [stage.size(full, full // 50) for full in (10_000, 100_000, 1_000_000)]
    accounts = (1, stage.size(1000, 20))
    claims = stage.size(300, 30)
    stage.bar.expect(len(KINDS) * len(accounts) * len(lengths))
    lines: list[Line] = []
    told: dict[str, list[float]] = {}
    for name, kind in KINDS.items():
        by_case: list[Samples] = []
        for owners in accounts:
            store = stage.queues.new(kind)
            for length in lengths:
                stage.bar.doing(f"{name}, {length:,} rows of {owners:,}")
                await store.grow(length, accounts=owners)
                seconds = (await store.step("queue_steps", "claims", claims))["seconds"]
                samples = Samples.of([each * 1e3 for each in seconds], "ms")
                told[f"{name} {length} {owners}"] = list(samples.values)
                by_case.append(samples)
                lines.append(Line(f"  {name}, {length:,} rows of {owners:,}", samples))
                stage.bar.advance()
            store.clear()
        medians = [samples.median for samples in by_case]
        spread = Samples.of([max(medians) / min(medians)], "×")
        goal = Goal("at most", _FLAT, "×")
        lines.append(Line(f"{name}, dearest by cheapest", spread, goal, judged=spread.median))
    return Result(tuple(lines), (), {"ms": told})
