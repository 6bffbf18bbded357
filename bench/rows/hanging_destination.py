"""1,000 messages while one of two destinations hangs, against both well.

Each run is a fresh service on an empty account with two webhook destinations for ``messageNew`` and
``messageProcessed``. The messages are delivered to a mailbox that is not being watched, and the clock starts with the
request for a pass: so all of them arrive at one moment that both sides share. It stops when the good destination has
had both events of every message, which is also when all are processed. The hanging one accepts and never answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass

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


@dataclass(frozen=True, slots=True)
class _Run:
    """``seconds`` until the good destination had all; ``cpu_seconds`` the service used meanwhile."""

    seconds: float
    cpu_seconds: float
    requests_to_other: int


async def measure(stage: Stage) -> Result:
    messages = stage.size(1000, 200)
    rounds = stage.size(3, 2)
    raws = list(corpus.messages(messages, seed=40, mean_bytes=_MEAN_BYTES))

    def side(*, hanging: bool) -> Callable[[], Awaitable[_Run]]:
        return lambda: _run(stage, raws, hanging=hanging)

    warm_up = stage.size(1, 0)
    stage.bar.expect(2 * (rounds + warm_up))
    sides = {"both well": side(hanging=False), "one hanging": side(hanging=True)}
    runs = await stage.interleaved(rounds, sides, warm_up=warm_up)

    def samples(name: str, unit: str, value: Callable[[_Run], float]) -> Samples:
        return Samples.of([value(run) for run in runs[name]], unit)

    hanging, well = (samples(name, "s", lambda run: run.seconds) for name in ("one hanging", "both well"))
    lines = [
        Line(
            "one of two destinations hanging",
            hanging,
            Goal("at most", 1.15, "×"),
            "both well",
            well,
            paired(hanging, well),
        )
    ]
    for title, unit, value in (
        ("messages a second", "messages/s", lambda run: messages / run.seconds),
        ("service CPU a message", "ms", lambda run: run.cpu_seconds / messages * 1e3),
    ):
        ours, peer = samples("one hanging", unit, value), samples("both well", unit, value)
        lines.append(Line(f"  {title}", ours, None, "both well", peer))
    tries = [run.requests_to_other for run in runs["one hanging"]]
    notes = (f"the hanging destination was tried {min(tries)} to {max(tries)} times in a run.",)
    raw = {"messages": messages, "runs": {name: [asdict(run) for run in each] for name, each in runs.items()}}
    return Result(tuple(lines), notes, raw)


async def _run(stage: Stage, raws: Sequence[bytes], *, hanging: bool) -> _Run:
    server = stage.dovecot
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
                if good.requests:
                    raise BenchError("messages were noticed before the clock began")
                cpu, began = running.cpu_seconds(), asyncio.get_running_loop().time()
                syncing = asyncio.create_task(running.post("/v1/sync", {"process": False}))
                try:
                    await good.until(lambda: all(good.count(each) == len(raws) for each in _EVENTS), _TIMEOUT_SECONDS)
                except TimeoutError:
                    have = [good.count(each) for each in _EVENTS]
                    raise BenchError(f"the good destination got {have} of {len(raws)}") from None
                finally:
                    await asyncio.wait({syncing})
                cpu = running.cpu_seconds() - cpu
                await asyncio.sleep(service.FIGURES_SECONDS)
                queue = (await running.get("/v1/status"))["queue"]
                if queue["pending"] or queue["processing"] or queue["failed"]:
                    raise BenchError(f"work is left: {queue}")
                return _Run(max(good.arrived.values()) - began, cpu, other.requests)
