"""From the moment a bare IDLE watcher saw a new message to its webhooks: ``messageNew``, then ``messageProcessed``.

Watcher and webhook receiver share one process and one clock; the service is another process. Messages are appended one
by one by a third connection, the next when the last one's webhooks have come. Dovecot tells an idling client of news
after a delay of its own (0.5 s), each client by its own timer: that is why the watcher is the starting line.
"""

from __future__ import annotations

import asyncio
import functools

from bench import corpus, service
from bench.bare_imap import BareImap
from bench.figures import Goal, Line, Result, Samples
from bench.receiver import Receiver
from bench.stage import Stage

TITLE = "APPEND to webhook, after a bare IDLE watcher saw it"

_SEED = 30
_WARM_UP = 3
_WEBHOOK_SECONDS = 60
_EVENTS = ("messageNew", "messageProcessed")


async def measure(stage: Stage) -> Result:
    messages = stage.size(100, 15)
    server = stage.dovecot
    user = server.new_user()
    await asyncio.to_thread(server.fill, user, "INBOX", corpus.messages(10, seed=_SEED - 1))
    stage.bar.expect(messages + _WARM_UP)
    after_append: dict[str, list[float]] = {event: [] for event in _EVENTS}
    after_watcher: dict[str, list[float]] = {event: [] for event in _EVENTS}
    watching = (server.host, server.port, user, server.password)
    with stage.folder() as folder:
        async with Receiver() as receiver:
            account = service.AccountConfig("bench", user, server.port, server.password)
            config = service.write_config(folder, [account], [service.HookConfig("hook", receiver.url, _EVENTS)])
            async with (
                service.running(stage.programs, "latency", folder, config) as running,
                await BareImap.open(*watching) as watcher,
                await BareImap.open(*watching) as appender,
            ):
                stage.bar.doing("first sync")
                await running.at_rest()
                await watcher.idle("INBOX")
                loop = asyncio.get_running_loop()
                for number in range(messages + _WARM_UP):
                    stage.bar.doing(f"message {number + 1}/{messages + _WARM_UP}")
                    raw = corpus.one(number, seed=_SEED)
                    # The moment the server begins to have the message, not that of our having its answer.
                    began = loop.time()
                    await appender.append("INBOX", raw)
                    seen = await watcher.exists(10 + number + 1)
                    keys = [(event, corpus.message_id(number, _SEED)) for event in _EVENTS]
                    await receiver.until(functools.partial(receiver.arrived.keys().__ge__, set(keys)), _WEBHOOK_SECONDS)
                    for event, key in zip(_EVENTS, keys, strict=True):
                        if number >= _WARM_UP:
                            after_append[event].append((receiver.arrived[key] - began) * 1e3)
                            after_watcher[event].append((receiver.arrived[key] - seen) * 1e3)
                    stage.bar.advance()
    lines = []
    for event, limit in zip(_EVENTS, (50, 150), strict=True):
        samples = Samples.of(after_watcher[event], "ms")
        lines.append(Line(f"{event} after the watcher, p50", samples, Goal("under", limit, "ms")))
        lines.append(Line("  p99", Samples.of([samples.percentile(99)], "ms")))
        lines.append(Line("  after APPEND was sent", Samples.of(after_append[event], "ms")))
    return Result(tuple(lines), (), {"after_watcher_ms": after_watcher, "after_append_ms": after_append})
