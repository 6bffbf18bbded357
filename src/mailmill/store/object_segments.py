"""Segments as objects: one PUT for each, range reads.

::

    bucket/prefix/segments/ab/<time>-<random>ab.seg
    bucket/prefix/mailmill-store                      whose place this is (`blob_marker`)
    bucket/prefix/mailmill-clock                      written to learn the store's time

The layout is that of `local_segments`: a copy of the folder is a bucket that works.

Laws:

* An answered PUT is durable, and an object is there whole or not at all. A PUT whose answer was lost is tried again
  under the same name and the condition that the name is free: what is there then is our own, and is compared.
* A store that says that a name is taken, and then that nothing is there, is in the midst of something: it is asked a
  few times more. That there is no bucket is said only where a look at the bucket has shown it.
* A large segment goes in parts; it is there when the last request of them is answered, and its size is looked at.
* The age of an object is told by the store's clock alone; a node's own may jump.
* A failure that is not the object's own (no answer, no bucket, no right to anything) is StorageUnavailableError: no
  message may fail for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from mailmill.errors import StorageRefusedError, StorageUnavailableError, StoreError
from mailmill.store.data_folder import disk_error
from mailmill.store.object_client import (
    DeniedObjectError,
    MissingObjectError,
    ObjectClient,
    PresentObjectError,
)
from mailmill.store.object_location import ObjectLimits, ObjectLocation
from mailmill.store.object_reads import SPAN_BYTES, Span, pieces, spans
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

CLOCK_NAME: Final = "mailmill-clock"

_FOLDER: Final = "segments"
_INLINE_BYTES: Final = 256 * 1024
_TRIES_AGAIN: Final = 4

_Result = TypeVar("_Result")


class ObjectSegments(Segments):
    """The objects below ``location``."""

    def __init__(self, location: ObjectLocation, limits: ObjectLimits | None = None) -> None:
        self._location = location
        self._limits = limits or ObjectLimits()
        self._client = ObjectClient(location, self._limits)

    @property
    def shown(self) -> str:
        return self._location.shown

    # -- writing ------------------------------------------------------------------------------------------------------

    async def write(self, contents: Sequence[bytes | Path]) -> list[BlobRef]:
        layout = await self._laid_out(contents)
        key = _key(layout.segment)
        try:
            if layout.size_bytes <= SPAN_BYTES:
                await self._put_new(key, await _joined(layout))
            else:
                await self._put_in_parts(key, layout)
        except OSError as error:
            raise disk_error("cannot read what is to be stored", error) from error
        await asyncio.to_thread(_unlink, contents)
        return layout.refs

    async def _laid_out(self, contents: Sequence[bytes | Path]) -> Layout:
        segment = new_segment_name()
        if _are_few(contents):
            return lay_out(segment, contents)
        try:
            return await asyncio.to_thread(lay_out, segment, contents)
        except OSError as error:
            raise disk_error("cannot read what is to be stored", error) from error

    async def _put_new(self, key: str, body: bytes) -> None:
        trouble: StorageUnavailableError | None = None
        for pause in self._pauses():
            await asyncio.sleep(pause)
            try:
                await self._client.put_new(key, body)
                return
            except PresentObjectError:
                with contextlib.suppress(MissingObjectError):
                    # One byte at least can be asked for.
                    if await self._client.get_range(key, 0, max(len(body), 1)) == body:
                        return
                    raise StoreError(
                        f"{self.shown}/{key} was there before it was written, with other bytes",
                        hint="has another program written there? it is stored anew under another name",
                    ) from None
            except MissingObjectError:
                await self._check_bucket()
            except StorageRefusedError:
                raise
            except StorageUnavailableError as error:
                # The client tries again only what never reached the store. What may have reached it can be tried again
                # here, since the name tells whether it has. Once: the client has been patient already.
                if trouble is not None:
                    raise
                trouble = error
        raise trouble or self._unsteady(key)

    async def _put_in_parts(self, key: str, layout: Layout) -> None:
        try:
            await self._client.put_in_parts(key, _streamed(layout.parts), layout.size_bytes)
        except MissingObjectError:
            # The upload is gone (NoSuchUpload), or the bucket is.
            await self._check_bucket()
            raise self._unsteady(key) from None
        size = await self._size_of(key)
        if size != layout.size_bytes:
            raise StoreError(
                f"{self.shown}/{key} was not stored whole: {size} of {layout.size_bytes} bytes",
                hint="it is stored anew; where this happens again the object store is at fault",
            )

    async def _size_of(self, key: str) -> int:
        """Of an object that is there."""
        for pause in self._pauses():
            await asyncio.sleep(pause)
            try:
                return (await self._client.head(key)).size_bytes
            except MissingObjectError:
                await self._check_bucket()
        raise self._unsteady(key)

    def _pauses(self) -> Iterator[float]:
        """Before each of a few tries, in seconds: none, then ever longer ones, jittered."""
        yield 0.0
        longest = self._limits.first_pause_seconds
        for _ in range(_TRIES_AGAIN):
            yield random.uniform(0, longest)  # noqa: S311 - jitter
            longest = min(2 * longest, self._limits.longest_pause_seconds)

    def _unsteady(self, key: str) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"the object store of {self.shown} contradicts itself: the bucket is there, and {key} is not there where it"
            " was or could be put",
            hint="it is tried again by itself; where this lasts the object store is at fault",
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    async def read(self, refs: Collection[BlobRef]) -> dict[bytes, bytes]:
        found = {ref.sha256: b"" for ref in refs if not ref.size_bytes}
        raw = await _all(self._read_span(span) for span in spans(refs))
        contents = [content for some in raw for content in some]
        if sum(ref.size_bytes for ref, _ in contents) <= _INLINE_BYTES:
            return found | self._checked(contents)
        return found | await asyncio.to_thread(self._checked, contents)

    async def read_raw(self, segment: str, offset_bytes: int, size_bytes: int) -> bytes:
        try:
            ranges = pieces(offset_bytes, offset_bytes + size_bytes)
            return b"".join(
                await _all(self._client.get_range(_key(segment), start, end) for start, end in ranges),
            )
        except MissingObjectError:
            await self._raise_gone(segment)
        except DeniedObjectError as error:
            await self._raise_denied(segment, error)

    async def _read_span(self, span: Span) -> list[tuple[BlobRef, bytes]]:
        raw = await self.read_raw(span.segment, span.start, span.end - span.start)
        starts = [(ref, ref.offset_bytes - span.start) for ref in span.refs]
        return [(ref, raw[start : start + ref.size_bytes]) for ref, start in starts]

    def _checked(self, contents: Iterable[tuple[BlobRef, bytes]]) -> dict[bytes, bytes]:
        return {ref.sha256: checked(ref, raw, hint=self._restore_hint(ref.segment)) for ref, raw in contents}

    async def _raise_gone(self, segment: str) -> NoReturn:
        await self._check_bucket()
        raise StoreError(f"the raw messages in segment {segment} are gone", hint=self._restore_hint(segment))

    async def _raise_denied(self, segment: str, error: DeniedObjectError) -> NoReturn:
        """The object's own trouble (it was moved to an archive, say), unless we may read nothing at all."""
        try:
            await self._client.get(MARKER_NAME)
        except MissingObjectError:
            raise error from None
        raise StoreError(
            f"the object store does not give out segment {segment}", hint=self._restore_hint(segment)
        ) from None

    def _restore_hint(self, segment: str) -> str:
        return (
            f"restore {self.shown}/{_key(segment)} from a backup or from an older version of the object;"
            " `mailmill verify --repair` fetches what the mail server still has"
        )

    # -- keeping ------------------------------------------------------------------------------------------------------

    async def now(self) -> float:
        try:
            await self._client.put(CLOCK_NAME, b"written to learn the time of the store\n")
            return (await self._client.head(CLOCK_NAME)).modified_at
        except MissingObjectError:
            raise self._no_bucket() from None

    async def collect(self, referenced: Collection[str], written_before: float) -> int:
        kept = frozenset(referenced)
        removed = 0
        async with contextlib.aclosing(self._client.list_pages(_FOLDER)) as pages:
            async for page in pages:
                orphans = [
                    each.key
                    for each in page
                    if each.modified_at < written_before
                    and each.key.endswith(".seg")
                    and each.key.removeprefix(f"{_FOLDER}/") not in kept
                ]
                if orphans:
                    await self._client.delete(orphans)
                    removed += len(orphans)
        return removed

    async def read_marker(self) -> str | None:
        await self._check_bucket()
        try:
            return _text_of(await self._client.get(MARKER_NAME)) or None
        except MissingObjectError:
            return None

    async def write_marker(self, text: str) -> str:
        for pause in self._pauses():
            await asyncio.sleep(pause)
            # Another node may be writing its own at this moment: what is there in the end says whose place it is.
            with contextlib.suppress(PresentObjectError, MissingObjectError):
                await self._client.put_new(MARKER_NAME, f"{text}\n".encode("ascii"))
            try:
                return _text_of(await self._client.get(MARKER_NAME))
            except MissingObjectError:
                await self._check_bucket()
        raise self._unsteady(MARKER_NAME)

    async def close(self) -> None:
        """The client keeps nothing that wants to be closed."""

    async def _check_bucket(self) -> None:
        """That it is there, and may be listed: without that right a key that is missing looks like one that is denied.

        Raises StorageRefusedError, StorageUnavailableError.
        """
        try:
            async with contextlib.aclosing(self._client.list_pages(_FOLDER)) as pages:
                await anext(pages, None)
        except StorageRefusedError:
            raise
        except StorageUnavailableError:
            # A missing bucket fails a listing like anything else; asked for an object it is as if that were missing.
            try:
                await self._client.head(MARKER_NAME)
            except MissingObjectError:
                raise self._no_bucket() from None
            raise

    def _no_bucket(self) -> StorageRefusedError:
        return StorageRefusedError(
            f"there is no bucket {self._location.bucket!r} in the object store of {self.shown}",
            hint="make the bucket, or correct service.blob_url, service.blob_endpoint or service.blob_region",
        )


