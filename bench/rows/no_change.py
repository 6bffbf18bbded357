"""A pass that finds nothing, over 4 accounts of 4 mailboxes, on the warm connections of a running service.

Each account talks to Dovecot through a proxy of its own that counts round trips: how often the client spoke after the
server had had its say. Timed is ``POST /v1/sync`` over TCP with the token, on one HTTP connection, proxies included.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from bench import corpus, service
from bench.figures import Goal, Line, Result, Samples
from bench.processes import BenchError
from bench.stage import Stage
from servers.proxy import Proxy

TITLE = "No-change pass over 4 accounts of 4 mailboxes"

_ACCOUNTS = 4
_MAILBOXES = 4
_MESSAGES = 10
_WARM_UP = 3


async def measure(stage: Stage) -> Result:
    passes = stage.size(30, 10)
    server = stage.dovecot
    stage.bar.expect(passes)
    async with contextlib.AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(server.host, server.port)) for _ in range(_ACCOUNTS)]
        accounts = []
        for number, proxy in enumerate(proxies):
            user = server.new_user()
            await asyncio.to_thread(server.fill, user, "INBOX", corpus.messages(_MESSAGES, seed=10 + number))
            accounts.append(service.AccountConfig(f"account{number}", user, proxy.port, server.password))
        folder = stack.enter_context(stage.folder())
        config = service.write_config(folder, accounts)
        running = await stack.enter_async_context(service.running(stage.programs, "no_change", folder, config))
        stage.bar.doing("first sync")
        await running.at_rest()
        found = [each["mailboxes"] for each in (await running.get("/v1/accounts"))["accounts"]]
        if found != [_MAILBOXES] * _ACCOUNTS:
            raise BenchError(f"each account should have {_MAILBOXES} mailboxes, found {found}")
        for _ in range(_WARM_UP):
            await running.post("/v1/sync", {})
        connections = sum(proxy.connections for proxy in proxies)
        milliseconds, trips, inside = [], [], []
        for number in range(passes):
            stage.bar.doing(f"pass {number + 1}/{passes}")
            before = [proxy.round_trips for proxy in proxies]
            began = time.perf_counter()
            report = await running.post("/v1/sync", {})
            milliseconds.append((time.perf_counter() - began) * 1e3)
            inside.append(report["seconds"] * 1e3)
            # The answer of the last command has come; whether the account spoke once more shows in the next moment.
            await asyncio.sleep(0.05)
            trips += [proxy.round_trips - count for proxy, count in zip(proxies, before, strict=True)]
            if any(each["error"] or each["new"] or each["updated"] or each["expunged"] for each in report["accounts"]):
                raise BenchError(f"something changed: {report}")
            stage.bar.advance()
        opened = sum(proxy.connections for proxy in proxies) - connections
    round_trips = Samples.of(trips, "round trips")
    lines = (
        Line("round trips an account", round_trips, Goal("exactly", 1, "round trips"), judged=round_trips.high),
        Line("time of the pass, all 4", Samples.of(milliseconds, "ms"), Goal("under", 50, "ms")),
        Line("  by the service's own clock", Samples.of(inside, "ms")),
    )
    notes = (f"{opened} connections were opened during {passes} passes.",)
    return Result(lines, notes, {"milliseconds": milliseconds, "round_trips": trips, "connections_opened": opened})
