"""Family attachments: names, first bytes, and what a ZIP lists."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile

import pytest
from threat_mail import found, mail, verdict

from mailmill.processing.threat.evidence.attached_files import MAX_ARCHIVE_NAMES, kind_of, zip_directory

DOS = b"MZ\x90\x00\x03\x00" + b"\x00" * 100
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600
OLE_WITH_MACROS = OLE + "_VBA_PROJECT_CUR".encode("utf-16-le") + b"\x00" * 50
PDF = b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n"
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 30
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="5"/></svg>'
ACTIVE_SVG = SVG.replace(b"<circle", b"<script>location=1</script><circle")
ISO = b"\x00" * 32_769 + b"CD001" + b"\x00" * 100
LNK = b"L\x00\x00\x00\x01\x14\x02\x00" + b"\x00" * 60


def archive(*names: str, locked: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name in names:
            target.writestr(name, b"x" * 20)
    content = bytearray(buffer.getvalue())
    if locked:  # the flag is all that is looked at; the standard library cannot write encrypted entries
        content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


DOCX = archive("[Content_Types].xml", "word/document.xml")
DOCX_WITH_MACROS = archive("[Content_Types].xml", "word/document.xml", "word/vbaProject.bin")


@pytest.mark.parametrize(
    ("finding_id", "name", "content_type", "content"),
    [
        ("executable", "setup.exe", "application/octet-stream", DOS),
        ("executable", "holiday.jpg", "image/jpeg", DOS),
        ("executable", "viewer.msi", "application/octet-stream", OLE),
        ("script", "update.js", "text/javascript", b"WScript.Echo(1)"),
        ("script", "invoice.hta", "application/hta", b"<script>"),
        ("script", "order.wsf", "application/octet-stream", b"<job>"),
        ("shortcut", "Documents.lnk", "application/octet-stream", b""),
        ("shortcut", "scan.dat", "application/octet-stream", LNK),
        ("double_extension", "invoice.pdf.exe", "application/octet-stream", DOS),
        ("double_extension", "minutes.doc.js", "text/javascript", b"x"),
        ("page_as_document", "scan.pdf.html", "text/html", b"<html>"),
        ("page_as_document", "invoice.xlsx.htm", "text/html", b"<html>"),
        ("page_as_document", "photo.jpg.shtml", "text/html", b"<html>"),
        ("double_extension", "scan.jpg              .scr", "application/octet-stream", DOS),
        ("direction_override", "invoice\u202efdp.exe", "application/octet-stream", DOS),
        ("direction_override", "photo\u202egpj.scr", "image/jpeg", DOS),
        ("direction_override", "song\u202e3pm.bat", "audio/mpeg", b"echo"),
        ("html", "statement.html", "text/html", b"<html></html>"),
        ("html", "letter", "text/html", b"<html></html>"),
        ("html", "voice.shtml", "application/octet-stream", b"<html></html>"),
        ("svg", "logo.svg", "image/svg+xml", SVG),
        ("svg", "", "image/svg+xml", SVG),
        ("svg", "drawing.SVGZ", "application/octet-stream", b"\x1f\x8b"),
        ("active_svg", "statement.svg", "image/svg+xml", ACTIVE_SVG),
        ("active_svg", "x.svg", "image/svg+xml", SVG.replace(b"<circle", b'<circle onload="x()"')),
        ("macros", "report.docm", "application/octet-stream", DOCX),
        ("macros", "report.docx", "application/octet-stream", DOCX_WITH_MACROS),
        ("macros", "report.xls", "application/vnd.ms-excel", OLE_WITH_MACROS),
        ("disk_image", "invoice.iso", "application/octet-stream", b"\x00" * 100),
        ("disk_image", "invoice.dat", "application/octet-stream", ISO),
        ("disk_image", "order.img", "application/octet-stream", b"\x00" * 100),
        ("archive_with_program", "invoice.zip", "application/zip", archive("invoice.exe")),
        ("archive_with_program", "scan.zip", "application/zip", archive("scan.pdf.js")),
        ("archive_with_program", "x.zip", "application/zip", b"prefix" + archive("disk.iso")),
        ("encrypted_archive", "contract.zip", "application/zip", archive("contract.pdf", locked=True)),
        ("encrypted_archive", "c.dat", "application/octet-stream", archive("a.xls", "b.xls", locked=True)),
        ("type_differs", "statement.pdf", "application/pdf", b"<html><body>log in</body></html>"),
        ("type_differs", "picture.png", "image/png", archive("a.txt")),
        ("type_differs", "list.docx", "application/octet-stream", b"%PDF-1.7\n"),
        ("notebook", "offer.one", "application/octet-stream", b""),
        ("notebook", "Offer.onepkg", "application/octet-stream", b"MSCF"),
        ("notebook", "offer", "application/octet-stream", b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d" + b"\x00" * 20),
    ],
)
def test_found(finding_id: str, name: str, content_type: str, content: bytes) -> None:
    assert f"attachments.{finding_id}" in found(mail(attachments=((name, content_type, content),)), "attachments")


@pytest.mark.parametrize(
    ("twin_of", "name", "content_type", "content"),
    [
        ("type_differs executable", "statement.pdf", "application/pdf", PDF),
        ("double_extension", "report.2024.05.pdf", "application/pdf", PDF),
        ("macros type_differs", "statement.doc", "application/msword", OLE),
        ("macros type_differs", "report.docx", "application/octet-stream", DOCX),
        ("type_differs", "photo.png", "image/png", PNG),
        (
            "executable",
            "MZ.txt",
            "text/plain",
            b"MZ is the mark of a DOS program, and so begins this sentence about such marks, all text.",
        ),
        ("html page_as_document", "notes.txt", "text/plain", b"<html> is how a page begins"),
        ("script", "fix.patch", "text/x-patch", b"diff --git a/x.js b/x.js\n"),
        ("executable", "example.com", "text/plain", b"a zone file"),
        (
            "archive_with_program script",
            "sources.zip",
            "application/zip",
            archive("a.js", "b.js", "run.bat", "readme.md", "c.py"),
        ),
        ("archive_with_program encrypted_archive", "photos.zip", "application/zip", archive("a.jpg", "b.jpg")),
        (
            "archive_with_program encrypted_archive disk_image",
            "backup.tar.gz",
            "application/gzip",
            b"\x1f\x8b\x08" + b"\x00" * 30,
        ),
        ("encrypted_archive", "broken.zip", "application/zip", b"PK\x03\x04\x14" + b"\x00" * 35),
        ("script", "invite.ics", "text/calendar", b"BEGIN:VCALENDAR"),
        ("double_extension page_as_document", "resume.pdf.pdf", "application/pdf", PDF),
        (
            "direction_override",
            "\u200ffile-\u05d0.pdf",
            "application/pdf",
            PDF,
        ),  # a mark that right-to-left names carry by right,
        ("double_extension", "Minutes of May        .pdf", "application/octet-stream", PDF),
        ("executable", "brochure.com", "application/octet-stream", PDF),
        ("executable", "photos.zip", "application/octet-stream", DOS + archive("a.jpg", "b.jpg")),
        ("direction_override", "שלום.pdf", "application/octet-stream", PDF),
        ("direction_override", "plan\u200e \u2066א\u2069.pdf", "application/octet-stream", PDF),
        ("page_as_document", "report.html.pdf", "application/octet-stream", PDF),
        ("html", "report.txt", "text/html", b"See you on Monday."),
        ("html", "style.css", "application/octet-stream", b"html {}"),
        ("svg active_svg", "chart.png", "image/png", PNG),
        ("svg active_svg", "svg.txt", "text/plain", b"<svg onload=x> is how a drawing begins"),
        ("svg active_svg", "logo.svg.pdf", "application/octet-stream", PDF),
        ("macros", "report.xlsx", "application/octet-stream", DOCX),
        ("disk_image", "iso-9001.pdf", "application/octet-stream", PDF),
        ("disk_image", "sizes.txt", "text/plain", b"CD001 " * 6_000),
        ("notebook notebook_program", "minutes.docx", "application/octet-stream", DOCX),
        ("notebook notebook_program", "one.pdf", "application/octet-stream", PDF),
        ("notebook notebook_program", "onenote.txt", "text/plain", b"<script> in .one"),
        ("shortcut web_shortcut", "bookmarks.txt", "text/plain", b"[InternetShortcut]\nURL=https://tide-tables.net/\n"),
        ("shortcut web_shortcut", "urls.csv", "text/csv", b"url,=\nurl=https://tide-tables.net/\n"),
        ("shortcut web_shortcut", "L.txt", "text/plain", LNK[:4]),
    ],
)
def test_benign_twin(twin_of: str, name: str, content_type: str, content: bytes) -> None:
    assert found(mail(attachments=((name, content_type, content),)), "attachments") == set(), twin_of


def test_a_program_in_disguise_is_malicious_by_itself() -> None:
    assert verdict(mail(attachments=(("invoice.pdf.exe", "application/octet-stream", DOS),))) == "malicious"
    assert verdict(mail(attachments=(("invoice.pdf", "application/pdf", PDF),))) == "clean"


def test_the_directory_of_a_zip_is_bounded_and_never_fails() -> None:
    whole = archive(*(f"{number}.txt" for number in range(MAX_ARCHIVE_NAMES + 5)))
    names, locked = zip_directory(whole)
    assert len(names) == MAX_ARCHIVE_NAMES
    assert not locked
    small = archive("a.txt", "ünï.txt")
    assert zip_directory(small)[0] == ("a.txt", "ünï.txt")
    for length in range(len(small)):
        zip_directory(small[:length])
    for position in range(len(small)):
        zip_directory(small[:position] + b"\xff" + small[position + 1 :])


PACKED = (gzip.compress(b"x", mtime=0), bz2.compress(b"x"), lzma.compress(b"x"))
KINDS = (DOS, OLE, DOCX, PDF, PNG, ISO, LNK, b"\n<!DOCTYPE html>", b"", b"hello", *PACKED)


def test_kinds_by_first_bytes() -> None:
    kinds = [kind_of(content) for content in KINDS]
    assert kinds == [
        "program",
        "ole",
        "zip",
        "pdf",
        "picture",
        "disk image",
        "shortcut",
        "page",
        "",
        "",
        *["archive"] * 3,
    ]
