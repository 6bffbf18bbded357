"""Memory of the service at rest: 4 accounts over TLS, 300 messages each, synced and processed, then 20 s of rest.

Told is what is resident (VmRSS) of the service and all its child processes, several times over the last seconds.
"""

from __future__ import annotations

import asyncio

from bench import corpus, service
from bench.figures import Goal, Line, Result, Samples
from bench.stage import Stage

TITLE = "Memory of the service with 4 accounts at rest"

_ACCOUNTS = 4
_LOOKS = 5


async def measure(stage: Stage) -> Result:
    messages = stage.size(300, 50)
    rest_seconds = stage.size(20, 5)
    server = stage.dovecot
    stage.bar.expect(_ACCOUNTS + 1 + _LOOKS)
    accounts = []
    for number in range(_ACCOUNTS):
        stage.bar.doing(f"filling account {number + 1}")
        user = server.new_user()
        await asyncio.to_thread(server.fill, user, "INBOX", corpus.messages(messages, seed=20 + number))
        accounts.append(
            service.AccountConfig(f"account{number}", user, server.tls_port, server.password, ca_file=server.ca_file)
        )
        stage.bar.advance()
    with stage.folder() as folder:
        config = service.write_config(folder, accounts)
        async with service.running(stage.programs, "memory", folder, config) as running:
            stage.bar.doing("first sync and processing")
            await running.at_rest()
            stage.bar.advance()
            stage.bar.doing(f"resting for {rest_seconds} s")
            await asyncio.sleep(rest_seconds - _LOOKS + 1)
            looks = []
            for _ in range(_LOOKS):
                looks.append(running.memory_bytes() / 1e6)
                stage.bar.advance()
                await asyncio.sleep(1)
            peak = running.memory_bytes("VmHWM") / 1e6
            status = await running.get("/v1/status")
    lines = (
        Line("resident at rest", Samples.of(looks, "MB"), Goal("under", 150, "MB")),
        Line("  most during sync and processing", Samples.of([peak], "MB")),
    )
    notes = (f"{status['messages']} messages held, {status['queue']['completed']} of them processed.",)
    return Result(lines, notes, {"resident_mb": looks, "peak_mb": peak, "status": status})
