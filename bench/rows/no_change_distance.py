"""A pass that finds nothing, over 4 accounts of 4 mailboxes on a server that is 50 ms away.

The distance is a proxy for each account that delays each way by 25 ms. Timed is ``POST /v1/sync`` over TCP, which is
not delayed. One round trip each, side by side, is 50 ms and can be no less; told is how many round trips it took.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from bench import corpus, service
from bench.distance import DistantServer
from bench.figures import Goal, Line, Result, Samples
from bench.processes import BenchError
from bench.stage import Stage

TITLE = "No-change pass over 4 accounts at 50 ms"

_ACCOUNTS = 4
_ROUND_TRIP_SECONDS = 0.05
_WARM_UP = 3


async def measure(stage: Stage) -> Result:
    passes = stage.size(30, 8)
    server = stage.dovecot
    stage.bar.expect(passes)
    async with contextlib.AsyncExitStack() as stack:
        accounts = []
        for number in range(_ACCOUNTS):
            far = DistantServer(server.host, server.port, round_trip_seconds=_ROUND_TRIP_SECONDS)
            await stack.enter_async_context(far)
            user = server.new_user()
            await asyncio.to_thread(server.fill, user, "INBOX", corpus.messages(5, seed=80 + number))
            accounts.append(service.AccountConfig(f"account{number}", user, far.port, server.password))
        folder = stack.enter_context(stage.folder())
        config = service.write_config(folder, accounts)
        running = await stack.enter_async_context(service.running(stage.programs, "no_change_distance", folder, config))
        stage.bar.doing("first sync")
        await running.at_rest()
        for _ in range(_WARM_UP):
            await running.post("/v1/sync", {})
        taken = []
        for number in range(passes):
            stage.bar.doing(f"pass {number + 1}/{passes}")
            began = time.perf_counter()
            report = await running.post("/v1/sync", {})
            taken.append((time.perf_counter() - began) * 1e3)
            if any(each["error"] or each["new"] or each["updated"] or each["expunged"] for each in report["accounts"]):
                raise BenchError(f"something changed: {report}")
            # Dovecot may have something to say to an IDLE that has just begun: the next pass starts in silence.
            await asyncio.sleep(0.3)
            stage.bar.advance()
    round_trip = _ROUND_TRIP_SECONDS * 1e3
    in_trips = Samples.of([each / round_trip for each in taken], "round trips")
    lines = (
        Line("wall time of the pass, all 4", in_trips, Goal("under", 2, "round trips")),
        Line("  in milliseconds", Samples.of(taken, "ms")),
    )
    return Result(lines, (), {"milliseconds": taken, "round_trip_ms": round_trip})
