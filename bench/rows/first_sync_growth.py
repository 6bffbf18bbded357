"""First syncs of 10,000, 50,000 and 100,000 small messages: memory must not grow with them, time must grow as they do.

Each is ``mailmill sync --no-process --json`` on a fresh data folder, against a Dovecot that keeps mail in few files.
Memory is the most that was ever resident, interpreter and libraries included; time is that of the whole process less a
no-op start. Linear means that a message of the largest mailbox costs no more than one of the smallest, but for a
quarter.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from bench import service
from bench.figures import Goal, Line, Result, Samples, paired
from bench.processes import BenchError, Ended
from bench.stage import Stage

TITLE = "First sync of 10k, 50k and 100k small messages"

_SEED = 4
_FLAT = Goal("at most", 1.25, "×")


async def measure(stage: Stage) -> Result:
    sizes = [stage.size(full, quick) for full, quick in ((10_000, 500), (50_000, 1_000), (100_000, 2_000))]
    rounds = stage.size(2, 1)
    server = stage.roomy.qresync
    stage.bar.expect(rounds * (len(sizes) + 1))
    for size in sizes:
        stage.bar.doing(f"filling a mailbox of {size:,}")
        await stage.many(size, seed=_SEED)

    def side(size: int) -> Callable[[], Awaitable[Ended]]:
        user = stage.many_user(size) if size else "nobody"

        async def run() -> Ended:
            with stage.folder() as folder:
                account = service.AccountConfig("bench", user, server.port, password=server.password)
                command = stage.programs.mailmill(
                    service.write_config(folder, [account]), "sync", "--no-process", "--json"
                )
                await asyncio.to_thread(os.sync)
                ended = await stage.programs.run(f"first_sync_growth-{size}", command)
            [report] = ended.json["accounts"]
            if report["error"] or report["new"] != size:
                raise BenchError(f"mailmill sync reported {report}, wanted {size} messages")
            return ended

        return run

    sides = {"no-op": side(0)} | {f"{size:,}": side(size) for size in sizes}
    measured = await stage.interleaved(rounds, sides, warm_up=0)
    no_op = Samples.of([each.wall_seconds for each in measured["no-op"]], "s").median
    no_op_cpu = Samples.of([each.cpu_seconds for each in measured["no-op"]], "s").median

    def of(size: int, unit: str, value: Callable[[Ended], float]) -> Samples:
        return Samples.of([value(each) for each in measured[f"{size:,}"]], unit)

    def cost(size: int) -> Samples:
        return of(size, "µs", lambda ended: max(1e-9, ended.wall_seconds - no_op) / size * 1e6)

    smallest, largest = sizes[0], sizes[-1]
    lines = [Line(f"peak memory, {size:,} messages", of(size, "MB", _peak), Goal("under", 250, "MB")) for size in sizes]
    small_peak, large_peak = (of(size, "MB", _peak) for size in (smallest, largest))
    few, growth = f"{smallest:,} messages", paired(large_peak, small_peak)
    lines.append(Line("  the largest against the smallest", large_peak, _FLAT, few, small_peak, growth))
    slow, fast = cost(largest), cost(smallest)
    lines.append(Line("time for a message, the largest", slow, _FLAT, few, fast, paired(slow, fast)))
    for size in sizes:
        rate = of(size, "messages/s", lambda ended, size=size: size / max(1e-9, ended.wall_seconds - no_op))
        cpu = of(size, "µs", lambda ended, size=size: (ended.cpu_seconds - no_op_cpu) / size * 1e6)
        lines += [Line(f"  rate, {size:,} messages", rate), Line("  CPU a message", cpu)]
    runs = {
        name: [{"wall": each.wall_seconds, "cpu": each.cpu_seconds, "peak": each.peak_bytes} for each in ended]
        for name, ended in measured.items()
    }
    return Result(tuple(lines), (), {"sizes": sizes, "runs": runs})


def _peak(ended: Ended) -> float:
    return ended.peak_bytes / 1e6
