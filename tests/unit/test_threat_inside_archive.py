"""What the archive reader sees: what is held, at any level; and that nothing is unpacked beyond its bounds."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zipfile
from collections.abc import Callable

import pytest
from threat_files import DOS, ooxml, tar_of, vba_project, zip_of

from mailmill.processing.threat.evidence.readers import archive, listings

LNK = b"L\x00\x00\x00\x01\x14\x02\x00" + b"\x00" * 60


def rar4(name: str, *, flags: int = 0) -> bytes:
    raw = name.encode()
    head = struct.pack("<HBHH", 0, 0x74, 0x8000 | flags, 32 + len(raw))
    head += struct.pack("<LLBLLBBHL", 5, 5, 0, 0, 0, 29, 0x30, len(raw), 0)
    return listings.RAR4 + struct.pack("<HBHHHL", 0, 0x73, 0, 13, 0, 0) + head + raw + b"hello"


def rar5(name: str, *, locked: bool = False) -> bytes:
    def block(body: bytes) -> bytes:
        return b"\x00" * 4 + bytes([len(body)]) + body

    raw = name.encode()
    extra = b"\x02\x01\x00" if locked else b""
    file = bytes([2, 3, len(extra), 5, 0, 5, 0, 0, 0, len(raw)]) + raw + extra
    return listings.RAR5 + block(b"\x01\x00\x00") + block(file) + b"hello" + block(b"\x05\x00\x00")


def seven_zip(name: str, *, coder: bytes = b"\x03\x01\x01", packed: bool = False) -> bytes:
    names = name.encode("utf-16-le") + b"\x00\x00"
    header = b"\x01\x04\x06\x00\x01\x09\x05\x00\x07\x0b" + coder + b"\x05\x01\x11" + bytes([len(names) + 1, 0]) + names
    body = b"hello"
    if packed:
        stream = lzma.compress(header, lzma.FORMAT_ALONE)
        body += stream[13:]
        encoded = b"\x17\x06" + bytes([5, 1, 9, len(stream) - 13, 0, 7, 11, 1, 0, 1, 0x23])
        header = encoded + b"\x03\x01\x01\x05" + stream[:5] + b"\x0c\x00\x00\x00"
    return listings.SEVEN_ZIP + struct.pack("<BBLQQL", 0, 4, 0, len(body), len(header), 0) + body + header


def cabinet(*names: str) -> bytes:
    head = struct.pack("<4sLLLLLBBHHHHH", b"MSCF", 0, 0, 0, 36, 0, 3, 1, 0, len(names), 0, 0, 0)
    return head + b"".join(struct.pack("<LLHHHH", 5, 0, 0, 0, 0, 32) + name.encode() + b"\x00" for name in names)


def iso(*names: str) -> bytes:
    def record(name: bytes, sector: int, size: int, flags: int) -> bytes:
        body = struct.pack("<BL", 0, sector) + struct.pack(">L", sector) + struct.pack("<L", size)
        body += struct.pack(">L", size) + b"\x00" * 7 + bytes([flags, 0, 0, 1, 0, 0, 1, len(name)]) + name
        padded = body.ljust(len(body) | 1, b"\x00")  # a record's length, with the byte that says it, is even
        return bytes([len(padded) + 1]) + padded

    def volume(kind: int, root: int, escape: bytes) -> bytes:
        head = bytes([kind]) + b"CD001\x01" + b"\x00" * 81 + escape.ljust(32, b"\x00")
        return (head.ljust(156, b"\x00") + record(b"\x00", root, 2_048, 2)).ljust(2_048, b"\x00")

    def folder(own: int, encoding: str) -> bytes:
        entries = [record(b"\x00", own, 2_048, 2), record(b"\x01", own, 2_048, 2)]
        entries += [record(f"{name};1".encode(encoding), 30, 5, 0) for name in names]
        return b"".join(entries).ljust(2_048, b"\x00")

    descriptors = volume(1, 19, b"") + volume(2, 20, b"%/E") + bytes([255]) + b"CD001" + b"\x00" * 2_042
    return b"\x00" * 32_768 + descriptors + folder(19, "ascii") + folder(20, "utf-16-be")


SEEN = [
    ("program", zip_of({"readme.txt": "x", "setup.exe": DOS})),
    ("program", zip_of({"photo.jpg": DOS})),
    ("program", tar_of({"a/b/run.scr": DOS}, "w:gz")),
    ("program", tar_of({"notes.txt": DOS}, "w:xz")),
    ("program", tar_of({"setup.exe": b""}, "w:bz2")),
    ("program", tar_of({"setup.exe": b""})),
    ("program", gzip.compress(DOS, mtime=0)),
    ("program", zip_of({"a.zip": zip_of({"b.tar.gz": tar_of({"c.exe": DOS}, "w:gz")})})),
    ("program", b"stub" * 9 + zip_of({"setup.exe": DOS})),
    ("program", rar4("setup.exe")),
    ("program", rar5("setup.exe")),
    ("program", seven_zip("setup.exe")),
    ("program", seven_zip("setup.exe", packed=True)),
    ("program", cabinet("readme.txt", "setup.exe")),
    ("program", zip_of({"image.iso": iso("readme.txt", "setup.exe")})),
    ("shortcut", iso("Documents.lnk")),
    ("shortcut", zip_of({"scan": LNK})),
    ("shortcut", zip_of({"photos/": "", **{f"photos/{n}.jpg": "x" for n in range(9)}, "open.lnk": LNK})),
    ("script", zip_of({"invoice.js": "x"})),
    ("script", rar5("invoice.vbs")),
    ("script", zip_of({"a.zip": zip_of({"invoice.wsf": "x"})})),
    ("disk_image", zip_of({"invoice.img": "x"})),
    ("double_extension", zip_of({"scan.pdf.exe": DOS})),
    ("double_extension", rar4("scan.jpg.scr")),
    ("direction_override", zip_of({"scan\u202efdp.exe": DOS})),
    ("traversal", zip_of({"../../.bashrc": "x"})),
    ("traversal", zip_of({"a\\..\\..\\x.txt": "x"})),
    ("traversal", tar_of({"/etc/cron.d/x": b"x"})),
    ("traversal", zip_of({"C:\\Users\\x.txt": "x"})),
    ("page_only", zip_of({"statement.html": "<html>"})),
    ("page_only", zip_of({"a/": "", "a/invoice.svg": "<svg/>"})),
    ("page_only", rar5("voice.htm")),
    ("encrypted", zip_of({"a.pdf": "x"}, locked=True)),
    ("encrypted", rar4("a.pdf", flags=4)),
    ("encrypted", rar5("a.pdf", locked=True)),
    ("encrypted", listings.RAR4 + struct.pack("<HBHHHL", 0, 0x73, 0x80, 13, 0, 0)),
    ("encrypted", listings.RAR5 + b"\x00\x00\x00\x00\x03\x04\x00\x00"),
    ("encrypted", seven_zip("a.pdf", coder=b"\x06\xf1\x07\x01")),
    ("document_macros", zip_of({"report.docm": ooxml({"word/vbaProject.bin": vba_project("Sub AutoOpen()")})})),
    ("document_auto_exec", tar_of({"x.docm": ooxml({"word/vbaProject.bin": vba_project("Sub AutoOpen()")})}, "w:gz")),
]  # fmt: skip


@pytest.mark.parametrize(("word", "content"), SEEN)
def test_seen(word: str, content: bytes) -> None:
    assert word in archive.read("file.zip", content).seen


@pytest.mark.parametrize(
    "content",
    [
        zip_of({f"photo{n}.jpg": b"\xff\xd8\xff" + b"x" * 50 for n in range(5)}),
        zip_of({"src/a.js": "x", "src/b.bat": "x", "src/c.ps1": "x", "readme.md": "x"}),
        zip_of({"site/index.html": "x", "site/a.css": "x", "site/b.png": "x"}),
        zip_of({"notes..txt": "x", "a/...hidden": "x", "v1.2..3/readme": "x"}),
        zip_of({"report.docx": ooxml({"word/document.xml": "<w:t>x</w:t>"})}),
        tar_of({"paper/main.tex": b"x", "paper/fig.pdf": b"%PDF-1.4"}, "w:gz"),
        gzip.compress(b"2024-01-01 a log line\n" * 1_000, mtime=0),
        zip_of({"zeros.csv": b"0,0,0,0\n" * 100_000}),
        zip_of({"a.zip": zip_of({"b.zip": zip_of({"c.txt": "x"})})}),
        rar5("minutes.docx"),
        iso("README.TXT", "song.mp3"),
        zip_of({}),
    ],
)
def test_honest_archives(content: bytes) -> None:
    assert set(archive.read("file.zip", content).seen) == set()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (zip_of({"a.zip": zip_of({"b.txt": "x"})}), ("a.zip", "b.txt")),
        (rar4("folder\\plan.doc"), ("folder/plan.doc",)),
        (rar5("plän.doc"), ("plän.doc",)),
        (seven_zip("plan.doc"), ("plan.doc",)),
        (seven_zip("plan.doc", packed=True), ("plan.doc",)),
        (cabinet("a.txt", "b.txt"), ("a.txt", "b.txt")),
        (iso("A Long Name.txt"), ("A Long Name.txt",)),
        (gzip.compress(b"x", mtime=0), ("file",)),
    ],
)
def test_members_are_named(content: bytes, names: tuple[str, ...]) -> None:
    assert archive.read("file.zip", content).members == names


ZEROS = bytes(40 << 20)


def nested(levels: int, width: int, bottom: bytes) -> bytes:
    content = zip_of({"0.dll": bottom})
    for _ in range(levels):
        content = zip_of({f"{number}.zip": content for number in range(width)})
    return content


BOMBS: dict[str, Callable[[], bytes]] = {
    "zip": lambda: zip_of({"zeros": ZEROS}),
    "gzip": lambda: gzip.compress(ZEROS, mtime=0),
    "bzip2": lambda: bz2.compress(ZEROS),
    "xz": lambda: lzma.compress(ZEROS, preset=0),
    "tar": lambda: tar_of({"zeros": ZEROS}, "w:gz"),
    "zip in zip": lambda: zip_of({"a.zip": zip_of({"zeros": ZEROS})}),
    "entries": lambda: zip_of({f"{n}.txt": b"" for n in range(archive.BOMB_ENTRIES + 2)}, method=zipfile.ZIP_STORED),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "BOMB_BYTES", 32 << 20)
    monkeypatch.setattr(archive, "BOMB_ENTRIES", 5_500)
    assert "bomb" in archive.read("file", BOMBS[kind]()).seen


def test_archives_within_archives_are_opened_to_a_bound() -> None:
    assert "deep" in archive.read("42.zip", nested(6, 8, ZEROS[: 1 << 20])).seen
    assert "deep" in archive.read("wide.zip", nested(1, archive.MAX_ARCHIVES + 5, b"x")).seen


def test_what_is_unpacked_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that lies about sizes, and many entries that share one packed stream."""
    monkeypatch.setattr(archive, "MAX_STREAM_BYTES", 1 << 20)
    taken = 0
    honest = archive.unpack

    def counted(content: bytes, entry: archive.ZipEntry, most: int) -> bytes:
        nonlocal taken
        plain = honest(content, entry, most)
        taken += len(plain)
        return plain

    monkeypatch.setattr(archive, "unpack", counted)
    inner = zip_of({"zeros.txt": ZEROS[: 2 << 20]}, method=zipfile.ZIP_STORED)
    content = bytearray(zip_of({f"{number}.zip": inner for number in range(20)}))
    position = content.index(b"PK\x01\x02")
    content[position + 24 : position + 28] = struct.pack("<L", 10)
    archive.read("file.zip", bytes(content))
    assert taken <= 21 * (1 << 20) + archive.MAX_OPENED * archive.HEAD_BYTES


