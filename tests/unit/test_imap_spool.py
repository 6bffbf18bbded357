"""Large literals on disk: written off the loop, in order, with back-pressure, and never left behind."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from mailmill.errors import StorageFullError, StoreError
from mailmill.imap import spool
from mailmill.imap.spool import SpoolFile


def new(folder: Path, pressed: list[bool] | None = None, size: int = 0) -> SpoolFile:
    heard: list[bool] = [] if pressed is None else pressed
    return SpoolFile(folder, size, heard.append)


async def read(path: Path) -> bytes:
    return await asyncio.to_thread(path.read_bytes)


async def files(folder: Path) -> list[str]:
    return await asyncio.to_thread(lambda: os.listdir(folder) if folder.exists() else [])


async def test_chunks_land_in_order_in_a_private_file(tmp_path: Path):
    literal = new(tmp_path / "made" / "on demand")
    chunks = [bytes([n]) * 1000 for n in range(200)]
    for chunk in chunks:
        literal.write(chunk)
    path = await literal.finish().ready()
    assert await read(path) == b"".join(chunks)
    mode = await asyncio.to_thread(lambda: path.stat().st_mode)
    assert mode & 0o777 == 0o600


async def test_pressure_when_the_disk_is_behind(tmp_path: Path):
    pressed: list[bool] = []
    literal = new(tmp_path, pressed)
    for _ in range(6):
        literal.write(b"x" * 2**20)
    assert pressed == [True]
    await literal.ready()
    assert pressed == [True, False]


async def test_an_unwanted_file_is_removed_also_while_it_is_written(tmp_path: Path):
    finished, aborted = new(tmp_path), new(tmp_path)
    finished.write(b"x")
    await finished.ready()
    finished.discard()
    finished.discard()
    aborted.write(b"y" * 2**20)
    aborted.abort()
    aborted.write(b"late")
    await finished.ready()
    await aborted.ready()
    assert await files(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, StorageFullError), (errno.EDQUOT, StorageFullError), (errno.EIO, StoreError)]
)
async def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[StoreError]):
    def fail(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    pressed: list[bool] = []
    literal = new(tmp_path, pressed)
    monkeypatch.setattr(spool.os, "open", fail)
    for _ in range(6):
        literal.write(b"x" * 2**20)
    with pytest.raises(error) as caught:
        await literal.ready()
    assert type(caught.value) is error
    assert pressed == [True, False], "reading must go on, or the connection would hang for ever"
