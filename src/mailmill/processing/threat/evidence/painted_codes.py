"""Whether a QR code is painted in a message without being a picture. Nothing is decoded: there is no honest reason to
paint one so. Pure."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from mailmill.processing.html_tricks import HtmlTricks

# The smallest code has 21 rows of 21 modules, about half of them dark, and changes colour some 200 times. Two rows fit
# in one line of half blocks.
_CELLS: Final = 60
_FLIPS: Final = 90
_SHADOWS: Final = 150
_ROWS: Final = 10
_CHANGES_IN_ROW: Final = 4
_MAX_LINES: Final = 2_000
_MAX_ROW_CHARS: Final = 400

_BLOCKS: Final = "█▀▄▌▐■▇◼⬛▓"
_RUN = re.compile(rf"[{_BLOCKS}]+")
_OTHER = re.compile(rf"[^{_BLOCKS}\s⬜□░▢◻\u00a0\u2800\u3000]")


def is_painted_in(tricks: HtmlTricks) -> str:
    """How a code is painted with elements, in words; "" if none is."""
    if tricks.dark_cells >= _CELLS and tricks.light_cells >= _CELLS and tricks.flips >= _FLIPS:
        return f"{tricks.dark_cells} dark and {tricks.light_cells} light cells"
    if tricks.shadows >= _SHADOWS:
        return f"an element with {tricks.shadows} shadows"
    return ""


def painted_in_text(*texts: str) -> str:
    """How a code is painted with block characters: rows one below the other, each with many changes. "" if none is.

    A bar of progress is one row, a chart has one run in each.
    """
    for text in texts:
        rows = 0
        for line in text.split("\n", _MAX_LINES)[:_MAX_LINES]:
            row = line[:_MAX_ROW_CHARS].strip()
            if _is_row(row):
                rows += 1
                if rows >= _ROWS:
                    return "rows of block characters"
            elif row:
                rows = 0
    return ""


def _is_row(row: str) -> bool:
    if len(row) < _ROWS or not any(block in row for block in _BLOCKS) or _OTHER.search(row):
        return False
    # Where half blocks make two rows of one line, each kind is a run of its own.
    changes = sum(1 for _ in _RUN.finditer(row)) + sum(
        1 for one, two in pairwise(row) if one != two and one in _BLOCKS and two in _BLOCKS
    )
    return changes >= _CHANGES_IN_ROW