async def _all(requests: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """All of them side by side; the first error once all have ended, so that none goes on behind it."""
    ended = await asyncio.gather(*requests, return_exceptions=True)
    results: list[_Result] = []
    for each in ended:
        if isinstance(each, BaseException):
            raise each
        results.append(each)
    return results


def _key(segment: str) -> str:
    return f"{_FOLDER}/{segment}"


def _text_of(marker: bytes) -> str:
    return marker.decode("ascii", "replace").strip()


def _are_few(contents: Iterable[bytes | Path]) -> bool:
    """Whether they can be handled on the loop at once."""
    size = 0
    for content in contents:
        if isinstance(content, Path):
            return False
        size += len(content)
    return size <= _INLINE_BYTES


async def _joined(layout: Layout) -> bytes:
    parts = [part for part in layout.parts if isinstance(part, bytes)]
    if len(parts) == len(layout.parts):
        return b"".join(parts)
    return await asyncio.to_thread(_join, layout.parts)


def _join(parts: Iterable[bytes | Path]) -> bytes:
    return b"".join(part.read_bytes() if isinstance(part, Path) else part for part in parts)


async def _streamed(parts: Iterable[bytes | Path]) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        with await asyncio.to_thread(part.open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece


def _unlink(contents: Iterable[bytes | Path]) -> None:
    for content in contents:
        if isinstance(content, Path):
            # The bytes are safe; a spool file that stays is swept when the service next starts.
            with contextlib.suppress(OSError):
                content.unlink()
