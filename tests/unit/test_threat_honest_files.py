"""Honest files that nearly have what family attachments tells of, read as they are: by the readers, then judged."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence

import pytest
from threat_files import biff, ole_of, ooxml, tar_of, vba_module, vba_project, zip_of
from threat_mail import OWN, SERVER, mail

from mailmill.message_parser import Attachment
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.evidence import readers
from mailmill.processing.threat.evidence.inside import Inside
from mailmill.processing.threat.families.attachments import DETECTORS

SUM = "Function Sum(a, b)\r\nSum = a + b\r\nEnd Function\r\n"
COMMENTS = "' Shell (x)\r\n  REM powershell, AutoOpen\r\n" + SUM
A_DICTIONARY = 'Sub Count()\r\nSet d = CreateObject("Scripting.Dictionary")\r\nMsgBox d.Count\r\nEnd Sub\r\n'
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
NOTES = struct.pack("<LH", 9, 2) + b"notes.txt\x00C:\\notes.txt\x00hello"
STARTS = "macros_start_by_themselves macros_start_programs"


def workbook(macro: str) -> bytes:
    return ooxml({"xl/vbaProject.bin": vba_project(macro)})


def document(text: str, **parts: bytes | str) -> bytes:
    return ooxml({"word/document.xml": f"<w:p><w:r>{text}</w:r></w:p>", **parts})


def related(kind: str, target: str, *, outside: bool = True) -> str:
    mode = ' TargetMode="External"' if outside else ""
    return f'<Relationships><Relationship Id="r" Type="{RELATIONS}/{kind}" Target="{target}"{mode}/></Relationships>'


def with_relation(part: str, relation: str) -> bytes:
    return ooxml({"word/document.xml": "<w:t>Minutes of Monday</w:t>", f"word/_rels/{part}.rels": relation})


def field(instruction: str) -> str:
    return f'<w:instrText xml:space="preserve">{instruction}</w:instrText>'


def old_document(text: bytes) -> bytes:
    head = struct.pack("<HHHHHH", 0xA5EC, 0xC1, 0, 0, 0, 0)
    return ole_of({"WordDocument": head + b"\x00" * 500 + text})


def sheet(name: str, *, visibility: int = 0) -> tuple[int, bytes]:
    return (0x85, struct.pack("<LBBBB", 0, visibility, 0, len(name), 0) + name.encode())


OLD_WORKBOOK = ole_of({"Workbook": biff((0x809, b"\x00\x06\x05\x00"), sheet("Macro1"), sheet("x", visibility=1))})
LETTER_TEMPLATE = "file:///C:/Templates/Letter.dotx"


def found(name: str, content: bytes) -> set[str]:
    def read(attachments: Sequence[Attachment]) -> list[Inside]:
        return [readers.read(each.filename, each.content) for each in attachments]

    message = mail(attachments=((name, "application/octet-stream", content),))
    prepared = prepare(message, own_address=OWN, authserv_id=SERVER, read_insides=read)
    return {one.id.partition(".")[2] for detector in DETECTORS for one in detector(prepared)}


@pytest.mark.parametrize(
    ("twin_of", "name", "content"),
    [
        ("macros old_macros", "plan.xlsx", ooxml({"xl/workbook.xml": '<sheet name="Macro1" sheetId="1"/>'})),
        ("old_macros", "plan.xls", OLD_WORKBOOK),
        ("old_macros", "table.txt", b"ID;PWXL;N;E\r\nC;X1;Y1;K12\r\nC;X1;Y2;KSUM\r\n"),
        (STARTS, "plan.xlsx", ooxml({"xl/workbook.xml": '<definedName name="Opening">Sheet1!$A$1</definedName>'})),
        ("asks_to_enable", "manual.docx", document("<w:t>Please click Enable Content above</w:t>")),
        ("asks_to_enable", "manual.doc", old_document(b"Please click Enable Content above.")),
        ("dde", "minutes.docx", document(field("PAGE") + field("DATE \\@ dd"))),
        ("dde", "minutes.docx", document(field('DDEAUTO Excel.Sheet.8 "book.xls" "Sheet1!R1C1"'))),
        ("dde", "minutes.doc", old_document(b"DDE is a way to link tables. \x13 PAGE \x14 1 \x15")),
        ("dde", "sums.csv", b"name,sum\r\nAda,=SUM(A1:A3)\r\ncmd,12\r\n|,-1\r\n"),
        ("remote_template", "letter.docx", with_relation("settings.xml", related("attachedTemplate", LETTER_TEMPLATE))),
        (
            "remote_template",
            "letter.docx",
            with_relation("settings.xml", related("attachedTemplate", "http://x.example/", outside=False)),
        ),
        ("remote_template", "letter.rtf", b"{\\rtf1{\\*\\template C:\\\\Templates\\\\letter.dot} Hello}"),
        ("outside_object", "a.docx", with_relation("document.xml", related("hyperlink", "https://x.example/a"))),
        (
            "outside_object",
            "budget.xlsx",
            ooxml({"xl/_rels/externalLink1.xml.rels": related("externalLinkPath", "file:///S:/budget.xlsx")}),
        ),
        ("outside_object", "a.docx", with_relation("document.xml", related("oleObject", "a.bin", outside=False))),
        ("embedded_program", "a.docx", document("x", **{"word/embeddings/a.bin": ole_of({"\x01Ole10Native": NOTES})})),
        ("embedded_program", "a.xlsx", ooxml({"xl/embeddings/a.docx": document("<w:t>x</w:t>")})),
        ("embedded_program", "a.docx", document("<w:t>The file setup.exe starts it.</w:t>")),
        ("object_updates equation_editor", "a.rtf", b"{\\rtf1\\ansi objupdate, and Equation.3, are words.}"),
        ("object_updates", "a.rtf", b"{\\rtf1{\\object\\objemb{\\*\\objdata 0105000002000000}}}"),
        ("object_updates", "a.rtf", b"{\\rtf1{\\field{\\*\\fldinst PAGE}{\\fldrslt 1}}}"),
        ("equation_editor", "a.docx", document("<m:oMath><m:r><m:t>x = 1</m:t></m:r></m:oMath>")),
        ("equation_editor", "a.doc", old_document(b"Equation Native, Equation.3")),
        ("encrypted_document", "a.doc", old_document(b"EncryptedPackage, EncryptionInfo")),
        ("encrypted_document", "plan.xls", OLD_WORKBOOK),
        ("encrypted_document", "a.docx", document("<w:t>The file is encrypted.</w:t>")),
        ("archive_bomb", "zeros.zip", zip_of({"zeros.csv": b"0,0,0,0\n" * 100_000})),
        ("archive_bomb", "server.log.gz", gzip.compress(b"2024-01-01 a log line\n" * 5_000, mtime=0)),
        ("archive_bomb", "photos.zip", zip_of({f"photo{number}.jpg": b"\xff\xd8\xff" for number in range(200)})),
        ("archive_deep", "a.zip", zip_of({"b.zip": zip_of({"c.zip": zip_of({"d.txt": "x"})})})),
        ("archive_deep", "a.tgz", tar_of({"b.tar": tar_of({"c.txt": b"x"})}, "w:gz")),
        ("archive_deep", "a.zip", zip_of({"a/b/c/d/e/f/g/h/i/j.txt": "x"})),
        ("archive_traversal", "a.zip", zip_of({"notes..txt": "x", "a/...hidden": "x", "v1.2..3/readme": "x"})),
        ("archive_traversal", "a.zip", zip_of({"etc/passwd": "x", "C/Users/x.txt": "x"})),
        ("archive_traversal", "a.tar", tar_of({"./paper/main.tex": b"x", "./..rc": b"x"})),
        ("archive_with_page", "site.zip", zip_of({"index.html": "x", "a.css": "x"})),
        ("archive_with_program", "a.zip", zip_of({"exe-list.txt": "setup.exe", "a.js.md": "x"})),
        ("not_read", "a.zip", zip_of({})),
    ],
)
def test_benign_twin(twin_of: str, name: str, content: bytes) -> None:
    assert found(name, content) == set(), twin_of


@pytest.mark.parametrize(
    ("twin_of", "name", "content"),
    [
        (f"{STARTS} macros_call_programs macro_source_removed", "sums.xlsm", workbook(SUM)),
        (f"{STARTS} macros_call_programs old_macros", "sums.xlsm", workbook(COMMENTS)),
        (f"{STARTS} macros_call_programs", "count.xlsm", workbook(A_DICTIONARY)),
        ("macro_source_removed", "letter.doc", ole_of({"Macros/VBA/M": vba_module(SUM), "WordDocument": b""})),
        ("macro_source_removed", "count.xls", ole_of({"_VBA_PROJECT_CUR/VBA/M": vba_module(A_DICTIONARY)})),
        (
            "asks_to_enable",
            "sums.xlsm",
            ooxml({"xl/vbaProject.bin": vba_project(SUM), "word/document.xml": "<w:t>x</w:t>"}),
        ),
    ],
)
def test_honest_macros_are_macros_and_no_more(twin_of: str, name: str, content: bytes) -> None:
    assert found(name, content) == {"macros"}, twin_of
