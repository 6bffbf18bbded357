"""A pass that finds nothing, over 1,000 accounts of 4 mailboxes, on the warm connections of one running service.

The server is ``light_imap`` in a process of its own: a thousand Dovecot processes would measure memory. Between
it and the service stands ``counting_proxy``, in a third process, which counts each connection's round trips. Timed is
``POST /v1/sync`` over TCP from request to answer, on one HTTP connection. Server and proxy share the machine's
processors with the service: what they used is told.
"""

from __future__ import annotations

import asyncio
import time

from bench import service
from bench.companions import companion
from bench.figures import Goal, Line, Result, Samples
from bench.processes import BenchError
from bench.stage import Stage

TITLE = "No-change pass over 1,000 accounts"

_MESSAGES = 1
_WARM_UP = 3
_SETTLE_SECONDS = 2.0


async def measure(stage: Stage) -> Result:
    count = stage.size(1000, 100)
    passes = stage.size(20, 5)
    stage.bar.expect(passes)
    async with (
        companion("bench.light_imap", _MESSAGES) as server,
        companion("bench.counting_proxy", "127.0.0.1", server.port) as proxy,
    ):
        accounts = [service.AccountConfig(f"a{n:04}", f"user{n}", proxy.port, "x") for n in range(count)]
        with stage.folder() as folder:
            config = service.write_config(folder, accounts)
            async with service.running(stage.programs, "no_change_fleet", folder, config) as running:
                stage.bar.doing("first sync of all")
                await running.at_rest(timeout_seconds=300)
                for _ in range(_WARM_UP):
                    await running.post("/v1/sync", {})
                await asyncio.sleep(_SETTLE_SECONDS)
                connections = (await proxy.ask())["connections"]
                milliseconds, trips, cpu, beside = [], [], [], []
                for number in range(passes):
                    stage.bar.doing(f"pass {number + 1}/{passes}")
                    before = (await proxy.ask())["round_trips"]
                    cpu_before = running.cpu_seconds()
                    beside_before = server.cpu_seconds + proxy.cpu_seconds
                    began = time.perf_counter()
                    report = await running.post("/v1/sync", {})
                    milliseconds.append((time.perf_counter() - began) * 1e3)
                    cpu.append((running.cpu_seconds() - cpu_before) * 1e3)
                    beside.append((server.cpu_seconds + proxy.cpu_seconds - beside_before) * 1e3)
                    # The answers have come; whether an account spoke once more shows in the next moment.
                    await asyncio.sleep(0.2)
                    after = (await proxy.ask())["round_trips"]
                    # A connection that was opened since counts from zero: the number of connections tells of it.
                    trips += [now - then for now, then in zip(after, before, strict=False)]
                    _check(report, count)
                    stage.bar.advance()
                opened = (await proxy.ask())["connections"] - connections
                resident = running.memory_bytes() / 1e6
    # Connections of the first sync that were closed since have no round trips; each account has one that lives.
    round_trips = Samples.of([trip for trip in trips if trip], "round trips")
    expected = count * passes
    lines = (
        Line("round trips an account", round_trips, Goal("exactly", 1, "round trips"), judged=round_trips.high),
        Line(f"time of the pass, all {count:,}", Samples.of(milliseconds, "ms"), Goal("under", 1000, "ms")),
        Line("  CPU of the service, an account", Samples.of([each / count for each in cpu], "ms")),
        Line("  CPU of server and proxy, an account", Samples.of([each / count for each in beside], "ms")),
        Line("resident with all connected", Samples.of([resident], "MB")),
    )
    notes = [f"{opened} connections were opened during {passes} passes."]
    if len(round_trips.values) != expected:
        notes.append(f"{len(round_trips.values)} connections spoke, of {expected} that should have.")
    raw = {
        "accounts": count,
        "milliseconds": milliseconds,
        "service_cpu_ms": cpu,
        "beside_cpu_ms": beside,
        "connections_opened": opened,
        "resident_mb": resident,
    }
    return Result(lines, tuple(notes), raw)


def _check(report: dict[str, list[dict[str, object]]], count: int) -> None:
    if len(report["accounts"]) != count:
        raise BenchError(f"{len(report['accounts'])} of {count} accounts answered")
    for each in report["accounts"]:
        if each["error"] or each["new"] or each["updated"] or each["expunged"] or each["mailboxes"] != 4:
            raise BenchError(f"something changed, or not all was looked at: {each}")
