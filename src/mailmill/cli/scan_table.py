"""The table of ``mailmill threat scan``: on a terminal a line for each message and, where it is not clean, its main
reason in full below; into a pipe one line for each."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len

from mailmill.cli.fitting import LEAST_CELLS, Room, fitted
from mailmill.cli.output import Cell, Column, Output, Value, stated
from mailmill.cli.safe_text import one_line

MAX_TEXT_CHARS: Final = 60
"""Of a sender or a subject in a pipe: one long subject would push everything behind it far to the right."""
LINE_CELLS: Final = 100
"""Longer lines of words are hard to read, however wide the terminal."""

_LEAST_CELLS: Final = 8
"""Of a name or a folder: less of it says nothing."""

_COLUMNS: Final = (
    Column("Verdict"),
    Column("Score", "right"),
    Column("From"),
    Column("Subject"),
    Column("Main reason"),
    Column("File"),
)
_GAP: Final = "  "


@dataclass(frozen=True, slots=True)
class Row:
    """One judged message; ``place`` is its file, with ``#number`` for one of many. All but ``score`` may be what a
    stranger wrote."""

    verdict: str
    score: float
    name: str
    address: str
    subject: str
    reason: str
    place: str


def show(output: Output, rows: Sequence[Row]) -> None:
    """Nothing at all where there are no rows."""
    if not rows:
        return
    if output.on_terminal:
        for line in lines(rows, output.console.width):
            output.line(*line)
    else:
        output.table(_COLUMNS, (_plain(row) for row in rows), empty="")


def lines(rows: Sequence[Row], width: int) -> Iterator[list[Value]]:
    """The lines for a terminal ``width`` cells wide, at least 40; none is longer."""
    verdicts = max(len("Verdict"), *(len(row.verdict) for row in rows))
    scores = max(len("Score"), *(len(f"{row.score:g}") for row in rows))
    indent = verdicts + scores + 2 * len(_GAP)
    rooms = [
        Room(max(len(title), *map(cell_len, texts)), LEAST_CELLS)
        for title, texts in (
            ("From", [sender(row.name, row.address) for row in rows]),
            ("Subject", [_subject(row) for row in rows]),
            ("File", [one_line(row.place) for row in rows]),
        )
    ]
    senders, subjects, files = fitted(rooms, max(0, width - indent))
    title = f"{'Verdict':<{verdicts}}{_GAP}{'Score':>{scores}}{_GAP}{'From':<{senders}}{_GAP}{'Subject':<{subjects}}"
    yield [Cell(f"{title}{_GAP}File", "bold")]
    for row in rows:
        yield [
            stated(row.verdict, f"{row.verdict:<{verdicts}}"),
            f"{_GAP}{row.score:>{scores}g}{_GAP}",
            _padded(sender(row.name, row.address, senders), senders) + _GAP,
            _padded(cut_end(_subject(row), subjects), subjects) + _GAP,
            Cell(cut_path(one_line(row.place), files), "dim"),
        ]
        if row.verdict != "clean":
            for piece in textwrap.wrap(one_line(row.reason), max(20, min(width - indent, LINE_CELLS))):
                yield [" " * indent, Cell(piece, "italic")]


def sender(name: str, address: str, cells: int | None = None) -> str:
    """``Name <address>``; where that does not fit the name gives way, for an address is harder to choose than a
    name."""
    name, address = one_line(name, 100), one_line(address, 200)
    both = f"{name} <{address}>" if name and address else address or name or "-"
    if cells is None or cell_len(both) <= cells:
        return both
    if not address:
        return cut_end(name, cells)
    room = cells - cell_len(address) - len(" <>")
    return f"{cut_end(name, room)} <{address}>" if name and room >= _LEAST_CELLS else cut_middle(address, cells)


def cut_end(text: str, cells: int) -> str:
    """At most so many cells, with an ellipsis for what is left out at the end."""
    return text if cell_len(text) <= cells else _fitting(text, cells - 1) + "…" if cells > 0 else ""


def cut_middle(text: str, cells: int) -> str:
    """At most so many cells, with an ellipsis for what is left out in the middle: of an address or the name of a file
    both ends say something."""
    if cell_len(text) <= cells:
        return text
    end = _fitting(text[::-1], cells // 2)[::-1]
    return cut_end(text[: len(text) - len(end)], cells - cell_len(end)) + end


def cut_path(path: str, cells: int) -> str:
    """At most so many cells: the file's name whole as long as it fits, its folders cut in the middle."""
    folder, slash, name = path.rpartition("/")
    room = cells - cell_len(name) - len("/")
    if cell_len(path) <= cells:
        return path
    if room < 1 or not slash:
        return cut_middle(name, cells)
    return f"{cut_middle(folder, room) if room >= _LEAST_CELLS else '…'}/{name}"


def _fitting(text: str, cells: int) -> str:
    """As much of the beginning as fits."""
    used = 0
    for place, letter in enumerate(text):
        used += cell_len(letter)
        if used > cells:
            return text[:place]
    return text


def _padded(text: str, cells: int) -> str:
    return text + " " * (cells - cell_len(text))


def _subject(row: Row) -> str:
    return one_line(row.subject, 200) or "-"


def _plain(row: Row) -> list[Value]:
    return [
        row.verdict,
        f"{row.score:g}",
        sender(row.name, row.address, MAX_TEXT_CHARS),
        cut_end(_subject(row), MAX_TEXT_CHARS),
        one_line(row.reason) or "-",
        one_line(row.place),
    ]
