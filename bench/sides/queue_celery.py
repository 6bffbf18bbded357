"""Celery on Redis: as many trivial tasks as asked for, each acknowledged after it ran, its result kept in Redis.

Runs in the peers' environment. Arguments: broker URL, result URL, number of tasks, pool, processes. The queue is filled
first: one task is sent by Celery, and copies of its message with ids of their own are pushed. Then a worker is started
as one starts Celery's. It is timed from the first tenth of the results to the last.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import redis
from celery import Celery

_BROKER, _RESULTS = "BENCH_CELERY_BROKER", "BENCH_CELERY_RESULTS"
_QUEUE = "celery"
_PUSHED_AT_ONCE = 5000
_LOOK_SECONDS = 0.01
_STUCK_SECONDS = 60
_WARM_UP_SHARE = 0.1

app = Celery("queue_celery", broker=os.environ.get(_BROKER), backend=os.environ.get(_RESULTS))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=100,
    broker_connection_retry_on_startup=True,
    task_serializer="json",
    result_serializer="json",
)


@app.task(name="trivial")
def trivial(message_id: int) -> dict[str, bool]:
    return {"ok": True}


def main(broker: str, results: str, count: str, pool: str, processes: str) -> None:
    wanted = int(count)
    queue, kept = redis.Redis.from_url(broker), redis.Redis.from_url(results)
    queue.flushdb()
    kept.flushdb()
    _fill(broker, queue, wanted)
    environment = {**os.environ, _BROKER: broker, _RESULTS: results}
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "queue_celery",
        "worker",
        "--pool",
        pool,
        "--concurrency",
        processes,
    ]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
    worker = subprocess.Popen(command, cwd=Path(__file__).parent, env=environment, stdout=sys.stderr)
    try:
        rows, seconds = _watch(kept, wanted)
    finally:
        worker.terminate()
        worker.wait()
    print(json.dumps({"rows": rows, "seconds": seconds}))


def _fill(broker: str, queue: redis.Redis, count: int) -> None:
    with Celery(broker=broker) as sender:
        sender.send_task("trivial", args=(1,))
    template = json.loads(queue.lpop(_QUEUE))
    pipeline = queue.pipeline(transaction=False)
    for number in range(count):
        name = str(uuid.uuid4())
        template["headers"]["id"] = template["headers"]["root_id"] = template["properties"]["correlation_id"] = name
        template["properties"]["delivery_tag"] = str(uuid.uuid4())
        pipeline.lpush(_QUEUE, json.dumps(template))
        if number % _PUSHED_AT_ONCE == 0:
            pipeline.execute()
    pipeline.execute()


def _watch(kept: redis.Redis, wanted: int) -> tuple[int, float]:
    """Results after the warm-up, and how long they took."""
    first = began = 0.0
    have, moved = 0, time.monotonic()
    while True:
        now = time.monotonic()
        count = kept.dbsize()
        if count > have:
            have, moved = count, now
        if not began and count >= wanted * _WARM_UP_SHARE:
            first, began = count, now
        if count >= wanted:
            return int(count - first), now - began
        if now - moved > _STUCK_SECONDS:
            raise SystemExit(f"Celery came to a halt at {count} of {wanted} results")
        time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
