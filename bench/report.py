"""How results are shown: one table for people, one object for machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.figures import Goal, Line, Result, Samples

_MET = {True: Text("yes", "bold green"), False: Text("NO", "bold red"), None: Text("")}


def show(console: Console, results: Mapping[str, Result], machine: Mapping[str, str], *, remark: str) -> None:
    """The table, then the notes, then the machine. ``remark`` stands in the caption: what to think of the figures."""
    table = Table(title="mailmill benchmarks", caption=remark or None, title_style="bold", header_style="bold")
    table.add_column("work", no_wrap=True)
    table.add_column("ours", justify="right")
    table.add_column("peer", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("goal", justify="right", no_wrap=True)
    table.add_column("met?", justify="center")
    for result in results.values():
        for line in result.lines:
            table.add_row(*_cells(line))
        table.add_section()
    console.print(table)
    for name, result in results.items():
        for note in result.notes:
            console.print(Text(f"{name}: {note}"))
    console.print(Text("median (lowest – highest, number of runs); ratios are taken round by round", "dim"))
    console.print(Text(" · ".join(f"{name} {fact}" for name, fact in machine.items()), "dim"))


def as_json(
    results: Mapping[str, Result], machine: Mapping[str, str], failed: Mapping[str, str], *, remark: str
) -> dict[str, Any]:
    return {
        "machine": dict(machine),
        "remark": remark,
        "failed": dict(failed),
        "rows": {
            name: {
                "lines": [_line_json(line) for line in result.lines],
                "notes": list(result.notes),
                "raw": result.raw,
            }
            for name, result in results.items()
        },
    }


def _cells(line: Line) -> tuple[Text, ...]:
    style = "" if line.goal else "dim"
    peer = Text.assemble(_samples(line.peer), (f"\n{line.peer_name}", "dim")) if line.peer else Text("")
    if line.peer_name and not line.peer:
        peer = Text(f"{line.peer_name}: not there", "yellow")
    return (
        Text(line.work, style),
        _samples(line.ours),
        peer,
        _samples(line.ratio) if line.ratio else Text(""),
        _goal(line.goal),
        _MET[line.met] if line.goal is None or line.met is not None else Text("not measured", "yellow"),
    )


def _samples(samples: Samples) -> Text:
    text = Text(f"{number(samples.median)} {samples.unit}", "bold")
    if len(samples.values) > 1:
        text.append(f"\n({number(samples.low)} – {number(samples.high)}, n {len(samples.values)})", "not bold dim")
    return text


def _goal(goal: Goal | None) -> Text:
    signs = {"at least": "≥", "under": "<", "at most": "≤", "exactly": "="}
    return Text(f"{signs[goal.kind]} {number(goal.limit)} {goal.unit}") if goal else Text("")


def number(value: float) -> str:
    """Three significant figures, thousands set apart: 0.634, 6.34, 63.4, 634, 6,340."""
    size = abs(value)
    if size >= 1000:
        return f"{round(value, 3 - len(str(int(size)))):,.0f}"
    if size == int(size):
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 if size >= 1 else 3) - (size >= 10) - (size >= 100)}f}"


def _line_json(line: Line) -> dict[str, Any]:
    goal = {"kind": line.goal.kind, "limit": line.goal.limit, "unit": line.goal.unit} if line.goal else None
    return {
        "work": line.work.strip(),
        "ours": _samples_json(line.ours),
        "peerName": line.peer_name or None,
        "peer": _samples_json(line.peer),
        "ratio": _samples_json(line.ratio),
        "goal": goal,
        "judged": line.judged,
        "met": line.met,
    }


def _samples_json(samples: Samples | None) -> dict[str, Any] | None:
    if samples is None:
        return None
    return {
        "unit": samples.unit,
        "median": samples.median,
        "low": samples.low,
        "high": samples.high,
        "values": list(samples.values),
    }
