"""What a backup says of itself: read as it was written, and refused where it was altered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailmill.errors import InvalidRequestError
from mailmill.store.backup_manifest import Manifest, read_manifest, write_manifest
from mailmill.store.stored_files import StoredFile

DIGEST = "ab" * 32
MANIFEST = Manifest(
    version="0.1",
    revision="0006",
    created_at=1_700_000_000.5,
    database=StoredFile("mailmill.db", 4096, DIGEST),
    segments=(StoredFile("segments/ab/17a-00ab.seg", 3, DIGEST), StoredFile("segments/cd/17a-00cd.seg", 0, DIGEST)),
    segments_at="",
    missing=("ef/17a-00ef.seg",),
    place="0a1b.2c3d",
)

Edit = Callable[[dict[str, Any]], object]


def edited(folder: Path, edit: Edit) -> None:
    write_manifest(folder, MANIFEST)
    found = json.loads((folder / "manifest.json").read_text())
    edit(found)
    (folder / "manifest.json").write_text(json.dumps(found))


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    assert (tmp_path / "manifest.json").stat().st_mode & 0o077 == 0


def test_one_of_before_there_were_these_keys_is_read(tmp_path: Path) -> None:
    edited(tmp_path, lambda found: (found.pop("missing"), found.pop("place")))
    read = read_manifest(tmp_path)
    assert (read.missing, read.place, read.segments) == ((), "", MANIFEST.segments)


@pytest.mark.parametrize("content", [b"", b'{"format": 1', b"[" * 100_000, b"\xff\xfe", b'{"format": ' + b"9" * 5000])
def test_what_is_no_manifest_is_no_backup(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(InvalidRequestError, match="holds no backup"):
        read_manifest(tmp_path)


ALTERED: list[tuple[str, Edit]] = [
    ("format", lambda found: found.clear()),
    ("format", lambda found: found.update(format=True)),
    ("format", lambda found: found.update(format="1")),
    ("version", lambda found: found.update(version=None)),
    ("revision", lambda found: found.update(revision=6)),
    ("revision", lambda found: found.update(revision="0006'; DROP TABLE message; --")),
    ("createdAt", lambda found: found.update(createdAt="yesterday")),
    ("createdAt", lambda found: found.update(createdAt=None)),
    ("createdAt", lambda found: found.update(createdAt=True)),
    ("createdAt", lambda found: found.update(createdAt=1e300)),
    ("createdAt", lambda found: found.update(createdAt=float("nan"))),
    ("database", lambda found: found.update(database=[])),
    ("database", lambda found: found["database"].update(name="../mailmill.toml")),
    ("bytes", lambda found: found["database"].update(bytes="4096")),
    ("bytes", lambda found: found["database"].update(bytes=-1)),
    ("sha256", lambda found: found["database"].update(sha256="ab")),
    ("segments", lambda found: found.update(segments={})),
    ("no object", lambda found: found.update(segments=["segments/ab/1.seg"])),
    ("segments", lambda found: found["segments"][0].update(name="segments/../../out.seg")),
    ("segments", lambda found: found["segments"][0].update(name="/segments/ab/out.seg")),
    ("segments", lambda found: found["segments"][0].update(name="mailmill.db")),
    ("segments", lambda found: found["segments"][0].update(name="segments/ab/\x00.seg")),
    ("segments", lambda found: found["segments"][0].update(name="segments/ab/\ud800.seg")),
    ("twice", lambda found: found["segments"].append(found["segments"][0])),
    ("twice", lambda found: found["missing"].append("ab/17a-00ab.seg")),
    ("missing", lambda found: found.update(missing=1)),
    ("segments", lambda found: found.update(missing=[["ab/1.seg"]])),
    ("segmentsAt", lambda found: found.pop("segmentsAt")),
    ("place", lambda found: found.update(place="two\nlines")),
]


@pytest.mark.parametrize(("named", "edit"), ALTERED, ids=[f"{number} {key}" for number, (key, _) in enumerate(ALTERED)])
def test_one_that_was_altered_is_refused_and_the_key_is_named(tmp_path: Path, named: str, edit: Edit) -> None:
    edited(tmp_path, edit)
    with pytest.raises(InvalidRequestError, match=f"not as mailmill writes it: .*{named}") as refused:
        read_manifest(tmp_path)
    assert "another backup" in refused.value.hint


@pytest.mark.parametrize("content", [b"[]", b"null", b'"text"'])
def test_what_is_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(InvalidRequestError, match="no object"):
        read_manifest(tmp_path)


def test_one_of_a_newer_format_says_so(tmp_path: Path) -> None:
    edited(tmp_path, lambda found: found.update(format=2))
    with pytest.raises(InvalidRequestError, match="format 2") as refused:
        read_manifest(tmp_path)
    assert "newer" in refused.value.hint
