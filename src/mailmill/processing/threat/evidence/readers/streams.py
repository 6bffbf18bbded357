"""The streams of an OLE2 file, read within the file's own size."""

from __future__ import annotations

import olefile

MAX_STREAMS = 1_000


class Streams:
    """``paths`` are the first ``MAX_STREAMS`` streams of an open file of ``size`` bytes.

    olefile follows a chain of sectors for as long as the directory says that the stream is: a chain that is a circle,
    and a stream of gigabytes, cost minutes in a file of a few kilobytes.
    """

    def __init__(self, ole: olefile.OleFileIO, size: int) -> None:
        self.paths: list[list[str]] = ole.listdir(streams=True, storages=False)[:MAX_STREAMS]
        self._ole = ole
        self._size = size
        self._left = 2 * size

    def read(self, path: list[str], most: int) -> bytes:
        """The first ``most`` bytes of a stream. Raises ValueError for one, or all together, beyond the file's size."""
        declared = self._ole.get_size(path)
        self._left -= declared
        if declared > self._size or self._left < 0 or self._ole.root.size > self._size:
            raise ValueError("streams larger than their file")
        with self._ole.openstream(path) as stream:
            data: bytes = stream.read(most)
            return data
