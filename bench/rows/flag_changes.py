"""Flags changed by another client in a mailbox of 100,000 messages: none, 1 % and 10 %, on both tiers that tell which.

Each is ``mailmill sync --no-process --json`` on a data folder that was in sync; told are the time and the bytes that
its report names for the pass. One Dovecot announces QRESYNC and another one, on the same mail, only CONDSTORE; both
keep the one store in sync by turns. Proportional means that a changed message costs no more where ten times as many
changed; what a pass costs that finds nothing (connecting, looking) is taken off first.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from bench import service
from bench.figures import Goal, Line, Result, Samples, paired
from bench.processes import BenchError
from bench.stage import Stage

TITLE = "Flags changed in a mailbox of 100,000 messages"

_SEED = 4
_TIERS = ("qresync", "condstore")
_SHARES = (0, 1, 10)
_PROPORTIONAL = Goal("at most", 1.25, "×")


async def measure(stage: Stage) -> Result:
    size = stage.size(100_000, 2_000)
    rounds = stage.size(3, 1)
    roomy = stage.roomy
    stage.bar.expect(1 + rounds * len(_TIERS) * len(_SHARES))
    stage.bar.doing(f"filling a mailbox of {size:,}")
    user = await stage.many(size, seed=_SEED)
    signs = itertools.cycle("+-")
    passes: dict[tuple[str, int], list[dict[str, Any]]] = {key: [] for key in itertools.product(_TIERS, _SHARES)}
    with stage.folder() as folder:
        servers = {"qresync": roomy.qresync, "condstore": roomy.condstore}

        async def sync(tier: str, expected: dict[str, int]) -> dict[str, Any]:
            server = servers[tier]
            account = service.AccountConfig("bench", user, server.port, password=server.password)
            config: Path = service.write_config(folder, [account])
            command = stage.programs.mailmill(config, "sync", "--no-process", "--json")
            [report] = (await stage.programs.run(f"flag_changes-{tier}", command)).json["accounts"]
            if report["error"] or any(report[name] != count for name, count in expected.items()):
                raise BenchError(f"mailmill sync reported {report}, wanted {expected}")
            return report

        stage.bar.doing("first sync")
        await sync("qresync", {"new": size})
        stage.bar.advance()
        for number in range(rounds):
            for share in _SHARES:
                uids = list(range(1, size + 1, 100 // share)) if share else []
                for tier in _TIERS:
                    stage.bar.doing(f"{share} % on {tier}, {number + 1}/{rounds}")
                    # Not a sign for each share: what one tier set the other takes back, so each STORE changes all.
                    change = rf"{next(signs)}FLAGS.SILENT (\Flagged)"
                    await asyncio.to_thread(roomy.store_flags, user, uids, change)
                    expected = {"new": 0, "updated": len(uids), "expunged": 0}
                    passes[tier, share].append(await sync(tier, expected))
                    stage.bar.advance()
    lines = []
    for tier in _TIERS:
        for what, name, unit, factor in (("bytes", "bytes", "bytes", 1.0), ("time", "seconds", "µs", 1e6)):
            nothing = Samples.of([float(each[name]) for each in passes[tier, 0]], unit).median
            few, many = (
                Samples.of(
                    [(each[name] - nothing) * factor / (size * share // 100) for each in passes[tier, share]], unit
                )
                for share in (1, 10)
            )
            title = f"{tier}: {what} for a changed message, 10 % changed"
            lines.append(Line(title, many, _PROPORTIONAL, "1 % changed", few, paired(many, few)))
        for share in _SHARES:
            taken = Samples.of([each["seconds"] * 1e3 for each in passes[tier, share]], "ms")
            lines.append(Line(f"  the pass, {share} % changed", taken))
            kilobytes = Samples.of([each["bytes"] / 1e3 for each in passes[tier, share]], "kB")
            lines.append(Line("  received", kilobytes))
    raw = {f"{tier} {share} %": each for (tier, share), each in passes.items()}
    return Result(tuple(lines), (), {"messages": size, "passes": raw})
