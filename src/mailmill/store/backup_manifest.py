"""What a backup says of itself: a file of JSON beside what it tells of, written last.

``missing`` and ``place`` came after the first format: a backup without them is as good as one where they are empty. Who
reads a manifest takes nothing for granted, and says which key is not as it should be. Blocks.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mailmill.errors import InvalidRequestError
from mailmill.store.stored_files import StoredFile, sync

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DATABASE: Final = "mailmill.db"
DUMP: Final = "postgresql.dump"
SEGMENTS: Final = "segments"

_SEGMENT = re.compile(r"[0-9A-Za-z_-]+/[0-9A-Za-z_.-]+\.seg")
_REVISION = re.compile(r"[0-9A-Za-z_]{1,32}")
_PLACE = re.compile(r"[!-~]{0,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# The year 10000.
_NEVER: Final = 253_402_300_800


@dataclass(frozen=True, slots=True)
class Manifest:
    """``segments_at``: where the segments are, of a store whose raw mail is in an object storage and so not in the
    backup; else empty. ``missing``: segments that the database names and that were gone when it was copied.
    ``place``: what said of the folder of raw mail whose it is (`blob_marker`); empty where nothing did.
    """

    version: str
    revision: str
    created_at: float
    database: StoredFile
    segments: tuple[StoredFile, ...]
    segments_at: str = ""
    missing: tuple[str, ...] = ()
    place: str = ""

    @property
    def size_bytes(self) -> int:
        return self.database.size_bytes + sum(segment.size_bytes for segment in self.segments)


def is_place(text: str) -> bool:
    """Whether a manifest can hold it as its ``place``."""
    return _PLACE.fullmatch(text) is not None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Synced. Raises OSError."""
    path = folder / MANIFEST
    path.write_text(_dumped(manifest), encoding="utf-8")
    path.chmod(0o600)
    sync(path)


def read_manifest(folder: Path) -> Manifest:
    """Raises InvalidRequestError where ``folder`` holds no whole backup that this version can read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"{folder} holds no backup, or not all of it",
            hint=f"a whole one has a {MANIFEST}; what ends in .partial was cut while it was made",
        ) from error
    try:
        return _read(found, folder)
    except _AlteredError as error:
        raise InvalidRequestError(
            f"{folder / MANIFEST} is not as mailmill writes it: {error}", hint="it was altered: use another backup"
        ) from None


class _AlteredError(Exception):
    """Names what is wrong."""


def _read(found: Any, folder: Path) -> Manifest:
    _demand(type(found) is dict, "it is no object")
    written = _value(found, "format", int)
    if written > FORMAT:
        raise InvalidRequestError(f"the backup {folder} has the format {written}", hint="a newer mailmill made it")
    _demand(written == FORMAT, "format")
    revision = _value(found, "revision", str)
    _demand(_REVISION.fullmatch(revision), "revision")
    created_at = _value(found, "createdAt", float, int)
    _demand(0 <= created_at < _NEVER, "createdAt")
    database = _file(_value(found, "database", dict))
    _demand(database.name in (DATABASE, DUMP), "database")
    segments = tuple(_file(each) for each in _value(found, "segments", list))
    missing = tuple(_value(found, "missing", list)) if "missing" in found else ()
    place = _value(found, "place", str) if "place" in found else ""
    _demand(is_place(place), "place")
    names = [file.name.removeprefix(f"{SEGMENTS}/") for file in segments]
    _demand(all(file.name.startswith(f"{SEGMENTS}/") for file in segments), "segments")
    _demand(all(type(name) is str and _SEGMENT.fullmatch(name) for name in (*names, *missing)), "segments")
    _demand(len({*names, *missing}) == len(names) + len(missing), "a segment is named twice")
    return Manifest(
        version=_value(found, "version", str),
        revision=revision,
        created_at=float(created_at),
        database=database,
        segments=segments,
        segments_at=_value(found, "segmentsAt", str),
        missing=missing,
        place=place,
    )


def _file(found: Any) -> StoredFile:
    _demand(type(found) is dict, "a file is no object")
    name, size, digest = _value(found, "name", str), _value(found, "bytes", int), _value(found, "sha256", str)
    _demand(size >= 0, "bytes")
    _demand(_SHA256.fullmatch(digest), "sha256")
    return StoredFile(name, size, digest)


def _value(found: dict[str, Any], key: str, *types: type) -> Any:
    """A bool is no number."""
    value = found.get(key)
    _demand(type(value) in types, key)
    return value


def _demand(holds: object, what: str) -> None:
    if not holds:
        raise _AlteredError(what)


def _dumped(manifest: Manifest) -> str:
    def shown(file: StoredFile) -> dict[str, Any]:
        return {"name": file.name, "bytes": file.size_bytes, "sha256": file.sha256}

    return json.dumps(
        {
            "format": FORMAT,
            "version": manifest.version,
            "revision": manifest.revision,
            "createdAt": manifest.created_at,
            "database": shown(manifest.database),
            "segmentsAt": manifest.segments_at,
            "segments": [shown(each) for each in manifest.segments],
            "missing": list(manifest.missing),
            "place": manifest.place,
        },
        indent=1,
    )
