"""200,000 lines of ``FETCH (UID FLAGS MODSEQ)``: ours from bytes to collected metadata, against imapclient's parser.

Both sides are fresh processes without a socket, and both must find the same messages, flags and mod-sequences. Ours
does more: it frames the bytes and goes through session and collector as in production; imapclient is given lines.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bench import REPOSITORY, peers
from bench.figures import Goal, Line, Result, Samples, paired
from bench.processes import BenchError
from bench.stage import Stage

TITLE = "200,000 lines of FETCH (UID FLAGS MODSEQ) parsed"

_SEED = 70
_TOLD = ("messages", "flags", "mod_seqs")


async def measure(stage: Stage) -> Result:
    count = stage.size(200_000, 20_000)
    rounds = stage.size(7, 3)
    script = REPOSITORY / "bench" / "sides" / "parse_imapclient.py"
    commands = {
        "mailmill": stage.programs.side("parse_mailmill", count, _SEED),
        "imapclient": [str(await peers.python()), str(script), str(count), str(_SEED)],
    }
    answers: set[tuple[int, ...]] = set()

    def side(name: str) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def run() -> dict[str, Any]:
            measured = (await stage.programs.run(f"parse-{name}", commands[name])).json
            answers.add(tuple(measured[each] for each in _TOLD))
            if len(answers) > 1:
                raise BenchError(f"the two sides disagree on {', '.join(_TOLD)}: {sorted(answers)}")
            return measured

        return run

    stage.bar.expect((rounds + 1) * len(commands))
    measured = await stage.interleaved(rounds, {name: side(name) for name in commands})

    def rates(name: str) -> Samples:
        return Samples.of([count / each["seconds"] for each in measured[name]], "lines/s")

    def cpu(name: str) -> Samples:
        return Samples.of([each["cpu_seconds"] / count * 1e6 for each in measured[name]], "µs")

    ours, peer = rates("mailmill"), rates("imapclient")
    lines = (
        Line(f"{count:,} lines parsed", ours, Goal("at least", 10, "×"), "imapclient", peer, paired(ours, peer)),
        Line("  CPU a line", cpu("mailmill"), None, "imapclient", cpu("imapclient")),
    )
    return Result(lines, (), {"lines": count, "runs": measured})
