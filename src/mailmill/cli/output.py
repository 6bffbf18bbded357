"""What a command prints: tables, fields and JSON on stdout, remarks on stderr.

On a terminal tables fit its width (`fitting`) and carry colours; into a pipe they are aligned, whole and plain.
``NO_COLOR`` is honoured. Every text passes ``safe_text``: mail is written by strangers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mailmill.cli.fitting import LEAST_CELLS, Room, fitted, shown
from mailmill.cli.safe_text import json_escaped, neutral, one_line

Align = Literal["left", "right"]

# Of what all rows of a column say, where the column is left out.
_TOLD_CHARS: Final = 24

STATE_STYLES = {
    "connected": "green",
    "syncing": "cyan",
    "connecting": "cyan",
    "init": "dim",
    "paused": "yellow",
    "disconnected": "yellow",
    "authenticationError": "bold red",
    "connectError": "red",
    "clean": "green",
    "suspicious": "yellow",
    "malicious": "bold red",
    "completed": "green",
    "processing": "cyan",
    "pending": "yellow",
    "waiting": "yellow",
    "throttled": "yellow",
    "failed": "bold red",
    "high": "bold red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
    "alive": "green",
    "stopping": "yellow",
    "silent": "bold red",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
}


@dataclass(frozen=True, slots=True)
class Column:
    """``shrinks``: where the terminal is narrow it is cut, to no less than ``least`` cells while others can leave.
    ``leaves``: whether it can be left out itself, and when: 1 first, 0 never. Those whose rows are all the same go
    before the others.
    """

    title: str
    align: Align = "left"
    shrinks: bool = False
    least: int = LEAST_CELLS
    leaves: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """A text and how it looks (a Rich style)."""

    text: str
    style: str = ""


def stated(word: str | None, text: str | None = None) -> Cell:
    """A state, verdict or severity in its colour."""
    return Cell(text if text is not None else word or "-", STATE_STYLES.get(word or "", ""))


Value = Cell | str | int | None


class Output:
    """Where one command writes. ``as_json``: data leaves as JSON and nothing decorates it."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
        self.remarks = Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def on_terminal(self) -> bool:
        return self.console.is_terminal

    @property
    def shows_progress(self) -> bool:
        """Whether somebody watches stderr and wants to."""
        return self.remarks.is_terminal and not self.remarks.is_dumb_terminal and not self.as_json

    def json(self, value: Any, *, indent: int | None = 2) -> None:
        """One JSON document and a newline; valid UTF-8 and harmless on a terminal."""
        self.raw(json_escaped(json.dumps(value, ensure_ascii=False, indent=indent)) + "\n")

    def raw(self, text: str) -> None:
        """Text as it is; the caller has made it safe."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def line(self, *parts: Value) -> None:
        """One line of parts in their styles."""
        if self.on_terminal:
            self.console.print(Text.assemble(*(as_text(part) for part in parts)), soft_wrap=True)
        else:
            self.raw("".join(plain(part) for part in parts) + "\n")

    def text(self, text: str) -> None:
        """Text of several lines, control characters made visible."""
        self.raw(neutral(text).rstrip("\n") + "\n")

    def remark(self, text: str, style: str = "dim") -> None:
        """A line on stderr for the person, such as what to do next."""
        self.remarks.print(Text(one_line(text), style=style), soft_wrap=True)

    def fields(self, pairs: Iterable[tuple[str, Value]]) -> None:
        """``name  value`` lines, aligned."""
        known = list(pairs)
        width = max((cell_len(name) for name, _ in known), default=0)
        for name, value in known:
            self.line(Cell(f"{name:<{width}}  ", "dim"), value)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Value]], *, empty: str) -> None:
        """A table; ``empty`` is remarked on stderr where there are no rows."""
        held = [list(row) for row in rows]
        if not held:
            self.remark(empty)
        elif self.on_terminal:
            table, left_out = rich_table(columns, held, self.console.width)
            self.console.print(table)
            if left_out:
                self.remark(left_out)
        else:
            self.raw(plain_table(columns, held))


def rich_table(columns: Sequence[Column], rows: Sequence[Sequence[Value]], width: int) -> tuple[Table, str]:
    """The table for a terminal ``width`` cells wide, and a remark where columns were left out, else nothing.

    One line a row, what shrinks is cut with an ellipsis.
    """
    texts = [[as_text(value) for value in row] for row in rows]
    rooms = [
        Room(
            max([cell_len(column.title), *(row[index].cell_len for row in texts)]),
            column.least if column.shrinks else None,
            column.leaves,
            len({row[index].plain for row in texts}) == 1,
        )
        for index, column in enumerate(columns)
    ]
    kept = shown(rooms, width)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False, show_edge=False)
    for index, cells in zip(kept, fitted([rooms[index] for index in kept], width), strict=True):
        column = columns[index]
        table.add_column(Text(column.title), justify=column.align, no_wrap=True, overflow="ellipsis", width=cells)
    for row in texts:
        table.add_row(*(row[index] for index in kept))
    left_out = [
        f"{column.title} ({one_line(texts[0][index].plain, _TOLD_CHARS) or '-'})"
        if rooms[index].all_same
        else column.title
        for index, column in enumerate(columns)
        if index not in kept
    ]
    return table, f"more columns fit in a wider terminal: {', '.join(left_out)}" if left_out else ""


def plain_table(columns: Sequence[Column], rows: Iterable[Sequence[Value]]) -> str:
    """The table for a pipe: aligned, nothing cut, two blanks between columns."""
    lines = [[column.title.upper() for column in columns], *([plain(value) for value in row] for row in rows)]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(columns))]
    return "".join(
        "  ".join(
            " " * (width - cell_len(text)) + text if column.align == "right" else text + " " * (width - cell_len(text))
            for column, width, text in zip(columns, widths, line, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def stacked(*parts: RenderableType) -> RenderableType:
    """One below the other."""
    return Group(*parts)


def plain(value: Value) -> str:
    """The text of a cell, harmless and on one line."""
    if isinstance(value, Cell):
        return _clean(value.text)
    if value is None:
        return "-"
    return f"{value}" if isinstance(value, int) else _clean(value)


def as_text(value: Value) -> Text:
    """A cell for Rich."""
    if isinstance(value, int):
        return Text(f"{value:,}")
    return Text(plain(value), style=value.style if isinstance(value, Cell) else "")


def _clean(text: str) -> str:
    """On one line, but blanks kept: columns and labels are laid out with them."""
    return neutral(text).replace("\n", " ").replace("\t", " ")
