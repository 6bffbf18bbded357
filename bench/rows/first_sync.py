"""The first sync of the large mailbox into the store, against mbsync to a Maildir.

Ours is ``mailmill sync --no-process --json`` on a fresh data folder: raw mail, messages, places, work rows and events,
each batch synced to disk. Theirs is mbsync with its default fsync. Wall time is that of the whole process less a no-op
start: the same command, on a fresh folder as well, for an account on the same server whose mailboxes are empty. Both
look at all mailboxes of the account (INBOX and three empty ones), in the clear over loopback.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from bench import peers, service
from bench.figures import Goal, Line, Result, Samples, paired
from bench.processes import BenchError, Ended
from bench.stage import BULK_USER, EMPTY_USER, Stage

TITLE = "First sync of 5,000 messages into the store"


async def measure(stage: Stage) -> Result:
    rounds = stage.size(5, 3)
    bulk = await stage.bulk()
    server = stage.dovecot
    await asyncio.to_thread(server.fill, EMPTY_USER, "INBOX", ())
    wanted = {BULK_USER: bulk.messages, EMPTY_USER: 0}

    def mailmill(user: str) -> Callable[[], Awaitable[Ended]]:
        async def run() -> Ended:
            with stage.folder() as folder:
                account = service.AccountConfig("bench", user, server.port, password=server.password)
                config = service.write_config(folder, [account])
                command = stage.programs.mailmill(config, "sync", "--no-process", "--json")
                await asyncio.to_thread(os.sync)
                ended = await stage.programs.run(f"first_sync-{user}", command)
            [report] = ended.json["accounts"]
            if report["error"] or report["new"] != wanted[user]:
                raise BenchError(f"mailmill sync reported {report}, wanted {wanted[user]} messages")
            return ended

        return run

    def mbsync(user: str) -> Callable[[], Awaitable[Ended]]:
        async def run() -> Ended:
            with stage.folder() as folder:
                where = {"host": server.host, "port": server.port, "user": user, "password": server.password}
                config = peers.mbsync_config(folder / "mail", **where)
                command = [str(peers.mbsync()), "--config", str(config), "--all", "--quiet"]
                await asyncio.to_thread(os.sync)
                ended = await stage.programs.run(f"mbsync-{user}", command)
                stored = sum(1 for _ in (folder / "mail" / "INBOX").glob("[cn][ue][rw]/*"))
            if stored != wanted[user]:
                raise BenchError(f"mbsync stored {stored} messages, wanted {wanted[user]}")
            return ended

        return run

    sides = {"mailmill no-op": mailmill(EMPTY_USER), "mailmill": mailmill(BULK_USER)}
    notes = []
    try:
        peers.mbsync()
        sides |= {"mbsync no-op": mbsync(EMPTY_USER), "mbsync": mbsync(BULK_USER)}
    except BenchError as error:
        notes.append(str(error))
    stage.bar.expect((rounds + 1) * len(sides))
    measured = await stage.interleaved(rounds, sides)

    def seconds(name: str) -> list[float]:
        """Wall time less the median no-op start."""
        no_op = Samples.of([each.wall_seconds for each in measured[f"{name} no-op"]], "s").median
        spent = [each.wall_seconds - no_op for each in measured[name]]
        if min(spent) <= 0:
            raise BenchError(
                f"{name}: a no-op start ({no_op:.2f} s) took longer than the work; the machine is too busy"
            )
        return spent

    def rates(name: str) -> Samples:
        return Samples.of([bulk.messages / each for each in seconds(name)], "messages/s")

    def of(name: str, unit: str, value: Callable[[Ended], float]) -> Samples:
        return Samples.of([value(each) for each in measured[name]], unit)

    ours = rates("mailmill")
    lines = [Line("first sync", ours)]
    if "mbsync" in measured:
        theirs = rates("mbsync")
        lines.append(Line("  against mbsync", ours, Goal("at least", 1.5, "×"), "mbsync", theirs, paired(ours, theirs)))
    for title, unit, value in (
        ("wall time", "s", lambda each: each.wall_seconds),
        ("CPU time", "s", lambda each: each.cpu_seconds),
        ("peak memory", "MB", lambda each: each.peak_bytes / 1e6),
    ):
        for suffix, what in (("", ""), (" no-op", ", no-op start")):
            peer = of(f"mbsync{suffix}", unit, value) if "mbsync" in measured else None
            lines.append(Line(f"  {title}{what}", of(f"mailmill{suffix}", unit, value), None, "mbsync", peer))
    runs = {
        name: [{"wall": each.wall_seconds, "cpu": each.cpu_seconds, "peak": each.peak_bytes} for each in ended]
        for name, ended in measured.items()
    }
    return Result(tuple(lines), tuple(notes), {"messages": bulk.messages, "bytes": bulk.size_bytes, "runs": runs})
