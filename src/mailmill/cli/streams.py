"""The standard streams as a command needs them: there, and written to in whole.

What Python gives does not carry on after a short write on two descriptors: on any under ``PYTHONUNBUFFERED`` (text
stands on the raw file there), where the rest is lost in silence; and on a pipe or terminal that somebody who shares it
has made non-blocking, where a full one is an error.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def open_missing() -> None:
    """Descriptors 0 to 2 that the caller closed are opened on the null device.

    Else the next file opened would get the number, and what is meant for stderr would be written into the database.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number: this one
    # The interpreter has no stream where it found no descriptor.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # open until the end
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def make_whole() -> None:
    """Every write to stdout and stderr is written to its end, waiting for the reader where it must."""
    sys.stdout = _whole(sys.stdout)
    sys.stderr = _whole(sys.stderr)


def _whole(stream: TextIO) -> TextIO:
    """``stream``, on a file of ours with the same descriptor; what is no file of the system stays as it is."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(stream, io.TextIOWrapper) or type(raw) is not io.FileIO:
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_WholeFile(raw.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or raw is buffer,
    )


class _WholeFile(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        """All of ``data``. Raises OSError."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            written: int | None = super().write(left)
            if written is None:  # non-blocking, and full
                full = select.poll()
                full.register(self, select.POLLOUT)
                full.poll()
            else:
                left = left[written:]
        return size
