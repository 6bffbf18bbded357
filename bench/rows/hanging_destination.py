"""1,000 messages while one of two destinations hangs, against both well.

Each run is a fresh service on an empty account with two webhook destinations for ``messageNew`` and
``messageProcessed``. The messages are delivered to a mailbox that is not being watched, and the clock starts with the
request for a pass: so all of them arrive at one moment that both sides share. It stops when the good destination has
had both events of every message, which is also when all are processed. The hanging one accepts and never answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bench import corpus, service
from bench.figures import Goal, Line, Result, Samples, paired
from bench.processes import BenchError
from bench.receiver import Receiver
from bench.stage import Stage

TITLE = "1,000 messages with one of two destinations hanging"

_EVENTS = ("messageNew", "messageProcessed")
_UNWATCHED = "Archive"
_MEAN_BYTES = 20_000
_TIMEOUT_SECONDS = 300


async def measure(stage: Stage) -> Result:
    messages = stage.size(1000, 200)
    rounds = stage.size(5, 2)
    server = stage.dovecot
    raws = list(corpus.messages(messages, seed=40, mean_bytes=_MEAN_BYTES))
    hung: list[int] = []

    def side(*, hanging: bool) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            user = server.new_user()
            await asyncio.to_thread(server.fill, user, "INBOX", ())
            with stage.folder() as folder:
                async with Receiver() as good, Receiver(hanging=hanging) as other:
                    hooks = [
                        service.HookConfig("good", good.url, _EVENTS),
                        service.HookConfig("other", other.url, _EVENTS),
                    ]
                    account = service.AccountConfig("bench", user, server.port, server.password)
                    config = service.write_config(folder, [account], hooks)
                    name = f"hanging_destination-{'hanging' if hanging else 'well'}"
                    async with service.running(stage.programs, name, folder, config) as running:
                        await running.at_rest()
                        await asyncio.to_thread(server.fill, user, _UNWATCHED, raws)
                        loop = asyncio.get_running_loop()
                        began = loop.time()
                        syncing = asyncio.create_task(running.post("/v1/sync", {"process": False}))

                        def all_there() -> bool:
                            return all(good.count(event) == messages for event in _EVENTS)

                        try:
                            await good.until(all_there, _TIMEOUT_SECONDS)
                        except TimeoutError:
                            have = [good.count(event) for event in _EVENTS]
                            raise BenchError(f"the good destination got {have} of {messages}") from None
                        finally:
                            await asyncio.wait({syncing})
                        status = await running.get("/v1/status")
                        if status["queue"]["pending"] or status["queue"]["processing"] or status["queue"]["failed"]:
                            raise BenchError(f"work is left: {status['queue']}")
                        if hanging:
                            hung.append(other.requests)
                        return max(good.arrived.values()) - began

        return run

    stage.bar.expect(2 * (rounds + 1))
    measured = await stage.interleaved(
        rounds, {"both well": side(hanging=False), "one hanging": side(hanging=True)}, warm_up=stage.size(1, 0)
    )
    well = Samples.of(measured["both well"], "s")
    hanging = Samples.of(measured["one hanging"], "s")
    goal = Goal("at most", 1.15, "×")
    lines = (
        Line("one of two destinations hanging", hanging, goal, "both well", well, paired(hanging, well)),
        Line("  messages a second", Samples.of([messages / each for each in hanging.values], "messages/s")),
    )
    notes = (f"the hanging destination was tried {min(hung)} to {max(hung)} times in a run.",)
    return Result(lines, notes, {"messages": messages, "seconds": measured, "requests_hung": hung})
