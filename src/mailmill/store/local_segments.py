"""Segments as files in a folder.

::

    root/segments/ab/<time>-<random>ab.seg
    root/mailmill-store                      whose folder this is (`blob_marker`)

Laws:

* `write` answers when file and folder are synced.
* The age of a segment is told by the clock of its file system alone: the folder may be a mount that several machines
  share, and a machine's own clock may jump.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from mailmill.errors import StoreError
from mailmill.store.data_folder import disk_error
from mailmill.store.segments import (
    MARKER_NAME,
    PIECE_BYTES,
    BlobRef,
    Layout,
    Segments,
    checked,
    lay_out,
    new_segment_name,
)

_MARKER_BYTES = 200

_Result = TypeVar("_Result")


class LocalSegments(Segments):
    """The folder of raw messages. All file work happens in ``threads`` threads of its own."""

    def __init__(self, root: Path, threads: int = 2) -> None:
        self._root = root
        self.folder: Path = root / "segments"
        self._lasting: set[Path] = set()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="mailmill-blobs")

    @property
    def shown(self) -> str:
        return str(self._root)

    async def write(self, contents: Sequence[bytes | Path]) -> list[BlobRef]:
        return await self._run(partial(_write_segment, self.folder, contents, self._lasting))

    async def read(self, refs: Collection[BlobRef]) -> dict[bytes, bytes]:
        return await self._run(partial(_read_all, self.folder, refs))

    async def read_raw(self, segment: str, offset_bytes: int, size_bytes: int) -> bytes:
        return await self._run(partial(_read_raw, self.folder, segment, offset_bytes, size_bytes))

    async def now(self) -> float:
        return await self._run(partial(_file_system_now, self.folder))

    async def collect(self, referenced: Collection[str], written_before: float) -> int:
        return await self._run(partial(_collect, self.folder, frozenset(referenced), written_before))

    async def read_marker(self) -> str | None:
        return await self._run(partial(_read_marker, self._root))

    async def write_marker(self, text: str) -> str:
        return await self._run(partial(_write_marker, self._root, text))

    async def close(self) -> None:
        await asyncio.to_thread(self._executor.shutdown, wait=True)

    async def _run(self, function: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def _write_segment(segments: Path, contents: Sequence[bytes | Path], lasting: set[Path]) -> list[BlobRef]:
    name = new_segment_name()
    path = segments / name
    try:
        layout = lay_out(name, contents)
        _make_lasting(segments, lasting)
        _write_new(path, layout)
    except OSError as error:
        raise disk_error(f"cannot store raw messages in {path}", error) from error
    for content in contents:
        if isinstance(content, Path):
            # The bytes are safe; a spool file that stays is swept when the service next starts.
            with suppress(OSError):
                content.unlink()
    return layout.refs


def _write_new(path: Path, layout: Layout) -> None:
    """All of it, synced, or nothing."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=PIECE_BYTES) as file:
            for part in layout.parts:
                _append(file, part)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _append(file: BinaryIO, part: bytes | Path) -> None:
    if not isinstance(part, Path):
        file.write(part)
        return
    with part.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            file.write(piece)


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
                    found[ref.sha256] = checked(ref, os.pread(descriptor, ref.size_bytes, ref.offset_bytes))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unreadable(path, segment, error) from error
    return found


def _read_raw(segments: Path, segment: str, offset_bytes: int, size_bytes: int) -> bytes:
    path = segments / segment
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, size_bytes, offset_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(path, segment, error) from error


def _unreadable(path: Path, segment: str, error: OSError) -> StoreError:
    return StoreError(
        f"the raw messages in segment {segment} cannot be read: {error.strerror}",
        hint=f"restore {path} from the backup",
    )


def _collect(segments: Path, referenced: frozenset[str], written_before: float) -> int:
    removed = 0
    try:
        for path in segments.glob("*/*.seg"):
            if f"{path.parent.name}/{path.name}" not in referenced:
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < written_before:
                        path.unlink()
                        removed += 1
    except FileNotFoundError:
        return removed
    except OSError as error:
        raise disk_error(f"cannot remove orphaned segments from {segments}", error) from error
    return removed


def _file_system_now(folder: Path) -> float:
    """The time that a file written now would get. Takes no room, so it can be had on a full disk too."""
    try:
        os.utime(folder)
        return folder.stat().st_mtime
    except FileNotFoundError:
        # Nothing was written yet, and nothing that is written from now on is older than this.
        return 0.0
    except OSError as error:
        raise disk_error(f"cannot learn the time of {folder}", error) from error


def _read_marker(root: Path) -> str | None:
    path = root / MARKER_NAME
    try:
        with path.open("rb") as file:
            return file.read(_MARKER_BYTES).decode("ascii", "replace").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error(f"cannot read {path}", error) from error


def _write_marker(root: Path, text: str) -> str:
    path = root / MARKER_NAME
    draft = path.with_name(f"{MARKER_NAME}.{os.urandom(5).hex()}")
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_text(f"{text}\n", encoding="ascii")
        descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # Never over one that is there: a link is made whole or not at all, by one of those who try at once.
        with suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
        _sync_folder(root)
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise disk_error(f"cannot write {path}", error) from error
