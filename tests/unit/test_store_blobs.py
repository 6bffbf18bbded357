from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import stores
from mailmill.errors import StorageFullError, StoreError
from mailmill.store import local_segments, object_reads
from mailmill.store.blobs import BlobRef, BlobStore
from mailmill.store.object_reads import Span, pieces, spans
from mailmill.store.object_segments import ObjectSegments
from servers.s3 import S3

# -- wherever they lie ------------------------------------------------------------------------------------------------


@dataclass
class Place:
    """A store of raw messages, and a way to look at what it holds behind its back."""

    store: BlobStore
    segments: Callable[[], Any]
    read: Callable[[str], Any]
    overwrite: Callable[[str, bytes], Any]
    remove: Callable[[str], Any]


def in_folder(data_dir: Path) -> Place:
    folder = data_dir / "segments"

    async def segments() -> list[str]:
        return await asyncio.to_thread(lambda: sorted(f"{each.parent.name}/{each.name}" for each in folder.glob("*/*")))

    return Place(
        BlobStore(data_dir),
        segments,
        lambda segment: asyncio.to_thread((folder / segment).read_bytes),
        lambda segment, content: asyncio.to_thread((folder / segment).write_bytes, content),
        lambda segment: asyncio.to_thread((folder / segment).unlink),
    )


async def in_bucket(s3: S3, prefix: str = "some/prefix") -> Place:
    bucket = await s3.new_bucket()
    folder = f"{prefix}/segments/".removeprefix("/")

    async def segments() -> list[str]:
        return [key.removeprefix(folder) for key in await s3.keys(bucket) if key.startswith(folder)]

    return Place(
        BlobStore(ObjectSegments(s3.location(bucket, prefix=prefix))),
        segments,
        lambda segment: s3.read(bucket, folder + segment),
        lambda segment, content: s3.overwrite(bucket, folder + segment, content),
        lambda segment: s3.remove(bucket, folder + segment),
    )


@pytest.fixture(params=["folder", "bucket", "bucket without prefix"])
def server(request: pytest.FixtureRequest) -> tuple[str, S3 | None]:
    """Apart from `place`: a server is not started while a loop runs."""
    return request.param, None if request.param == "folder" else request.getfixturevalue("s3")


@pytest.fixture
async def place(server: tuple[str, S3 | None], data_dir: Path) -> AsyncIterator[Place]:
    kind, s3 = server
    if s3 is None:
        opened = in_folder(data_dir)
    else:
        opened = await in_bucket(s3, "some/prefix" if kind == "bucket" else "")
    yield opened
    await opened.store.close()


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[BlobStore]:
    opened = BlobStore(data_dir)
    yield opened
    await opened.close()


async def spool(path: Path, content: bytes) -> Path:
    await asyncio.to_thread(path.write_bytes, content)
    return path


async def test_what_was_put_is_got(place: Place, tmp_path: Path) -> None:
    store, big = place.store, os.urandom(3 * 1024 * 1024 + 17)
    spooled = await spool(tmp_path / "big", big)
    contents: list[bytes | Path] = [b"one", spooled, b"", b"three" * 1000]
    refs = await store.put_batch(contents)
    assert [ref.size_bytes for ref in refs] == [3, len(big), 0, 5000]
    assert {ref.segment for ref in refs} == set(await place.segments())
    assert len(await place.segments()) == 1
    found = await store.get_many(refs)
    assert [found[ref.sha256] for ref in refs] == [b"one", big, b"", b"three" * 1000]
    assert all(ref.sha256 == hashlib.sha256(found[ref.sha256]).digest() for ref in refs)
    assert await store.get(refs[3]) == b"three" * 1000
    assert not await asyncio.to_thread(spooled.exists)


async def test_a_segment_of_many_parts_is_got_in_pieces(place: Place, tmp_path: Path) -> None:
    huge = os.urandom(object_reads.SPAN_BYTES * 2 + 1)
    refs = await place.store.put_batch([b"before", await spool(tmp_path / "huge", huge), b"after"])
    assert [len(content) for content in (await place.store.get_many(refs)).values()] == [6, len(huge), 5]
    assert await place.store.get(refs[1]) == huge
    assert await place.read(refs[0].segment) == b"before" + huge + b"after"


async def test_the_same_content_in_a_batch_is_written_once(place: Place, tmp_path: Path) -> None:
    copy = await spool(tmp_path / "copy", b"same")
    refs = await place.store.put_batch([b"same", copy, b"same", b"other"])
    assert refs[0] == refs[1] == refs[2]
    assert await place.store.get(refs[3]) == b"other"
    [segment] = await place.segments()
    assert await place.read(segment) == b"sameother"


