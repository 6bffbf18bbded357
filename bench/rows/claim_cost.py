"""What a claim of 100 rows costs with 10,000, 100,000 and 1,000,000 queued, of 1 and of 1,000 accounts.

Each length is a store of its own, and they are measured by turns: a machine's slow spell then falls on all of them. A
claim is timed from its statement to its rows, its commit not included; what was claimed is given back, so the length
stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bench.figures import Goal, Line, Result, Samples
from bench.queue_stores import KINDS, QueueStore
from bench.stage import Stage

TITLE = "A claim's cost with 10,000 to 1,000,000 rows, 1 and 1,000 accounts"

_FLAT = 1.5


async def measure(stage: Stage) -> Result:
    lengths = [stage.size(full, full // 50) for full in (10_000, 100_000, 1_000_000)]
    accounts = (1, stage.size(1000, 20))
    claims, rounds = stage.size(50, 15), stage.size(7, 2)
    stage.bar.expect(len(KINDS) * len(accounts) * len(lengths) * (rounds + 2))
    lines: list[Line] = []
    told: dict[str, list[float]] = {}
    for name, kind in KINDS.items():
        stores: dict[str, QueueStore] = {}
        for owners in accounts:
            for length in lengths:
                case = f"{name}, {length:,} rows of {owners:,}"
                stage.bar.doing(case)
                stores[case] = stage.queues.new(kind)
                await stores[case].grow(length, accounts=owners)
                stage.bar.advance()

        def side(store: QueueStore) -> Callable[[], Awaitable[list[float]]]:
            async def run() -> list[float]:
                return [each * 1e3 for each in (await store.step("queue_steps", "claims", claims))["seconds"]]

            return run

        measured = await stage.interleaved(rounds, {case: side(store) for case, store in stores.items()})
        medians: list[float] = []
        for case, by_round in measured.items():
            samples = Samples.of([each for one in by_round for each in one], "ms")
            told[case] = list(samples.values)
            medians.append(samples.median)
            lines.append(Line(f"  {case}", samples))
            stores[case].clear()
        spread = Samples.of([max(medians) / min(medians)], "×")
        goal = Goal("at most", _FLAT, "×")
        lines.append(Line(f"{name}, dearest by cheapest", spread, goal, judged=spread.median))
    return Result(tuple(lines), (), {"ms": told})
