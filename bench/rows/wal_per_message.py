"""What the queue writes to PostgreSQL's write-ahead log for a message: claim, and finish with result and event.

Told by ``pg_stat_wal`` around runs that do nothing else, full page images included (``full_page_writes`` is on); what
of it those are is shown. A checkpoint before each run makes them as many as they can be.
"""

from __future__ import annotations

from bench.figures import Goal, Line, Result, Samples
from bench.queue_stores import WORKERS
from bench.stage import Stage

TITLE = "PostgreSQL's write-ahead log for a message, queue part"

_WAL = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS bytes, (SELECT wal_fpi FROM pg_stat_wal) AS images"
_SETTLED = "SELECT pg_stat_force_next_flush()"


async def measure(stage: Stage) -> Result:
    backlog, batches, rounds = stage.size(1_000_000, 40_000), stage.size(300, 40), stage.size(5, 2)
    stage.bar.expect(rounds + 1)
    stage.bar.doing(f"{backlog:,} rows in PostgreSQL")
    store = await stage.queues.long("postgresql", backlog)
    stage.bar.advance()
    each, images = [], []
    for number in range(rounds):
        stage.bar.doing(f"{number + 1}/{rounds}")
        await stage.postgres.fetch("CHECKPOINT")
        [before] = await stage.postgres.fetch(_WAL)
        told = await store.step("queue_steps", "drain", batches, WORKERS["postgresql"], 0)
        await stage.postgres.fetch(_SETTLED)
        [after] = await stage.postgres.fetch(_WAL)
        each.append(float(after["bytes"] - before["bytes"]) / told["all_rows"])
        images.append((after["images"] - before["images"]) / told["all_rows"])
        stage.bar.advance()
    lines = (
        Line("WAL a message, claim + finish", Samples.of(each, "B"), Goal("at most", 2048, "B")),
        Line("  full page images a message", Samples.of(images, "pages")),
    )
    return Result(lines)
