"""Raw messages, wherever they lie: the door that all others use.

Laws:

* `put_batch` returns when the bytes are durable, so whoever names a blob in a transaction names bytes that survive a
  power cut. What no transaction named is collected after a while (`collect_orphans`).
* A segment is never written again. Content is named by its SHA-256 and checked whenever it is read.
* A place that could not be reached, or refuses us, raises StorageUnavailableError, whatever was asked of it: that is
  the store's trouble and no fault of a message. Only what is gone or damaged is a plain StoreError.
* Nothing is written to a place, and nothing removed from it, before it has proven to be this store's
  (`blob_marker`): the orphans of one store are the mail of another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from mailmill.errors import StorageUnavailableError
from mailmill.store.local_segments import LocalSegments
from mailmill.store.segments import BlobRef, Segments

__all__ = ["ORPHAN_SECONDS", "BlobRef", "BlobStore"]

ORPHAN_SECONDS = 24 * 3600.0

Proof = Callable[[Segments], Awaitable[None]]


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
        if self._proof is None:
            return
        async with self._proving:
            if self._proof is not None:
                async with self._watched():
                    await self._proof(self._segments)
                self._proof = None

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

    async def read_raw(self, segment: str, offset_bytes: int, size_bytes: int) -> bytes:
        """What lies there, unchecked, and fewer bytes where the segment ends before: for `verify`, which checks itself.

        Raises StoreError where the segment is gone, StorageUnavailableError as all do.
        """
        await self.prove()
        async with self._watched():
            return await self._segments.read_raw(segment, offset_bytes, size_bytes)

    async def collect_orphans(self, referenced: Collection[str], older_than_seconds: float = ORPHAN_SECONDS) -> int:
        """Remove segments not in ``referenced`` that were last written more than ``older_than_seconds`` ago.

        ``referenced`` comes from `messages.referenced_segments`. The age, by the place's own clock, keeps segments
        whose transaction has not committed yet. Returns how many went. Raises StoreError where one cannot be removed.
        """
        await self.prove()
        async with self._watched():
            return await self._segments.collect(referenced, older_than_seconds)

    async def close(self) -> None:
        """Wait for what is running."""
        await self._segments.close()

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
