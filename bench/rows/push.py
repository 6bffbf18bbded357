"""From the moment a bare IDLE watcher saw a new message to the commit that holds it, and what that is made of.

Watcher, appender and clock are in this process; the service is another one, with an observer beside its engines
(``sides/watched_service``) that notes the monotonic clock, which all processes share, when the loop first runs after
the commit. The starting line is the watcher, because how long a server takes to tell its clients is not ours: Dovecot
waits half a second. Three times: on Dovecot, on ``light_imap`` (which tells at once), and there with 1,000 other idle
accounts in the same service. Each message is appended when the last one's processing has been recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from bench import corpus, service
from bench.bare_imap import BareImap
from bench.companions import companion
from bench.figures import Goal, Line, Result, Samples
from bench.observed import Observed
from bench.stage import Stage

TITLE = "APPEND to stored, after a bare IDLE watcher saw it"

_SEED = 60
_WARM_UP = 5
_OTHERS = 1000
_SETTLE_SECONDS = 3.0


async def measure(stage: Stage) -> Result:
    slow, quick = stage.size(100, 10), stage.size(200, 20)
    others = stage.size(_OTHERS, 50)
    stage.bar.expect(slow + 2 * quick + 3 * _WARM_UP)
    server = stage.dovecot
    user = server.new_user()
    await asyncio.to_thread(server.fill, user, "INBOX", corpus.messages(10, seed=_SEED - 1))
    measured = {
        "on Dovecot": await _pushes(stage, "Dovecot", _account(user, server.port, server.password), (), slow, 10)
    }
    for title, count in (("on a server that tells at once", 0), (f"there, with {others:,} other accounts", others)):
        async with companion("bench.light_imap", 0) as light:
            rest = [service.AccountConfig(f"a{n:04}", f"other{n}", light.port, "x") for n in range(count)]
            measured[title] = await _pushes(stage, title, _account("pushed", light.port, "x"), rest, quick, 0)
    lines = []
    for title, samples in measured.items():
        lines.append(Line(f"stored after the watcher, {title}, p50", samples, Goal("at most", 10, "ms")))
        lines.append(Line("  p99", Samples.of([samples.percentile(99)], "ms"), Goal("at most", 50, "ms")))
    return Result(tuple(lines), (), {"after_watcher_ms": {name: each.values for name, each in measured.items()}})


def _account(user: str, port: int, password: str) -> service.AccountConfig:
    return service.AccountConfig("bench", user, port, password)


async def _pushes(
    stage: Stage,
    title: str,
    account: service.AccountConfig,
    others: Sequence[service.AccountConfig],
    messages: int,
    held: int,
) -> Samples:
    """Milliseconds from watcher to commit, of each message. ``held``: how many are in the INBOX already."""
    where = ("127.0.0.1", account.port, account.user, account.password)
    after_watcher = []
    async with _watched(stage, [account, *others]) as (running, observed):
        stage.bar.doing(f"{title}: first sync")
        await running.at_rest(timeout_seconds=300)
        await asyncio.sleep(_SETTLE_SECONDS)
        new, processed = observed.count("messageNew"), observed.count("messageProcessed")
        async with await BareImap.open(*where) as watcher, await BareImap.open(*where) as appender:
            await watcher.idle("INBOX")
            for number in range(messages + _WARM_UP):
                stage.bar.doing(f"{title}: message {number + 1}/{messages + _WARM_UP}")
                await appender.append("INBOX", corpus.one(number, seed=_SEED))
                seen = await watcher.exists(held + number + 1)
                stored = await observed.until("messageNew", new + number + 1)
                await observed.until("messageProcessed", processed + number + 1)
                if number >= _WARM_UP:
                    after_watcher.append((stored - seen) * 1e3)
                stage.bar.advance()
    return Samples.of(after_watcher, "ms")


@contextlib.asynccontextmanager
async def _watched(
    stage: Stage, accounts: Sequence[service.AccountConfig]
) -> AsyncIterator[tuple[service.Service, Observed]]:
    with stage.folder() as folder:
        config = service.write_config(folder, accounts)
        async with (
            Observed() as observed,
            service.running(stage.programs, "push", folder, config, observer_port=observed.port) as running,
        ):
            yield running, observed
