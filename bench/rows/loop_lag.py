"""How late the service's event loop is while four accounts have their first sync and clients ask its API.

An observer within the service (``sides/watched_service``) sleeps for 5 ms again and again and tells by how much longer
it took: what every request, push and timer waits besides. From outside, ``GET /health`` every 10 ms on a connection of
its own, which adds its handling; meanwhile two other clients list messages, accounts and status without pause. Both are
counted from the start of the first sync to its end, processing included. The server shares the processors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from bench import corpus, service
from bench.figures import Goal, Line, Result, Samples
from bench.observed import Observed
from bench.processes import BenchError
from bench.service import Service
from bench.stage import Stage

TITLE = "Loop lag in a first sync of 4 accounts while serving the API"

_ACCOUNTS = 4
_MEAN_BYTES = 30_000
_PING_SECONDS = 0.01
_PAUSE_SECONDS = 0.02
_TIMEOUT_SECONDS = 240
_ASKED = ("/v1/accounts", "/v1/status", "/v1/account/account0/messages?pageSize=50", "/v1/events?after=0&limit=100")


async def measure(stage: Stage) -> Result:
    messages = stage.size(1500, 150)
    server = stage.dovecot
    stage.bar.expect(_ACCOUNTS + 1)
    accounts = []
    for number in range(_ACCOUNTS):
        stage.bar.doing(f"filling account {number + 1}")
        user = server.new_user()
        raws = corpus.messages(messages, seed=90 + number, mean_bytes=_MEAN_BYTES)
        await asyncio.to_thread(server.fill, user, "INBOX", raws)
        accounts.append(service.AccountConfig(f"account{number}", user, server.port, server.password))
        stage.bar.advance()
    pings: list[float] = []
    with stage.folder() as folder:
        config = service.write_config(folder, accounts)
        stage.bar.doing("first sync, with the API busy")
        async with (
            Observed() as observed,
            service.running(stage.programs, "loop_lag", folder, config, observer_port=observed.port) as running,
        ):
            clients = [asyncio.create_task(_ping(running.another(), pings))]
            clients += [asyncio.create_task(_ask(running.another())) for _ in range(2)]
            try:
                await running.until("rest", _synced(messages), "/v1/status", _TIMEOUT_SECONDS)
            finally:
                for client in clients:
                    client.cancel()
                ended = await asyncio.gather(*clients, return_exceptions=True)
            for each in ended:
                if isinstance(each, Exception):
                    raise each
            metrics = await running.text("/metrics")
            lags = [lag * 1e3 for lag in observed.lags]
    stage.bar.advance()
    if not lags or not pings:
        raise BenchError("it was over before anything was observed")
    inside, outside = Samples.of(lags, "ms"), Samples.of(pings, "ms")
    goal = Goal("at most", 50, "ms")
    lines = (
        Line("loop lag, p99", Samples.of([inside.percentile(99)], "ms"), goal),
        Line("  median, lowest, highest", inside),
        Line("GET /health meanwhile, p99", Samples.of([outside.percentile(99)], "ms")),
        Line("  median, lowest, highest", outside),
    )
    own = [line for line in metrics.splitlines() if line.startswith("mailmill_event_loop_lag_seconds_bucket")]
    return Result(lines, (), {"lag_ms": lags, "health_ms": pings, "own_histogram": own})


def _synced(messages: int) -> Callable[[Any], bool]:
    def ready(answer: Any) -> bool:
        queue = answer["queue"]
        return answer["messages"] == _ACCOUNTS * messages and not queue["pending"] and not queue["processing"]

    return ready


async def _ping(client: Service, pings: list[float]) -> None:
    try:
        while True:
            began = time.perf_counter()
            await client.get("/health")
            pings.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(_PING_SECONDS)
    finally:
        client.disconnect()


async def _ask(client: Service) -> None:
    try:
        while True:
            for path in _ASKED:
                await client.get(path)
                await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        client.disconnect()
