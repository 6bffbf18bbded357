"""``python -m bench [NAME…] [--json] [--quick] [--profile FOLDER]``: measure, show, say what could not be measured.

The table or the JSON goes to stdout, progress to stderr. Exit code 0 where all rows were measured, whether or not their
goals are met; 1 where one could not be; 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import traceback
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from bench import machine, report
from bench.figures import Result
from bench.processes import BenchError, Programs
from bench.rows import ROWS
from bench.stage import Stage


class _RowBar:
    """One row's line of the progress display."""

    def __init__(self, progress: Progress, task: TaskID, name: str) -> None:
        self._progress = progress
        self._task = task
        self._name = name
        self._known = False

    def expect(self, steps: int) -> None:
        self._known = True
        self._progress.update(self._task, total=steps)

    def doing(self, what: str) -> None:
        self._progress.update(self._task, description=f"{self._name}: {what}")

    def advance(self) -> None:
        self._progress.advance(self._task)

    def end(self, word: str) -> None:
        done = self._progress.tasks[self._task].completed
        self._progress.update(self._task, description=f"{self._name}: {word}", total=done or 1, completed=done or 1)


async def measure(names: list[str], stage: Stage, console: Console) -> tuple[dict[str, Result], dict[str, str]]:
    """The results, and for each row that could not be measured why."""
    results: dict[str, Result] = {}
    failed: dict[str, str] = {}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        for name in names:
            stage.bar = bar = _RowBar(progress, progress.add_task(name, total=None), name)
            try:
                results[name] = await ROWS[name].measure(stage)
                bar.end("done")
            except Exception as error:  # noqa: BLE001 - a row that breaks must not take the others with it
                failed[name] = str(error) or type(error).__name__
                bar.end("could not be measured")
                if not isinstance(error, BenchError):
                    console.print("".join(traceback.format_exception(error)), markup=False, highlight=False)
    return results, failed


def main(arguments: list[str] | None = None) -> int:
    rows = "\n".join(f"  {name:20} {row.TITLE}" for name, row in ROWS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure mailmill beside its peers, on a private Dovecot.",
        epilog=f"rows:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the rows to measure; all by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object with all samples")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, proves nothing")
    parser.add_argument(
        "--profile", type=Path, metavar="FOLDER", help="write a flame graph of each side (needs py-spy)"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in ROWS]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    remarks = []
    if options.quick:
        remarks.append("quick: the sizes are not those the goals speak of")
    if options.profile:
        remarks.append("under a profiler: the figures count for little")
    console = Console(stderr=True)
    facts = machine.describe()
    try:
        with Stage(quick=options.quick, programs=Programs(options.profile and options.profile.absolute())) as stage:
            results, failed = asyncio.run(measure(options.names or list(ROWS), stage, console))
    except BenchError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    remark = "; ".join(remarks)
    if options.json:
        print(json.dumps(report.as_json(results, facts, failed, remark=remark), indent=1))
    elif results:
        report.show(Console(width=None if sys.stdout.isatty() else 140), results, facts, remark=remark)
    for name, reason in failed.items():
        console.print(f"{name} could not be measured: {reason}", style="red", markup=False, highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
