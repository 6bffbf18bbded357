"""Raw messages, wherever they lie: the door that all others use.

Laws:

* `put_batch` returns when the bytes are durable, so whoever names a blob in a transaction names bytes that survive a
  power cut. What no transaction named is collected after a while (`collect_orphans`).
* Bytes that are stored twice have one place: the first, for as long as it is sound (`blob_places`).
* A segment is never written again. Content is named by its SHA-256 and checked whenever it is read.
* What an orphan is gets decided in this order: the place's clock (`orphan_limit`), then the names that the database
  holds, then the segments. So a clock that jumps meanwhile (the machine slept) makes no orphan of mail that was written
  and named since the names were read.
* A place that could not be reached, or refuses us, raises StorageUnavailableError, whatever was asked of it: that is
  the store's trouble and no fault of a message. Only what is gone or damaged is a plain StoreError.
* Nothing is written to a place, and nothing removed from it, before it has proven to be this store's
  (`blob_marker`): the orphans of one store are the mail of another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from mailmill.errors import StorageUnavailableError, StoreError
from mailmill.store.local_segments import LocalSegments
from mailmill.store.segments import BlobRef, Segments

__all__ = ["ORPHAN_SECONDS", "BlobRef", "BlobStore"]

ORPHAN_SECONDS = 24 * 3600.0

_TOGETHER_BYTES = 12 * 1024 * 1024

Proof = Callable[[Segments], Awaitable[None]]


def _bounded(refs: Collection[BlobRef]) -> Iterator[list[BlobRef]]:
    """So many at a time as memory is to hold; neighbours together."""
    some: list[BlobRef] = []
    size = 0
    for ref in sorted(refs, key=lambda ref: (ref.segment, ref.offset_bytes)):
        if some and size + ref.size_bytes > _TOGETHER_BYTES:
            yield some
            some, size = [], 0
        some.append(ref)
        size += ref.size_bytes
    if some:
        yield some


def _unobserved(_stage: str, _seconds: float) -> None:
    return


class BlobStore:
    """Raw messages in one place: the folder at a Path, or any `Segments`.

    ``proof`` is awaited until it has passed once, before the place is used for anything. ``observe(stage, seconds)`` is
    told how long things took: ``blobs:put``, ``blobs:get``.
    """

    def __init__(
        self,
        place: Path | Segments,
        *,
        proof: Proof | None = None,
        observe: Callable[[str, float], None] = _unobserved,
    ) -> None:
        self._segments = LocalSegments(place) if isinstance(place, Path) else place
        self._proof = proof
        self._proven = proof is None
        self._proving = asyncio.Lock()
        self._observe = observe
        self._trouble: StorageUnavailableError | None = None

    @property
    def segments_folder(self) -> Path | None:
        """Where the segments lie as files, for who reads them plainly; None where they are objects."""
        return self._segments.folder

    @property
    def shown(self) -> str:
        """The place in a person's words."""
        return self._segments.shown

    @property
    def trouble(self) -> StorageUnavailableError | None:
        """Why the place could not be used when it was last tried; None where it could."""
        return self._trouble

    async def prove(self) -> None:
        """Raises StorageUnavailableError where the place cannot be reached or used, StoreError where it is another's.

        Once it has passed it costs nothing.
        """
        if self._proven:
            return
        async with self._proving:
            if not self._proven:
                await self._prove()
                self._proven = True

    async def prove_anew(self) -> None:
        """`prove`, also where it has passed: a mount may have gone since."""
        await self._prove()

    async def put_batch(self, contents: Sequence[bytes | Path]) -> list[BlobRef]:
        """Store ``contents`` in one new segment; the answer has their order. Same content twice is written once.

        A Path is unlinked once the segment is durable. On an error no Path is touched, and what may have been written
        is an orphan; raises StorageFullError, StorageUnavailableError or StoreError. A cancelled call may leave a
        segment that nobody names.
        """
        if not contents:
            return []
        await self.prove()
        async with self._watched("blobs:put"):
            return await self._segments.write(contents)

    async def get(self, ref: BlobRef) -> bytes:
        """The bytes. Raises StoreError, naming the segment, where they are not there or not what their hash says."""
        return (await self.get_many([ref]))[ref.sha256]

    async def get_many(self, refs: Collection[BlobRef]) -> dict[bytes, bytes]:
        """SHA-256 → bytes; the caller bounds the sum of the sizes. Raises StorageUnavailableError, or StoreError as
        `get`.
        """
        if not refs:
            return {}
        await self.prove()
        async with self._watched("blobs:get"):
            return await self._segments.read(refs)

    async def lost(self, refs: Collection[BlobRef]) -> list[BlobRef]:
        """Those whose bytes are not there, or not what their hash says.

        Where there are any, the place proves anew to be ours: without its mount, all of them are missing and none is
        lost. Raises as `prove` does, so also where nothing can be said because the place cannot be reached.
        """
        if not refs:
            return []
        await self.prove()
        async with self._watched():
            found = [ref for some in _bounded(refs) for ref in await self._unreadable(some)]
        if found:
            await self._prove()
        return found

    async def read_raw(self, segment: str, offset_bytes: int, size_bytes: int) -> bytes:
        """What lies there, unchecked, and fewer bytes where the segment ends before: for `verify`, which checks itself.

        Raises StoreError where the segment is gone, StorageUnavailableError as all do.
        """
        await self.prove()
        async with self._watched():
            return await self._segments.read_raw(segment, offset_bytes, size_bytes)

    async def orphan_limit(self, older_than_seconds: float = ORPHAN_SECONDS) -> float:
        """``older_than_seconds`` ago, by the place's own clock: for `collect_orphans`, asked for before the names."""
        await self.prove()
        async with self._watched():
            return await self._segments.now() - older_than_seconds

    async def collect_orphans(self, referenced: Collection[str], written_before: float) -> int:
        """Remove segments not in ``referenced`` that were last written before ``written_before``, an `orphan_limit`.

        ``referenced`` comes from `messages.referenced_segments`, read after that. The age keeps segments whose
        transaction has not committed yet. Returns how many went. Raises StoreError where one cannot be removed.
        """
        await self.prove()
        async with self._watched():
            return await self._segments.collect(referenced, written_before)

    async def close(self) -> None:
        """Wait for what is running."""
        await self._segments.close()

    async def _prove(self) -> None:
        if self._proof is not None:
            async with self._watched():
                await self._proof(self._segments)

    async def _unreadable(self, refs: list[BlobRef]) -> list[BlobRef]:
        try:
            await self._segments.read(refs)
        except StorageUnavailableError:
            raise
        except StoreError:
            if len(refs) == 1:
                return refs
            # By halves: one that is lost stands among hundreds that are well.
            half = len(refs) // 2
            return [*await self._unreadable(refs[:half]), *await self._unreadable(refs[half:])]
        return []

    @asynccontextmanager
    async def _watched(self, stage: str = "") -> AsyncIterator[None]:
        began = time.perf_counter()
        try:
            yield
        except StorageUnavailableError as error:
            self._trouble = error
            raise
        self._trouble = None
        if stage:
            self._observe(stage, time.perf_counter() - began)