async def test_an_empty_batch_writes_nothing(place: Place) -> None:
    assert await place.store.put_batch([]) == []
    assert await place.store.get_many([]) == {}
    assert await place.segments() == []


async def test_empty_mail_is_stored_too(place: Place) -> None:
    [ref] = await place.store.put_batch([b""])
    assert await place.store.get(ref) == b""


async def test_a_damaged_or_missing_segment_is_named(place: Place) -> None:
    store = place.store
    [ref] = await store.put_batch([b"content"])
    for wrong in (
        replace(ref, offset_bytes=3),
        replace(ref, offset_bytes=7),
        replace(ref, offset_bytes=700),
        replace(ref, size_bytes=6),
    ):
        with pytest.raises(StoreError, match=ref.segment):
            await store.get(wrong)
    await place.overwrite(ref.segment, b"c0ntent")
    with pytest.raises(StoreError, match=ref.segment) as damaged:
        await store.get(ref)
    assert "backup" in damaged.value.hint
    await place.overwrite(ref.segment, b"conten")
    with pytest.raises(StoreError, match=f"{ref.segment} is damaged"):
        await store.get(ref)
    await place.remove(ref.segment)
    with pytest.raises(StoreError, match=ref.segment) as gone:
        await store.get(ref)
    assert "backup" in gone.value.hint
    # All this is wrong with one segment: the place is well.
    assert store.trouble is None
    assert await store.get((await store.put_batch([b"other"]))[0]) == b"other"


async def test_raw_reads_show_what_is_there(place: Place) -> None:
    [_, ref] = await place.store.put_batch([b"content", b"more"])
    assert await place.store.read_raw(ref.segment, 7, 4) == b"more"
    assert await place.store.read_raw(ref.segment, 9, 400) == b"re"
    assert await place.store.read_raw(ref.segment, 900, 4) == b""
    with pytest.raises(StoreError, match="ab/none"):
        await place.store.read_raw("ab/none.seg", 0, 1)


async def test_orphans_are_collected_by_age_and_name(place: Place) -> None:
    [kept] = await place.store.put_batch([b"kept"])
    [orphan] = await place.store.put_batch([b"orphan"])
    assert await stores.collected(place.store, {kept.segment}) == 0
    assert await stores.collected(place.store, {kept.segment}, -5) == 1
    assert await place.segments() == [kept.segment]
    assert await place.store.get(kept) == b"kept"
    with pytest.raises(StoreError, match=orphan.segment):
        await place.store.get(orphan)
    assert await stores.collected(place.store, set(), -5) == 1


