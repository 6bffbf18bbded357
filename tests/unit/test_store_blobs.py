from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mailmill.errors import StorageFullError, StoreError
from mailmill.store import blobs as blobs_module
from mailmill.store.blobs import BlobStore


@pytest.fixture
async def store(data_dir: Path) -> AsyncIterator[BlobStore]:
    opened = BlobStore(data_dir)
    yield opened
    await opened.close()


async def segments(root: Path) -> list[Path]:
    return await asyncio.to_thread(lambda: sorted((root / "segments").glob("*/*")))


async def spool(path: Path, content: bytes) -> Path:
    await asyncio.to_thread(path.write_bytes, content)
    return path


async def test_what_was_put_is_got(store: BlobStore, data_dir: Path, tmp_path: Path) -> None:
    big = os.urandom(3 * 1024 * 1024 + 17)
    spooled = await spool(tmp_path / "big", big)
    contents: list[bytes | Path] = [b"one", spooled, b"", b"three" * 1000]
    refs = await store.put_batch(contents)
    assert [ref.size_bytes for ref in refs] == [3, len(big), 0, 5000]
    assert len({ref.segment for ref in refs}) == len(await segments(data_dir)) == 1
    found = await store.get_many(refs)
    assert [found[ref.sha256] for ref in refs] == [b"one", big, b"", b"three" * 1000]
    assert all(ref.sha256 == hashlib.sha256(found[ref.sha256]).digest() for ref in refs)
    assert await store.get(refs[3]) == b"three" * 1000
    assert not await asyncio.to_thread(spooled.exists)


async def test_the_same_content_in_a_batch_is_written_once(store: BlobStore, data_dir: Path, tmp_path: Path) -> None:
    copy = await spool(tmp_path / "copy", b"same")
    refs = await store.put_batch([b"same", copy, b"same", b"other"])
    assert refs[0] == refs[1] == refs[2]
    assert await store.get(refs[3]) == b"other"
    [segment] = await segments(data_dir)
    assert await asyncio.to_thread(segment.read_bytes) == b"sameother"


async def test_an_empty_batch_writes_nothing(store: BlobStore, data_dir: Path) -> None:
    assert await store.put_batch([]) == []
    assert await store.get_many([]) == {}
    assert await segments(data_dir) == []


async def test_a_damaged_or_missing_segment_is_named(store: BlobStore, data_dir: Path) -> None:
    [ref] = await store.put_batch([b"content"])
    [path] = await segments(data_dir)
    with pytest.raises(StoreError, match=ref.segment):
        await store.get(replace(ref, offset_bytes=3))
    await asyncio.to_thread(path.write_bytes, b"c0ntent")
    with pytest.raises(StoreError, match=ref.segment) as damaged:
        await store.get(ref)
    assert "backup" in damaged.value.hint
    await asyncio.to_thread(path.unlink)
    with pytest.raises(StoreError, match=ref.segment):
        await store.get(ref)


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

    monkeypatch.setattr(blobs_module.os, "fsync", recorded("sync", os.fsync))
    [first] = await store.put_batch([b"content"])
    folder = first.segment.split("/")[0]
    assert calls == ["sync segments", "sync .", "sync segment", f"sync segments/{folder}"]
    # What names the folders has been synced for all of them.
    other = f"{(int(folder, 16) + 1) % 256:02x}"
    monkeypatch.setattr(blobs_module.os, "urandom", lambda size: bytes.fromhex(other) * size)
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
        monkeypatch.setattr(blobs_module.os, "fsync", full)
    else:
        monkeypatch.setattr(blobs_module, "_append_all", full)
    spooled = await spool(tmp_path / "spooled", b"x")
    with pytest.raises(StorageFullError) as error:
        await store.put_batch([b"content", spooled])
    assert "free space" in error.value.hint
    assert [path for path in await segments(data_dir) if path.is_file()] == []
    assert await asyncio.to_thread(spooled.exists)


async def test_an_orphan_that_cannot_be_removed_is_a_store_error(
    store: BlobStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [orphan] = await store.put_batch([b"orphan"])
    await asyncio.to_thread(os.utime, data_dir / "segments" / orphan.segment, (0, 0))

    def refuse(_path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StoreError, match="Permission denied") as error:
        await store.collect_orphans(set())
    assert "make it writable" in error.value.hint


async def test_only_old_segments_that_nobody_names_are_collected(store: BlobStore, data_dir: Path) -> None:
    [kept] = await store.put_batch([b"kept"])
    [orphan] = await store.put_batch([b"orphan"])
    [young] = await store.put_batch([b"young"])
    for ref in (kept, orphan):
        await asyncio.to_thread(os.utime, data_dir / "segments" / ref.segment, (0, 0))
    assert await store.collect_orphans({kept.segment}) == 1
    assert await store.get(kept) == b"kept"
    assert await store.get(young) == b"young"
    with pytest.raises(StoreError):
        await store.get(orphan)
