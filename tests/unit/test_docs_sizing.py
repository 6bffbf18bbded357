"""The figures of the operations guide are those of the benchmarks: nobody is to plan with old ones."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "operations.md").read_text(encoding="utf-8")
BENCHMARKS = (DOCS / "benchmarks.md").read_text(encoding="utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, its two first lines left out."""
    table = re.search(r"(?:^\|.*\n)+", text.partition(heading)[2], re.MULTILINE)
    assert table is not None, heading
    lines = table[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def figures(text: str) -> list[str]:
    """The numbers of a cell; what stands in brackets is the spread."""
    return re.findall(r"\d[\d,.]*", re.sub(r"\([^)]*\)", "", text))


def test_each_figure_is_the_one_that_was_measured() -> None:
    measured = {row[0]: figures(row[1]) for row in rows(BENCHMARKS, "## What was measured")}
    told = rows(GUIDE, "## How large")
    assert len(told) > 4
    for what, figure, row in told:
        # A row may have become several: `no_change_fleet` is also `no_change_fleet, 1,000 accounts`.
        found = [numbers for name, numbers in measured.items() if name == row or name.startswith(f"{row},")]
        assert found, f"{row} is no row of the benchmarks"
        assert any(set(figures(figure)) <= set(numbers) for numbers in found), f"{what}: {figure}, measured: {found}"


def test_the_rows_of_the_guides_command_are_there() -> None:
    [asked] = re.findall(r'make bench ARGS="([a-z_ ]+)"', GUIDE)
    assert all(f"### `{row}`" in BENCHMARKS for row in asked.split()), asked