async def test_a_clock_that_jumps_makes_no_orphans(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    [young] = await place.store.put_batch([b"young"])
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert await stores.collected(place.store, set()) == 0
    assert await place.segments() == [young.segment]


async def test_an_empty_place_has_no_orphans(place: Place) -> None:
    assert await stores.collected(place.store, set(), -5) == 0


async def test_how_long_things_took_is_told(data_dir: Path) -> None:
    told: list[str] = []
    store = BlobStore(data_dir, observe=lambda stage, seconds: told.append(stage) if seconds >= 0 else None)
    [ref] = await store.put_batch([b"content"])
    await store.get(ref)
    await store.close()
    assert told == ["blobs:put", "blobs:get"]


async def test_an_object_store_is_loaded_only_by_who_has_one(data_dir: Path) -> None:
    program = """
        import asyncio, pathlib, sys
        import mailmill.app.wiring
        from mailmill.store.blobs import BlobStore

        async def main():
            store = BlobStore(pathlib.Path(sys.argv[1]))
            [ref] = await store.put_batch([b"content"])
            assert await store.get(ref) == b"content"
            await store.close()

        asyncio.run(main())
        print("obstore" in sys.modules)
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), str(data_dir), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out.strip()) == (0, b"False")


# -- files ------------------------------------------------------------------------------------------------------------


async def test_bytes_and_folders_are_synced_before_the_answer(
    store: BlobStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def name_of(descriptor: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return "segment" if path.suffix == ".seg" else str(path.relative_to(data_dir))

    def recorded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *rest: Any) -> Any:
            if name == "sync" and name_of(descriptor) == "segment":
                # Nothing of it may still be in our own buffer.
                assert os.fstat(descriptor).st_size == len(b"content")
            calls.append(f"{name} {name_of(descriptor)}")
            return real(descriptor, *rest)

        return call

    monkeypatch.setattr(local_segments.os, "fsync", recorded("sync", os.fsync))
    [first] = await store.put_batch([b"content"])
    folder = first.segment.split("/")[0]
    assert calls == ["sync segments", "sync .", "sync segment", f"sync segments/{folder}"]
    # What names the folders has been synced for all of them.
    other = f"{(int(folder, 16) + 1) % 256:02x}"
    monkeypatch.setattr(os, "urandom", lambda size: bytes.fromhex(other) * size)
    calls.clear()
    await store.put_batch([b"content"])
    assert calls == ["sync segment", f"sync segments/{other}"]


@pytest.mark.parametrize("call", ["fsync", "write"])
async def test_a_full_disk_leaves_no_partial_file(
    store: BlobStore, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "fsync":
        monkeypatch.setattr(local_segments.os, "fsync", full)
    else:
        monkeypatch.setattr(local_segments, "_append", full)
    spooled = await spool(tmp_path / "spooled", b"x")
    with pytest.raises(StorageFullError) as error:
        await store.put_batch([b"content", spooled])
    assert "free space" in error.value.hint
    there = await asyncio.to_thread(lambda: [each for each in (data_dir / "segments").glob("*/*") if each.is_file()])
    assert there == []
    assert await asyncio.to_thread(spooled.exists)


async def test_a_segment_that_is_there_is_not_touched(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    [ref] = await store.put_batch([b"content"])
    monkeypatch.setattr(local_segments, "new_segment_name", lambda: ref.segment)
    with pytest.raises(StoreError, match="File exists"):
        await store.put_batch([b"another"])
    assert await store.get(ref) == b"content"


async def test_an_orphan_that_cannot_be_removed_is_a_store_error(
    store: BlobStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [orphan] = await store.put_batch([b"orphan"])
    await asyncio.to_thread(os.utime, data_dir / "segments" / orphan.segment, (0, 0))

    def refuse(_path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StoreError, match="Permission denied") as error:
        await stores.collected(store, set())
    assert "make it writable" in error.value.hint


async def test_only_old_segments_that_nobody_names_are_collected(store: BlobStore, data_dir: Path) -> None:
    [kept] = await store.put_batch([b"kept"])
    [orphan] = await store.put_batch([b"orphan"])
    [young] = await store.put_batch([b"young"])
    for ref in (kept, orphan):
        await asyncio.to_thread(os.utime, data_dir / "segments" / ref.segment, (0, 0))
    assert await stores.collected(store, {kept.segment}) == 1
    assert await store.get(kept) == b"kept"
    assert await store.get(young) == b"young"
    with pytest.raises(StoreError):
        await store.get(orphan)


# -- which ranges are asked for ---------------------------------------------------------------------------------------


def ref_at(offset: int, size: int, segment: str = "ab/x.seg") -> BlobRef:
    return BlobRef(hashlib.sha256(f"{segment} {offset}".encode()).digest(), segment, offset, size)


def test_neighbours_are_one_request() -> None:
    refs = [ref_at(10, 5), ref_at(0, 10), ref_at(15, 0), ref_at(15, 4)]
    assert spans(refs) == [Span("ab/x.seg", 0, 19, (refs[1], refs[0], refs[3]))]
    assert spans([ref_at(0, 1), ref_at(100, 1)], gap_bytes=98)[0].end == 1
    assert spans([ref_at(0, 1), ref_at(100, 1)], gap_bytes=99)[0].end == 101
    assert len(spans([ref_at(0, 1), ref_at(1, 1, "ab/y.seg")])) == 2
    assert spans([]) == []


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 300), st.integers(0, 120)), max_size=20),
    st.integers(1, 100),
    st.integers(0, 30),
)
def test_spans_hold_every_content_once_and_stay_within_bounds(
    places: list[tuple[str, int, int]], span_bytes: int, gap_bytes: int
) -> None:
    refs = {BlobRef(bytes([number] * 32), *place) for number, place in enumerate(places)}
    planned = spans(refs, span_bytes=span_bytes, gap_bytes=gap_bytes)
    assert sorted((ref for span in planned for ref in span.refs), key=str) == sorted(
        (ref for ref in refs if ref.size_bytes), key=str
    )
    for span in planned:
        assert all(span.start <= ref.offset_bytes for ref in span.refs)
        assert all(ref.offset_bytes + ref.size_bytes <= span.end and ref.segment == span.segment for ref in span.refs)
        assert span.end - span.start <= span_bytes or len(span.refs) == 1


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 99))
def test_pieces_make_up_the_range(start: int, size: int, span_bytes: int) -> None:
    cut = pieces(start, start + size, span_bytes=span_bytes)
    assert [byte for low, high in cut for byte in range(low, high)] == list(range(start, start + size))
    assert all(0 < high - low <= span_bytes for low, high in cut)
