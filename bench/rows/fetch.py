"""Fetching 5,000 messages with bodies, client only: against a bare socket (the limit), aioimaplib and imapflow (node).

Each side is a fresh process that connects, logs in and selects, and only then starts its clock and asks for
``UID FETCH 1:5000 (UID BODY.PEEK[])``; CPU time is that of the same span. Bodies are counted and dropped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bench import REPOSITORY, peers
from bench.figures import Goal, Line, Result, Samples, paired
from bench.processes import BenchError
from bench.stage import BULK_USER, Stage

TITLE = "Fetch 5,000 messages with bodies, client only"

_AIOIMAPLIB_BATCH = 50


async def measure(stage: Stage) -> Result:
    rounds = stage.size(7, 3)
    bulk = await stage.bulk()
    server = stage.dovecot
    where = (server.host, server.port, BULK_USER, server.password, bulk.messages)
    commands = {
        "socket": stage.programs.side("fetch_socket", *where),
        "mailmill": stage.programs.side("fetch_mailmill", *where),
    }
    notes = []
    sides = REPOSITORY / "bench" / "sides"
    arguments = [str(each) for each in where]
    try:
        script = str(sides / "fetch_aioimaplib.py")
        commands["aioimaplib"] = [str(await peers.python()), script, *arguments, str(_AIOIMAPLIB_BATCH)]
    except BenchError as error:
        notes.append(f"aioimaplib was not measured: {error}")
    try:
        node, folder = await peers.imapflow()
        commands["imapflow"] = [str(node), str(sides / "fetch_imapflow.mjs"), str(folder), *arguments]
    except BenchError as error:
        notes.append(f"imapflow was not measured: {error}")

    def side(name: str) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def run() -> dict[str, Any]:
            measured = (await stage.programs.run(f"fetch-{name}", commands[name])).json
            if measured.get("messages", bulk.messages) != bulk.messages or measured["bytes"] < bulk.size_bytes:
                raise BenchError(f"{name} fetched {measured}, wanted {bulk}")
            return measured

        return run

    stage.bar.expect((rounds + 1) * len(commands))
    measured = await stage.interleaved(rounds, {name: side(name) for name in commands})

    def rates(name: str) -> Samples:
        return Samples.of([bulk.messages / each["seconds"] for each in measured[name]], "messages/s")

    def cpu(name: str) -> Samples:
        return Samples.of([each["cpu_seconds"] / bulk.messages * 1e6 for each in measured[name]], "µs")

    lines = []
    for name, title, goal in (
        ("socket", "fetch against a bare socket", Goal("at least", 0.9, "×")),
        ("aioimaplib", "fetch against aioimaplib", Goal("at least", 5, "×")),
        ("imapflow", "fetch against imapflow", Goal("at least", 2, "×")),
    ):
        peer = rates(name) if name in measured else None
        ratio = paired(rates("mailmill"), peer) if peer else None
        lines.append(Line(title, rates("mailmill"), goal, name, peer, ratio))
        if peer:
            lines.append(Line("  client CPU a message", cpu("mailmill"), None, name, cpu(name)))
    return Result(tuple(lines), tuple(notes), {"messages": bulk.messages, "bytes": bulk.size_bytes, "runs": measured})
