"""Files that are written once and compared later: synced, hashed, and found to be what they were. All of it blocks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mailmill.errors import StoreError
from mailmill.store.data_folder import disk_error


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a backup. ``name`` is its path in it."""

    name: str
    size_bytes: int
    sha256: str


def described(path: Path, name: str) -> StoredFile:
    """What lies at ``path``, synced. Raises OSError."""
    size, digest = _hash(path)
    sync(path)
    return StoredFile(name, size, digest)


def compare(path: Path, file: StoredFile) -> None:
    """Raises StoreError where ``path`` is missing or is not ``file``, OSError where it cannot be read."""
    try:
        size, digest = _hash(path)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", hint="use another backup") from None
    if (size, digest) != (file.size_bytes, file.sha256):
        raise StoreError(f"{path} is not what was backed up", hint="use another backup")


def sync(path: Path) -> None:
    """A file or a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def on_disk(what: str) -> Iterator[None]:
    """Around what may raise OSError: it is raised as the StoreError that says ``what`` failed."""
    try:
        yield
    except OSError as error:
        raise disk_error(what, error) from error


def _hash(path: Path) -> tuple[int, str]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.tell(), digest
