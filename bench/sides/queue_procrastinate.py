"""Procrastinate on PostgreSQL: as many trivial jobs as asked for, of a queue that holds more.

Runs in the peers' environment. Arguments: database URL (postgresql://), jobs in the queue, jobs to run, jobs at a time.
The queue is filled by one INSERT. Timed from the end of the warm-up, a tenth of the jobs, to the end of the last.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import psycopg
from procrastinate import App, PsycopgConnector

_QUEUE = "default"
_WARM_UP_SHARE = 0.1


def main(url: str, queued: str, count: str, at_a_time: str) -> None:
    print(json.dumps(asyncio.run(_run(url, int(queued), int(count), int(at_a_time)))))


async def _run(url: str, queued: int, count: int, at_a_time: int) -> dict[str, float]:
    app = App(connector=PsycopgConnector(conninfo=url, min_size=4, max_size=10))
    warm_up = int(count * _WARM_UP_SHARE)
    ran = 0
    began = 0.0
    done = asyncio.Event()

    @app.task(name="trivial", queue=_QUEUE)
    async def trivial(message_id: int) -> dict[str, bool]:
        nonlocal ran, began
        ran += 1
        if ran == warm_up:
            began = time.perf_counter()
        if ran == count:
            done.set()
        return {"ok": True}

    async with app.open_async():
        await _fill(app, url, queued)
        worker = asyncio.create_task(
            app.run_worker_async(
                queues=[_QUEUE], concurrency=at_a_time, install_signal_handlers=False, listen_notify=False
            )
        )
        waiting = asyncio.create_task(done.wait())
        await asyncio.wait({worker, waiting}, return_when=asyncio.FIRST_COMPLETED)
        seconds = time.perf_counter() - began
        if worker.done():
            worker.result()
        waiting.cancel()
        worker.cancel()
        await asyncio.wait({worker}, timeout=30)
    return {"rows": count - warm_up, "seconds": seconds}


async def _fill(app: App, url: str, queued: int) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        there = await (await connection.execute("SELECT to_regclass('procrastinate_jobs')")).fetchone()
    if there is None or there[0] is None:
        await app.schema_manager.apply_schema_async()
    async with await psycopg.AsyncConnection.connect(url) as connection:
        # Triggers tell of each new job; here nobody listens yet, and filling is not what is timed.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args) SELECT %s, 'trivial',"
            " jsonb_build_object('message_id', i) FROM generate_series(1, %s) i"
            " WHERE (SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo') < %s",
            (_QUEUE, queued, queued // 2),
        )
        await connection.commit()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("ANALYZE procrastinate_jobs")


if __name__ == "__main__":
    main(*sys.argv[1:])
