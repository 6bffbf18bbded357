from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_mail import open_database

from mailmill.errors import MasterKeyError
from mailmill.store.database import Database
from mailmill.store.keys import KEY_FILE_NAME, KeyRing, open_key_ring


@pytest.fixture
async def database(data_dir: Path, database_url: str) -> AsyncIterator[Database]:
    async with open_database(data_dir, database_url) as opened:
        yield opened


async def read(path: Path) -> str:
    return await asyncio.to_thread(path.read_text)


async def test_a_key_is_made_once_and_kept_private(database: Database, data_dir: Path) -> None:
    sealed = (await open_key_ring(database, data_dir=data_dir)).seal(b"hunter2")
    file = data_dir / KEY_FILE_NAME
    assert (await asyncio.to_thread(file.stat)).st_mode & 0o777 == 0o600
    assert (await open_key_ring(database, data_dir=data_dir)).unseal(sealed) == b"hunter2"


async def test_a_lost_key_is_never_replaced(database: Database, data_dir: Path) -> None:
    await open_key_ring(database, data_dir=data_dir)
    file = data_dir / KEY_FILE_NAME
    text = await read(file)
    await asyncio.to_thread(file.unlink)
    with pytest.raises(MasterKeyError, match="missing") as missing:
        await open_key_ring(database, data_dir=data_dir)
    assert "MAILMILL_KEY" in missing.value.hint
    assert not await asyncio.to_thread(file.exists)
    await open_key_ring(database, data_dir=data_dir, explicit=text)


async def test_a_wrong_key_is_refused(database: Database, data_dir: Path) -> None:
    await open_key_ring(database, data_dir=data_dir)
    other = KeyRing.generate()
    with pytest.raises(MasterKeyError, match="MAILMILL_KEY is not the one") as wrong:
        await open_key_ring(database, data_dir=data_dir, explicit=other)
    assert wrong.value.hint
    assert other.strip("=") not in repr(wrong.value)


async def test_a_given_key_is_used_and_none_is_written(database: Database, data_dir: Path, tmp_path: Path) -> None:
    key = KeyRing.generate()
    sealed = (await open_key_ring(database, data_dir=data_dir, explicit=key)).seal(b"x")
    file = tmp_path / "key"
    await asyncio.to_thread(file.write_text, f"  {key}\n")
    assert (await open_key_ring(database, data_dir=data_dir, key_file=file)).unseal(sealed) == b"x"
    assert not await asyncio.to_thread((data_dir / KEY_FILE_NAME).exists)


async def test_a_key_file_that_is_named_must_be_there(database: Database, data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError, match="does not exist") as missing:
        await open_key_ring(database, data_dir=data_dir, key_file=tmp_path / "nowhere")
    assert "key_file" in missing.value.hint


@pytest.mark.parametrize("text", ["", "short", "x" * 44, "é" * 44, "QUFB", "A" * 43 + "=QUFB"])
async def test_a_malformed_key_is_named_not_shown(database: Database, data_dir: Path, text: str) -> None:
    with pytest.raises(MasterKeyError, match="malformed") as malformed:
        await open_key_ring(database, data_dir=data_dir, explicit=text)
    assert "openssl" in malformed.value.hint
    assert not text or text not in str(malformed.value)
    assert malformed.value.__cause__ is None


async def test_a_start_that_died_before_the_canary_keeps_its_key(database: Database, data_dir: Path) -> None:
    await asyncio.to_thread((data_dir / KEY_FILE_NAME).write_text, KeyRing.generate())
    mark = (await open_key_ring(database, data_dir=data_dir)).mark("x")
    assert (await open_key_ring(database, data_dir=data_dir)).mark("x") == mark


def test_standard_and_url_safe_base64_are_the_same_key() -> None:
    url_safe = "-_" + "A" * 41 + "="
    one = KeyRing.parse(url_safe, source="a")
    other = KeyRing.parse("+/" + "A" * 41, source="b")
    assert one.mark("text") == other.mark("text")


def test_altered_or_foreign_ciphertext_is_refused() -> None:
    ring, other = (KeyRing.parse(KeyRing.generate(), source="test") for _ in range(2))
    sealed = ring.seal(b"secret")
    for bad in (other.seal(b"secret"), sealed[:-6] + "AAAAAA", "é", ""):
        with pytest.raises(MasterKeyError):
            ring.unseal(bad)
    assert ring.seal(b"secret") != sealed
    assert "secret" not in repr(ring)


def test_marks_differ_by_text_and_by_key() -> None:
    ring, other = (KeyRing.parse(KeyRing.generate(), source="test") for _ in range(2))
    assert ring.mark("a") == ring.mark("a")
    assert len({ring.mark("a"), ring.mark("b"), other.mark("a")}) == 3
    assert len(ring.mark("a")) == 64
