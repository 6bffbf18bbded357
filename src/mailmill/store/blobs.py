"""Raw messages in a local folder: one segment file per batch, the messages back to back.

::

    root/segments/ab/<time>-<random>ab.seg

Laws:

* `put_batch` returns when file and folder are synced, so whoever names a blob in a transaction names bytes that survive
  a power cut. What no transaction named is collected after a while (`collect_orphans`).
* A segment is never written again once it is synced. Content is named by its SHA-256 and checked whenever it is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from mailmill.errors import StoreError
from mailmill.store.data_folder import disk_error

ORPHAN_SECONDS = 24 * 3600.0

_PIECE_BYTES = 1024 * 1024

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Where the bytes of one content lie. ``segment`` is ``ab/<name>.seg``, below ``root/segments``."""

    sha256: bytes
    segment: str
    offset_bytes: int
    size_bytes: int


class BlobStore:
    """The folder of raw messages. All file work happens in ``threads`` threads of its own."""

    def __init__(self, root: Path, threads: int = 2) -> None:
        self._segments = root / "segments"
        self._lasting: set[Path] = set()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="mailmill-blobs")

    @property
    def segments_folder(self) -> Path:
        """Where the segments lie, for who reads them plainly (`verify_reads.read_faults`)."""
        return self._segments

    async def put_batch(self, contents: Sequence[bytes | Path]) -> list[BlobRef]:
        """Store ``contents`` in one new segment; the answer has their order. Same content twice is written once.

        A Path is streamed and unlinked once the segment is synced. On an error nothing is kept, and no Path is touched;
        raises StorageFullError or StoreError. A cancelled call may leave a segment that nobody names.
        """
        if not contents:
            return []
        return await self._run(partial(_write_segment, self._segments, contents, self._lasting))

    async def get(self, ref: BlobRef) -> bytes:
        """The bytes. Raises StoreError, naming the segment, where they are not there or not what their hash says."""
        return (await self.get_many([ref]))[ref.sha256]

    async def get_many(self, refs: Collection[BlobRef]) -> dict[bytes, bytes]:
        """SHA-256 → bytes, in one thread call; the caller bounds the sum of the sizes. Raises StoreError as `get`."""
        return await self._run(partial(_read_all, self._segments, refs)) if refs else {}

    async def collect_orphans(self, referenced: Collection[str], older_than_seconds: float = ORPHAN_SECONDS) -> int:
        """Remove segments not in ``referenced`` that were last written more than ``older_than_seconds`` ago.

        ``referenced`` comes from `messages.referenced_segments`. The age keeps segments whose transaction has not
        committed yet. Returns how many went. Raises StoreError where one cannot be removed.
        """
        return await self._run(partial(_collect, self._segments, frozenset(referenced), older_than_seconds))

    async def close(self) -> None:
        """Wait for what is running."""
        await asyncio.to_thread(self._executor.shutdown, wait=True)

    async def _run(self, function: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def _write_segment(segments: Path, contents: Sequence[bytes | Path], lasting: set[Path]) -> list[BlobRef]:
    random = os.urandom(5).hex()
    name = f"{random[-2:]}/{time.time_ns():016x}-{random}.seg"
    path = segments / name
    try:
        _make_lasting(segments, lasting)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=_PIECE_BYTES) as file:
                refs = _append_all(file, name, contents)
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
    except OSError as error:
        raise disk_error(f"cannot store raw messages in {path}", error) from error
    for content in contents:
        if isinstance(content, Path):
            # The bytes are safe; a spool file that stays is swept when the service next starts.
            with suppress(OSError):
                content.unlink()
    return refs


def _append_all(file: BinaryIO, segment: str, contents: Sequence[bytes | Path]) -> list[BlobRef]:
    refs: list[BlobRef] = []
    written: dict[bytes, BlobRef] = {}
    offset = 0
    for content in contents:
        if isinstance(content, Path):
            digest, size = _append_stream(file, content)
            if digest in written:
                file.seek(offset)
                file.truncate()
        else:
            digest, size = hashlib.sha256(content).digest(), len(content)
            if digest not in written:
                file.write(content)
        if digest not in written:
            written[digest] = BlobRef(digest, segment, offset, size)
            offset += size
        refs.append(written[digest])
    return refs


def _append_stream(file: BinaryIO, source: Path) -> tuple[bytes, int]:
    hasher = hashlib.sha256()
    size = 0
    with source.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            hasher.update(piece)
            file.write(piece)
            size += len(piece)
    return hasher.digest(), size


def _make_lasting(segments: Path, lasting: set[Path]) -> None:
    """Create ``segments`` and all folders in it, and sync the parents that name them.

    Once per process, whether they were there or not: the process that made them may have died before its sync. All at
    once, or a push that is the first to use its folder would wait for two syncs more.
    """
    if segments in lasting:
        return
    for number in range(256):
        (segments / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
    _sync_folder(segments)
    _sync_folder(segments.parent)
    lasting.add(segments)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_all(segments: Path, refs: Collection[BlobRef]) -> dict[bytes, bytes]:
    by_segment: dict[str, list[BlobRef]] = {}
    for ref in refs:
        by_segment.setdefault(ref.segment, []).append(ref)
    found: dict[bytes, bytes] = {}
    for segment, wanted in by_segment.items():
        path = segments / segment
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                for ref in wanted:
                    found[ref.sha256] = _checked(ref, os.pread(descriptor, ref.size_bytes, ref.offset_bytes))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(
                f"the raw messages in segment {segment} cannot be read: {error.strerror}",
                hint=f"restore {path} from the backup",
            ) from error
    return found


def _checked(ref: BlobRef, content: bytes) -> bytes:
    if len(content) != ref.size_bytes or hashlib.sha256(content).digest() != ref.sha256:
        raise StoreError(
            f"segment {ref.segment} is damaged: what lies at {ref.offset_bytes} is not what was stored",
            hint="restore that file from the backup",
        )
    return content


def _collect(segments: Path, referenced: frozenset[str], older_than_seconds: float) -> int:
    limit = time.time() - older_than_seconds
    removed = 0
    try:
        for path in segments.glob("*/*.seg"):
            if f"{path.parent.name}/{path.name}" not in referenced:
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < limit:
                        path.unlink()
                        removed += 1
    except OSError as error:
        raise disk_error(f"cannot remove orphaned segments from {segments}", error) from error
    return removed
