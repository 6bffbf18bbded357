"""What is the same for raw messages wherever they lie: how contents become a segment, and what a reader gives back.

A segment is the messages of one batch, back to back, each content once. It is written once, under a name of its own,
and never changed. `local_segments` keeps segments as files, `object_segments` as objects.
"""

from __future__ import annotations

import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mailmill.errors import StoreError

PIECE_BYTES = 1024 * 1024
MARKER_NAME = "mailmill-store"


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Where the bytes of one content lie. ``segment`` is ``ab/<name>.seg``, below ``segments``."""

    sha256: bytes
    segment: str
    offset_bytes: int
    size_bytes: int


class Segments(ABC):
    """A place where segments lie. `mailmill.store.blobs.BlobStore` is the door to it."""

    folder: Path | None = None
    """Where the files of the segments lie; None where they are no files."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """The place in a person's words. Never holds a secret."""

    @abstractmethod
    async def write(self, contents: Sequence[bytes | Path]) -> list[BlobRef]:
        """See `BlobStore.put_batch`; ``contents`` is not empty."""

    @abstractmethod
    async def read(self, refs: Collection[BlobRef]) -> dict[bytes, bytes]:
        """SHA-256 → bytes, each checked by `checked`."""

    @abstractmethod
    async def read_raw(self, segment: str, offset_bytes: int, size_bytes: int) -> bytes:
        """What lies there, as it is: fewer bytes where the segment ends before. Raises StoreError where it is gone."""

    @abstractmethod
    async def now(self) -> float:
        """The time that a segment written now would bear: by the place's clock, and no machine's own."""

    @abstractmethod
    async def collect(self, referenced: Collection[str], written_before: float) -> int:
        """See `BlobStore.collect_orphans`."""

    @abstractmethod
    async def read_marker(self) -> str | None:
        """Whose place this is (`blob_marker`); None where it does not say. Proves that it can be read and listed."""

    @abstractmethod
    async def write_marker(self, text: str) -> str:
        """Make it say so, unless it says something already; what it says then. Proves that it can be written."""

    @abstractmethod
    async def close(self) -> None:
        """Wait for what is running."""


def new_segment_name() -> str:
    """A name that nobody has used: ``ab/<time>-<random>ab.seg``. Names of one place spread over 256 folders."""
    random = os.urandom(5).hex()
    return f"{random[-2:]}/{time.time_ns():016x}-{random}.seg"


@dataclass(frozen=True, slots=True)
class Layout:
    """A segment to be: ``parts`` one after the other are its bytes, ``refs`` answer the contents in their order."""

    segment: str
    refs: list[BlobRef]
    parts: list[bytes | Path]
    size_bytes: int


def lay_out(segment: str, contents: Iterable[bytes | Path]) -> Layout:
    """Where each content comes to lie; the same one twice lies there once. Reads the files: blocks, raises OSError."""
    placed: dict[bytes, BlobRef] = {}
    refs: list[BlobRef] = []
    parts: list[bytes | Path] = []
    offset = 0
    for content in contents:
        digest, size = _hash_file(content) if isinstance(content, Path) else _hash(content)
        if digest not in placed:
            placed[digest] = BlobRef(digest, segment, offset, size)
            parts.append(content)
            offset += size
        refs.append(placed[digest])
    return Layout(segment, refs, parts, offset)


def checked(ref: BlobRef, content: bytes, *, hint: str = "restore that file from the backup") -> bytes:
    """``content``, where it is what was stored. Raises StoreError naming the segment."""
    if len(content) != ref.size_bytes or hashlib.sha256(content).digest() != ref.sha256:
        raise StoreError(
            f"segment {ref.segment} is damaged: what lies at {ref.offset_bytes} is not what was stored", hint=hint
        )
    return content


def _hash(content: bytes) -> tuple[bytes, int]:
    return hashlib.sha256(content).digest(), len(content)


def _hash_file(source: Path) -> tuple[bytes, int]:
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").digest()
        return digest, stream.tell()
