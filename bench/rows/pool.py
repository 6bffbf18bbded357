"""100 single-message fetches from a server 20 ms away over TLS: a connection for each, against the pool.

A connection for each: TCP, TLS, login, select, fetch, logout. The pool: one lease after another, its first connection
included. Both one after another, both with mailmill's own client, each in a fresh process; besides, as a service asks:
all at once, of a pool that opens up to three connections. And what an idle connection costs in memory: how much a
process grows by 100 connections, logged in and in IDLE, over TLS and in the clear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bench import corpus
from bench.distance import DistantServer
from bench.figures import Goal, Line, Result, Samples, paired
from bench.processes import BenchError
from bench.stage import Stage

TITLE = "100 single-message fetches at 20 ms: a connection each against the pool"

_ROUND_TRIP_SECONDS = 0.02


async def measure(stage: Stage) -> Result:
    fetches = stage.size(100, 15)
    rounds = stage.size(3, 2)
    open_connections = stage.size(100, 25)
    server = stage.dovecot
    user = server.new_user()
    raws = list(corpus.messages(fetches, seed=50, mean_bytes=8_000))
    await asyncio.to_thread(server.fill, user, "INBOX", raws)
    who = (user, server.password, server.ca_file)
    expected = sum(len(raw) for raw in raws)

    async with DistantServer(server.host, server.tls_port, round_trip_seconds=_ROUND_TRIP_SECONDS) as distant:

        def side(way: str) -> Callable[[], Awaitable[dict[str, Any]]]:
            async def run() -> dict[str, Any]:
                command = stage.programs.side("single_fetches", way, distant.host, distant.port, *who, fetches)
                measured = (await stage.programs.run(f"pool-{way}", command)).json
                if measured["bytes"] != expected:
                    raise BenchError(f"{way} fetched {measured['bytes']} bytes, wanted {expected}")
                return measured

            return run

        stage.bar.expect(3 * (rounds + 1) + 2 * rounds)
        sides = {"pool": side("pool"), "together": side("together"), "each": side("each")}
        measured = await stage.interleaved(rounds, sides)

    def idling(tls: str, port: int) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            command = stage.programs.side("idle_connections", server.host, port, tls, *who, open_connections)
            return (await stage.programs.run(f"connections-{tls}", command)).json["bytes_each"]

        return run

    memory = await stage.interleaved(
        rounds, {"TLS": idling("implicit", server.tls_port), "plain": idling("none", server.port)}, warm_up=0
    )

    def rates(way: str) -> Samples:
        return Samples.of([fetches / each["seconds"] for each in measured[way]], "fetches/s")

    def trips(way: str) -> Samples:
        return Samples.of([each["round_trips"] / fetches for each in measured[way]], "round trips")

    pool, together, each = rates("pool"), rates("together"), rates("each")
    goal = Goal("under", 5, "MB")
    lines = (
        Line("single fetches at 20 ms", pool, Goal("at least", 10, "×"), "a connection each", each, paired(pool, each)),
        Line("  all asked for at once, pool of 3", together, None, "a connection each", each, paired(together, each)),
        Line("  IMAP round trips a fetch", trips("pool"), None, "a connection each", trips("each")),
        Line("memory, idle connection, TLS", Samples.of([size / 1e6 for size in memory["TLS"]], "MB"), goal),
        Line("memory, idle connection, plain", Samples.of([size / 1e6 for size in memory["plain"]], "MB"), goal),
    )
    opened = f"the pool opened {measured['pool'][0]['connections']} connection, the other side {fetches}"
    return Result(
        lines,
        (f"{opened}; TCP and TLS handshakes cost two round trips more each.",),
        {"runs": measured, "memory": memory},
    )
