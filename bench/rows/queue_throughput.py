"""Claim and fenced finish with result and event, 100 rows at a time, from a queue of a million; the peers' nearest.

Ours is the store's part of a worker's round: one transaction records what became of a hundred rows (row deleted where
the fence holds, result, event) and claims the next hundred. SQLite syncs at each commit, PostgreSQL has
``synchronous_commit`` on, Redis syncs its append-only file at each write. No side runs more than a trivial function.

What differs: Celery takes tasks off a Redis list and acknowledges each after it ran, its result a key that expires; no
transaction holds the two together. Procrastinate updates a job's row and lets a trigger write its event; it keeps no
result. Both run their (trivial) function, which ours does not here: what it costs with a function, and with reading and
parsing a message for it, is the row ``pipeline``.

Beside them stands what plain SQL reaches on this machine over the smallest tables that hold a queue, results and
events: no message, no processor, no history, one index, no library between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bench import REPOSITORY, peers
from bench.figures import Goal, Line, Result, Samples, paired
from bench.queue_stores import KINDS, WORKERS
from bench.stage import Stage

TITLE = "Claim and fenced finish with result and event, of 1,000,000 rows"

_GOALS = {"SQLite": 50_000, "PostgreSQL": 30_000}
_PLAIN = {name: f"plain SQL, {name}" for name in KINDS}
_AT_A_TIME = 100


async def measure(stage: Stage) -> Result:
    backlog = stage.size(1_000_000, 40_000)
    batches = stage.size(300, 40)
    tasks, jobs = stage.size(5000, 1000), stage.size(5000, 600)
    rounds = stage.size(5, 2)
    python = str(await peers.python())
    folder = REPOSITORY / "bench" / "sides"
    redis, procrastinate_url = stage.redis, stage.postgres.new_database().replace("+asyncpg", "")
    stage.bar.expect(len(KINDS) + (rounds + 1) * (2 * len(KINDS) + 2))
    stores = {}
    for name, kind in KINDS.items():
        stage.bar.doing(f"{backlog:,} rows in {name}")
        stores[name] = await stage.queues.long(kind, backlog)
        stage.bar.advance()
    commands: dict[str, list[str]] = {
        name: store.command("queue_steps", "drain", batches, WORKERS[store.kind], 0) for name, store in stores.items()
    }
    for name, kind in KINDS.items():
        empty = stage.queues.new(kind)
        commands[_PLAIN[name]] = stage.programs.side(
            "queue_plain", empty.url, empty.folder, backlog, batches, WORKERS[kind]
        )
    commands["Celery"] = [python, str(folder / "queue_celery.py"), redis.url(0), redis.url(1), str(tasks), "solo", "1"]
    queued = stage.size(200_000, 10_000)
    commands["Procrastinate"] = [python, str(folder / "queue_procrastinate.py"), procrastinate_url]
    commands["Procrastinate"] += [str(queued), str(jobs), str(_AT_A_TIME)]

    def side(name: str) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def run() -> dict[str, Any]:
            ended = await stage.programs.run(f"queue-{name}", commands[name], timeout_seconds=900)
            told: dict[str, Any] = ended.json
            return told

        return run

    measured = await stage.interleaved(rounds, {name: side(name) for name in commands})

    def rates(name: str) -> Samples:
        return Samples.of([each["rows"] / each["seconds"] for each in measured[name]], "rows/s")

    lines = []
    for name in KINDS:
        ours = rates(name)
        lines.append(Line(f"{name}, claim + finish", ours, Goal("at least", _GOALS[name], "rows/s")))
        for peer, times in (("Celery", 10), ("Procrastinate", 20)):
            theirs = rates(peer)
            lines.append(Line("  against", ours, Goal("at least", times, "×"), peer, theirs, paired(ours, theirs)))
        plain = rates(_PLAIN[name])
        lines.append(Line("  share of plain SQL", ours, None, _PLAIN[name], plain, paired(ours, plain)))
        cpu = Samples.of([each["cpu_seconds"] / each["rows"] * 1e6 for each in measured[name]], "µs")
        lines.append(Line("  CPU a row, of our process", cpu))
    return Result(tuple(lines), (), {"backlog": backlog, "batch": _AT_A_TIME, "workers": WORKERS, "runs": measured})
