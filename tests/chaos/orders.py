"""Orders to a process, in a file that it looks into at every phase: to die at the first of some, or to stop there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

KILL: Final = "kill"
STOP: Final = "stop"

_BYTES: Final = 4000


def give(file: Path, how: str = "", phases: Iterable[str] = ()) -> None:
    """``how`` (`KILL` or `STOP`) at the first of ``phases`` that it comes to; without any, nothing. One write, so none
    is read in halves."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, "\n".join((how, *phases)).encode().ljust(_BYTES), 0)
    finally:
        os.close(descriptor)


class Orders:
    """The orders in ``file``, which is there."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_RDONLY)
        self._read = b""
        self._how = ""
        self._phases: frozenset[str] = frozenset()

    def at(self, phase: str) -> str:
        """What is to be done at ``phase``: `KILL`, `STOP` or nothing."""
        if (read := os.pread(self._file, _BYTES, 0)) != self._read:
            self._read = read
            self._how, *phases = read.decode().strip().split("\n")
            self._phases = frozenset(phases)
        return self._how if phase in self._phases else ""