def test_broken_archives_never_raise() -> None:
    for _, content in SEEN:
        for cut in range(1, 10):
            position = len(content) * cut // 10
            archive.read("file.zip", content[:position])
            archive.read("file.zip", content[:position] + b"\xff\xff\xff" + content[position + 3 :])


def test_a_stream_that_needs_much_memory_is_left_alone() -> None:
    wide = lzma.compress(b"x", lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 << 20}])
    assert archive.read("a.xz", wide).members == ("a",)


def linked(url: str) -> bytes:
    return ooxml({"word/document.xml": f'<w:instrText>HYPERLINK "{url}"</w:instrText>'})


def test_documents_beyond_the_bound_are_told() -> None:
    many = {f"{number}.docx": linked("https://x.example") for number in range(archive.MAX_DOCUMENTS + 5)}
    assert archive.read("a.zip", zip_of(many)).seen["documents_unread"] == "5 of 35 documents in it were not read"
    few = {f"{number}.docx": linked("https://x.example") for number in range(archive.MAX_DOCUMENTS)}
    assert "documents_unread" not in archive.read("a.zip", zip_of(few)).seen


@pytest.mark.parametrize("decoy", [("pdf", b"%PDF-1.7"), ("docx", ooxml({"word/document.xml": "words" * 9_000}))])
def test_many_documents_keep_none_out_of_sight(decoy: tuple[str, bytes]) -> None:
    extension, content = decoy
    decoys = {f"{number}.{extension}": content + b" " * 5_000 for number in range(60)}
    inner = zip_of({"plan.docx": linked("https://x.example/plan")})
    for members in ({**decoys, "inner.zip": inner}, {"inner.zip": inner, **decoys}):
        found = archive.read("a.zip", zip_of(members, method=zipfile.ZIP_STORED))
        assert [one.url for one in found.targets] == ["https://x.example/plan"]
        assert "documents_unread" in found.seen


def test_no_document_is_begun_when_half_of_the_time_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen of the archive would be lost with the process that reads it."""
    left = iter([2.0, 1.5, 0.9])
    monkeypatch.setattr(archive, "getitimer", lambda _which: (next(left), 0.0))
    found = archive.read(
        "a.zip", zip_of({"a.docx": linked("https://x.example"), "b.docx": linked("https://y.example")})
    )
    assert found.seen["documents_unread"] == "1 of 2 documents in it were not read"
    assert len(found.targets) == 1
