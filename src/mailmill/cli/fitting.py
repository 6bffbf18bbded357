"""Which columns of a table a terminal has room for, and how wide each is. Pure; all widths are in cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEAST_CELLS: Final = 4
"""Of a column that is cut: narrower it would be an ellipsis alone."""

_GAP: Final = 2


@dataclass(frozen=True, slots=True)
class Room:
    """What a column wants. ``natural``: the width of its widest text. ``least``: it may be cut down to this; None: it
    is not cut. ``leaves``: 0: it always stays; else those with the lowest are left out first, and before them, from
    the right, those whose rows are ``all_same``: they can be told in a word.
    """

    natural: int
    least: int | None = None
    leaves: int = 0
    all_same: bool = False

    @property
    def needed(self) -> int:
        return self.natural if self.least is None else min(self.least, self.natural)


def shown(rooms: Sequence[Room], width: int) -> list[int]:
    """The columns that are shown in ``width``: as many leave as it takes for the others to have what they need."""
    kept = list(range(len(rooms)))
    leaving = sorted(
        (index for index in kept if rooms[index].leaves),
        key=lambda index: (0, -index) if rooms[index].all_same else (1, rooms[index].leaves),
    )
    for index in leaving:
        if sum(rooms[each].needed for each in kept) + _GAP * (len(kept) - 1) <= width:
            break
        kept.remove(index)
    return kept


def fitted(rooms: Sequence[Room], width: int) -> list[int]:
    """Widths of columns for ``width``. Those that are cut have their least and share fairly what is left; where there
    is not so much, they share what there is, none below ``LEAST_CELLS``.
    """
    left = width - _GAP * (len(rooms) - 1)
    widths = [room.needed for room in rooms]
    cut = [index for index, room in enumerate(rooms) if room.least is not None]
    if sum(widths) > left:
        for index in cut:
            widths[index] = min(LEAST_CELLS, rooms[index].natural)
    spare = left - sum(widths)
    grown = dict.fromkeys(cut, 0)
    growing = [index for index in cut if widths[index] < rooms[index].natural]
    while spare > 0 and growing:
        least_grown = min(growing, key=lambda index: grown[index])
        widths[least_grown] += 1
        grown[least_grown] += 1
        spare -= 1
        if widths[least_grown] == rooms[least_grown].natural:
            growing.remove(least_grown)
    return widths
