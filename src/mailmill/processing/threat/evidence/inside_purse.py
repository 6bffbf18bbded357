"""What reading the files of one message may cost, and how it is shared out. Pure.

Seconds are of computing, as the child's CPU time: a machine that is busy with other things reads as much of a message
as an idle one. A file gets a share first, and one that takes longer is read again when all others were, with what is
left: a slow file costs the others nothing but its share.
"""

from __future__ import annotations

from typing import Final

MESSAGE_SECONDS: Final = 3.0
MESSAGE_BYTES: Final = 64 << 20
FILE_SECONDS: Final = 2.0
SHARE_SECONDS: Final = 0.5
"""What each file may take at least, as long as there is as much: nearly all take a tenth of it."""
LOST_CHILD_SECONDS: Final = 0.3
"""What the next child takes to start and to load its libraries, where a file ended this one."""
_LEAST_SECONDS: Final = 0.05


class Purse:
    """What is left for the files of a message."""

    def __init__(self, *, seconds: float = MESSAGE_SECONDS, file_seconds: float = FILE_SECONDS) -> None:
        self._seconds_left = seconds
        self._file_seconds = min(file_seconds, seconds)
        self._bytes_left = MESSAGE_BYTES

    def take_bytes(self, size: int) -> bool:
        """Whether there was room for a file of this size; it is taken."""
        if size > self._bytes_left:
            return False
        self._bytes_left -= size
        return True

    def share(self, files: int) -> float:
        """Seconds for one of so many files that are still to be read; 0 where there are none left."""
        return self._at_most(max(SHARE_SECONDS, self._seconds_left / max(1, files)))

    def is_whole(self, seconds: float) -> bool:
        """Whether a file that took so long was given as much as any file ever is."""
        return seconds >= self._file_seconds

    def pay(self, seconds: float, *, lost_child: bool = False) -> None:
        self._seconds_left -= max(0.0, seconds) + LOST_CHILD_SECONDS * lost_child

    def _at_most(self, seconds: float) -> float:
        given = min(seconds, self._file_seconds, self._seconds_left)
        return given if given >= _LEAST_SECONDS else 0.0
