"""Family attachments, over what was read of the insides: archives, documents, messages and invitations within."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import pytest
from threat_files import DOS, zip_of
from threat_mail import NOTHING, OWN, PROVEN, SERVER, mail

from mailmill.message_parser import Attachment, ParsedMessage
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.engine import scan
from mailmill.processing.threat.evidence.inside import Inside, Target
from mailmill.processing.threat.evidence.stated_password import stated_password
from mailmill.processing.threat.families.attachments import DETECTORS
from mailmill.processing.threat.families.attachments.calendars import properties

BYTES = "application/octet-stream"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600


def read_as(seen: Mapping[str, str] | None = None, *targets: Target):  # type: ignore[no-untyped-def]
    """A reader that sees these words in every file."""

    def read(attachments: Sequence[Attachment]) -> list[Inside]:
        return [Inside(seen or {}, (), targets) for _ in attachments]

    return read


def found(message: ParsedMessage, seen: Mapping[str, str] | None = None, *targets: Target) -> set[str]:
    prepared = prepare(message, own_address=OWN, authserv_id=SERVER, read_insides=read_as(seen, *targets))
    return {one.id.partition(".")[2] for detector in DETECTORS for one in detector(prepared)}


def with_file(name: str, content: bytes, content_type: str = BYTES, text: str = "") -> ParsedMessage:
    return mail(text=text, attachments=((name, content_type, content),))


@pytest.mark.parametrize(
    ("finding_id", "name", "content", "seen"),
    [
        ("archive_with_program", "a.rar", b"Rar!\x1a\x07\x00", {"program": "setup.exe"}),
        ("archive_with_program", "a.zip", zip_of({"b.zip": "x"}), {"script": "run.js (in b.zip)"}),
        ("archive_with_program", "a.iso", b"", {"shortcut": "Documents.lnk"}),
        ("double_extension", "a.7z", b"7z\xbc\xaf\x27\x1c", {"double_extension": "scan.pdf.exe"}),
        ("double_extension", "a.zip", zip_of({"scan.pdf.exe": "x"}), None),
        ("direction_override", "a.zip", zip_of({"scan\u202efdp.exe": "x"}), None),
        ("archive_with_page", "a.zip", zip_of({"invoice.html": "x"}), None),
        ("archive_with_page", "a.zip", zip_of({"a/voice.svg": "x"}), None),
        ("archive_with_page", "a.rar", b"Rar!\x1a\x07\x00", {"page_only": "invoice.htm"}),
        ("archive_bomb", "a.zip", b"PK\x05\x06", {"bomb": "unpacks to 600 MB"}),
        ("archive_bomb", "a.gz", b"\x1f\x8b", {"bomb": "unpacks to 600 MB"}),
        ("archive_bomb", "a", b"BZh", {"bomb": "unpacks to 600 MB", "deep": "x"}),
        ("archive_deep", "a.zip", b"PK\x05\x06", {"deep": "4 deep"}),
        ("archive_deep", "a.tgz", b"\x1f\x8b", {"deep": "4 deep"}),
        ("archive_deep", "a.tar", b"", {"deep": "more than 50"}),
        ("archive_traversal", "a.zip", zip_of({"../../x": "x"}), None),
        ("archive_traversal", "a.zip", zip_of({"/etc/passwd": "x"}), None),
        ("archive_traversal", "a.tar", b"", {"link_out": "a leads to /etc/passwd"}),
        ("encrypted_archive", "a.zip", zip_of({"a.pdf": "x"}, locked=True), None),
        ("encrypted_archive", "a.rar", b"Rar!\x1a\x07\x00", {"encrypted": "a.pdf"}),
        ("encrypted_archive", "a.7z", b"7z\xbc\xaf\x27\x1c", {"encrypted": "the names too"}),
        ("encrypted_archive", "a.zip", zip_of({"a.pdf": "x"}), {"document_encrypted": "a.pdf: opens with a password"}),
        ("encrypted_document", "a.xlsx", OLE, {"encrypted": "the whole document"}),
        ("encrypted_document", "a.ppt", OLE, {"encrypted": "the whole presentation"}),
        ("encrypted_document", "a.doc", OLE, {"encrypted": "the whole document"}),
        ("macros", "a.xls", OLE, {"macros": "with their source"}),
        ("macros", "a.zip", zip_of({"a.docm": "x"}), {"document_macros": "a.docm"}),
        ("macros", "a.odt", b"PK", {"macros": "Basic/Standard/x.xml"}),
        ("macros_start_programs", "a.doc", OLE, {"macros": "", "auto_exec": "autoopen", "macro_calls": "shell"}),
        ("macros_start_programs", "a.docm", b"PK", {"auto_exec": "autoopen", "macro_calls": "shell"}),
        ("macros_start_programs", "a.xlsm", b"PK", {"xlm_macros": "", "auto_exec": "Auto_Open", "macro_calls": "x"}),
        ("macros_start_by_themselves", "a.doc", OLE, {"macros": "", "auto_exec": "autoopen"}),
        ("macros_start_by_themselves", "a.docm", b"PK", {"auto_exec": "document_open"}),
        ("macros_start_by_themselves", "a.xls", OLE, {"xlm_macros": "Macro1", "auto_exec": "Auto_Open"}),
        ("macros_call_programs", "a.doc", OLE, {"macros": "", "macro_calls": "shell"}),
        ("macros_call_programs", "a.xlsm", b"PK", {"macro_calls": "xmlhttp"}),
        ("macros_call_programs", "a.pptm", b"PK", {"macro_calls": "powershell"}),
        ("macro_source_removed", "a.doc", OLE, {"macros": "", "source_removed": "x"}),
        ("macro_source_removed", "a.xlsm", b"PK", {"source_removed": "x"}),
        ("macro_source_removed", "a.docm", b"PK", {"source_removed": "x"}),
        ("old_macros", "a.xls", OLE, {"xlm_macros": "Macro1"}),
        ("old_macros", "a.xlsb", b"PK", {"xlm_macros": "Macro1"}),
        ("old_macros", "a.slk", b"ID;P", {"xlm_macros": "a command"}),
        ("asks_to_enable", "a.docm", b"PK", {"asks_to_enable": "enable content"}),
        ("asks_to_enable", "a.doc", OLE, {"macros": "", "asks_to_enable": "enable editing"}),
        ("asks_to_enable", "a.xls", OLE, {"xlm_macros": "", "asks_to_enable": "enable content"}),
        ("dde", "a.docx", b"PK", {"dde": "cmd /c calc"}),
        ("dde", "a.csv", b"a", {"dde": "=cmd|x"}),
        ("dde", "a.rtf", b"{\\rtf", {"dde": "cmd"}),
        ("remote_template", "a.docx", b"PK", {"remote_template": "https://x.example/t.dotm"}),
        ("remote_template", "a.rtf", b"{\\rtf", {"remote_template": "https://x.example/t.dotm"}),
        (
            "remote_template",
            "a.zip",
            zip_of({"a.docx": "x"}),
            {"document_remote_template": "a.docx: https://x.example"},
        ),
        ("outside_object", "a.docx", b"PK", {"outside_object": "mhtml:http://x.example"}),
        ("outside_object", "a.rtf", b"{\\rtf", {"outside_object": "http://x.example"}),
        ("outside_object", "a.iqy", b"WEB", {"outside_object": "http://x.example"}),
        ("embedded_program", "a.docx", b"PK", {"embedded_program": "invoice.exe"}),
        ("embedded_program", "a.doc", OLE, {"embedded_program": "invoice.js"}),
        ("embedded_program", "a.rtf", b"{\\rtf", {"embedded_program": "invoice.exe"}),
        ("object_updates", "a.rtf", b"{\\rtf", {"object_updates": "x"}),
        ("object_updates", "a.doc", b"{\\rtf", {"object_updates": "x"}),
        ("object_updates", "a", b"{\\rtf", {"object_updates": "x"}),
        ("equation_editor", "a.doc", OLE, {"equation_editor": "x"}),
        ("equation_editor", "a.rtf", b"{\\rtf", {"equation_editor": "x"}),
        ("equation_editor", "a.xls", OLE, {"equation_editor": "x"}),
        ("not_read", "a.zip", b"PK", {"too_slow": "took longer than 5 s"}),
        ("not_read", "a.zip", b"PK", {"unreadable": "the reader gave up"}),
        ("not_read", "a.zip", b"PK", {"too_large": "80 MB"}),
        ("not_read", "a.zip", b"PK", {"documents_unread": "5 of 35 documents in it were not read"}),
    ],
)
def test_found(finding_id: str, name: str, content: bytes, seen: Mapping[str, str] | None) -> None:
    assert finding_id in found(with_file(name, content), seen)


@pytest.mark.parametrize(
    ("finding_id", "content"),
    [
        ("web_shortcut", b"[InternetShortcut]\r\nURL=https://x.example/page\r\n"),
        ("web_shortcut", b"[DEFAULT]\nBASEURL=http://x.example/\n[InternetShortcut]\nURL=http://x.example/\n"),
        ("web_shortcut", b"\xef\xbb\xbf[InternetShortcut]\nURL=https://x.example\nIconIndex=0\n"),
        ("shortcut", b"[InternetShortcut]\r\nURL=file://x.example/share/a.exe\r\n"),
        ("shortcut", b"[InternetShortcut]\nURL=https://x.example\nIconFile=\\\\x.example\\share\\a.ico\n"),
        ("shortcut", b"[InternetShortcut]\nURL=https://x.example\nWorkingDirectory=\\\\x.example@80\\a\n"),
        ("shortcut", b""),
    ],
)
def test_shortcuts_to_pages_and_to_programs(finding_id: str, content: bytes) -> None:
    assert found(with_file("Read me.url", content)) == {finding_id}


@pytest.mark.parametrize(
    ("twin_of", "name", "content", "seen"),
    [
        ("macros old_macros", "report.docx", b"PK\x03\x04", {"hidden_sheet": "x"}),
        ("embedded_program", "report.docx", b"PK\x03\x04", {"embedded_file": "notes.txt"}),
        ("embedded_program object_updates", "report.rtf", b"{\\rtf", {"embedded_object": "9 bytes"}),
        (
            "asks_to_enable",
            "report.docx",
            b"PK\x03\x04",
            {"asks_to_enable": "enable content"},
        ),  # a manual, without macros
        ("macros_start_by_themselves macros_start_programs", "report.xlsx", b"PK\x03\x04", {"auto_exec": "Auto_Open"}),
        ("not_read", "report.zip", zip_of({"a.pdf": "x", "b.docx": "x"}), {"not_whole": "x"}),
        ("archive_with_page", "site.zip", zip_of({"index.html": "x", "a.css": "x", "logo.svg": "x"}), None),
        ("archive_with_program", "sources.zip", zip_of({"a.js": "x", "b.js": "x", "c.sh": "x", "d.bat": "x"}), None),
        ("archive_with_page", "book.epub", zip_of({"index.html": "x"}), None),
        ("encrypted_document", "statement.pdf", b"%PDF-1.7", None),
        ("not_read", "photo.png", b"\x89PNG\r\n\x1a\n" + b"\x00" * 30, {"unreadable": "the reader gave up"}),
        ("not_read", "report.docx", b"PK\x03\x04", {"hidden_sheet": "x", "page_within": "x"}),
    ],
)
def test_benign_twin(twin_of: str, name: str, content: bytes, seen: Mapping[str, str] | None) -> None:
    assert found(with_file(name, content), seen) == set(), twin_of


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("The password is x7Kp.", "x7Kp"),
        ("Password: 2024", "2024"),
        ("archive password for the file: Qw!12", "Qw!12"),
        ("Das Passwort lautet: Sommer24", "Sommer24"),
        ("Mot de passe : 4455", "4455"),
        ("contraseña: abc1", "abc1"),
        ("pwd=1234", "1234"),
        ("The password is your date of birth.", ""),
        ("The password will be sent separately.", ""),
        ("The password is not in this message", ""),
        ("Reset your password: https://x.example/reset", ""),
        ("a password is required", ""),
        ("Passwords are changed every year", ""),
    ],
)
def test_a_password_that_the_text_says(text: str, password: str) -> None:
    assert stated_password("", text) == password
    assert stated_password(text, "") == password


@pytest.mark.parametrize("finding_id", ["locked_with_password"])
@pytest.mark.parametrize(
    "text", ["Open the attached invoice. Password: 7788", "Das Kennwort lautet 7788", "archive password is 7788"]
)
def test_a_lock_with_its_key(finding_id: str, text: str) -> None:
    message = with_file("payslip.zip", zip_of({"payslip.pdf": "x"}, locked=True), text=text)
    assert finding_id in found(message)
    verdict = scan(message, own_address=OWN, authserv_id=SERVER).verdict.value  # of a proven sender
    assert verdict in ("clean", "suspicious")


@pytest.mark.parametrize("twin_of", ["locked_with_password"])
@pytest.mark.parametrize(
    "text",
    [
        "Your payslip. The password is your date of birth.",
        "Your payslip for May is attached.",
        "You will get the password by telephone.",
    ],
)
def test_a_lock_without_its_key(twin_of: str, text: str) -> None:
    message = with_file("payslip.zip", zip_of({"payslip.pdf": "x"}, locked=True), text=text)
    assert twin_of not in found(message)
    assert scan(message, own_address=OWN, authserv_id=SERVER).verdict.value == "clean"


PLAIN = "<html><body><h1>Minutes</h1><p>" + "We met on Monday and spoke of the harvest. " * 20 + "</p>{}</body></html>"
LONG = base64.b64encode(b"MZ" * 2_000).decode()


@pytest.mark.parametrize(
    ("finding_id", "page"),
    [
        ("html_password", '<form action="https://x.example"><input name="p" type="password"></form>'),
        ("html_password", "<INPUT class=x TYPE=PASSWORD>"),
        ("html_password", '<div><input autocomplete="off" type = "password"></div>'),
        ("html_form", '<form action="https://x.example"><input name="card"></form>'),
        ("html_form", "<form><input type=email></form>"),
        ("html_form", '<form method=post><input type="text" name="q"></form>'),
        ("html_smuggling", f"<script>var b=new Blob([atob('{LONG}')]);a.href=URL.createObjectURL(b)</script>"),
        ("html_smuggling", "<script>x=new Uint8Array(9);navigator.msSaveOrOpenBlob(x)</script>"),
        ("html_smuggling", f"<a id=a download='scan.zip' href='data:x;base64,{LONG}'><script>a.click()</script>"),
        ("html_hidden_code", "<script>document.write(unescape('%3c'))</script>"),
        ("html_hidden_code", "<script>eval(atob('YWxlcnQoMSk='))</script>"),
        ("html_hidden_code", "<script>x='" + "\\x41" * 100 + "'</script>"),
        ("html_leaves", "<script>window.location.href='https://x.example'</script>"),
        ("html_leaves", '<meta http-equiv="refresh" content="0; url=https://x.example">'),
        ("html_leaves", "<body onload=\"location.replace('https://x.example')\">"),
        ("html_leaves", "<div id=a></div><script src='https://x.example/a.js'></script>"),
        ("html_leaves", '<iframe style="width:100%" src="//x.example/"></iframe>'),
        ("html_for_one", f"<script>var u='{OWN}'</script>"),
        ("html_for_one", f"<script>var u=atob('{base64.b64encode(OWN.encode()).decode()}')</script>"),
        ("html_for_one", f"<script>u='{base64.b64encode(b'x=' + OWN.encode()).decode()}'</script>"),
    ],
)  # fmt: skip
def test_what_an_attached_page_does(finding_id: str, page: str) -> None:
    assert finding_id in found(with_file("a.html", page.encode(), "text/html"))
    assert finding_id in found(with_file("a.html", b"\xff\xfe" + page.encode("utf-16-le"), "text/html"))


@pytest.mark.parametrize(
    ("twin_of", "page"),
    [
        ("html_leaves", PLAIN.format("")),
        ("html_hidden_code", PLAIN.format("<script>console.log('read')</script>")),
        (
            "html_hidden_code",
            PLAIN.format("<script>document.getElementById('x').textContent = decodeURIComponent('a%20b')</script>"),
        ),
        ("html_leaves", PLAIN.format("<a href='https://meadow-farm.com'>our pages</a>")),
        ("html_leaves", PLAIN.format("<script>if (window.location == 'x') { print() }</script>")),
        ("html_leaves", PLAIN.format("<script src='https://cdn.example/chart.js'></script>")),
        ("html_form html_password", PLAIN.format("<form><input type=hidden name=a><input type=submit></form>")),
        ("html_for_one", PLAIN.format(f"<p>for {OWN}</p>")),
        ("html_smuggling", PLAIN.format(f"<img src='data:image/png;base64,{LONG}'>")),
        (
            "html_smuggling",
            PLAIN.format(f"<a download='minutes.pdf' href='data:application/pdf;base64,{LONG}'>save</a>"),
        ),
        (
            "html_smuggling",
            PLAIN.format("<script>a.download='table.csv'; a.href=URL.createObjectURL(new Blob([table]))</script>"),
        ),
        (
            "html_smuggling",
            PLAIN.format(f"<script>logo.src='data:image/png;base64,' + '{LONG}'; draw(atob(x))</script>"),
        ),
        ("html_form html_password", PLAIN.format("<input type=search id=filter placeholder='password'>")),
        (
            "html_form html_password",
            PLAIN.format("<p>Use the form to set a password.</p><form><input type=button></form>"),
        ),
        ("html_hidden_code", PLAIN.format("<script>document.write(new Date().getFullYear())</script>")),
        ("html_hidden_code", PLAIN.format("<script>x = '\\x41\\x42\\x43' + unescape('%41%42')</script>")),
        ("html_leaves", "<html><body><p>See you on Monday.</p></body></html>"),
        ("html_leaves", "<html><body><p>See you on Monday.</p><script>print()</script></body></html>"),
        ("html_leaves", PLAIN.format("<iframe src='https://maps.example/harbour'></iframe>")),
        ("html_for_one", PLAIN.format("<script>var u='lena@meadow-farm.com'</script>")),
        ("html_for_one", PLAIN.format("<script>var u='dana', host='harbour.example.org'</script>")),
    ],
)
def test_an_honest_page_is_a_page_and_no_more(twin_of: str, page: str) -> None:
    assert found(with_file("a.html", page.encode(), "text/html")) == {"html"}, twin_of


@pytest.mark.parametrize(
    ("finding_id", "picture"),
    [
        ("svg_link", "<svg><a xlink:href='https://x.example/login'><text>Open</text></a></svg>"),
        ("svg_link", '<svg><a target="_blank" href="https://x.example"><rect/></a></svg>'),
        ("svg_link", "<svg><A HREF='http://x.example/a'/></svg>"),
        ("active_svg", "<svg><foreignObject><body xmlns='x'/></foreignObject></svg>"),
    ],
)
def test_what_an_attached_svg_does(finding_id: str, picture: str) -> None:
    assert found(with_file("a.svg", picture.encode(), "image/svg+xml")) == {finding_id}


@pytest.mark.parametrize("twin_of", ["active_svg svg_link"])
@pytest.mark.parametrize(
    "picture",
    [
        "<svg><path d='M0 0'/></svg>",
        "<svg><defs><linearGradient xlink:href='#a'/></defs></svg>",
        "<svg xmlns:a='https://x.example/ns'><metadata>https://x.example</metadata></svg>",
        "<svg><style>.on{fill:red}</style><text class='onset'>click on the script</text></svg>",
        "<svg><a href='#part'><rect/></a></svg>",
    ],
)
def test_an_honest_svg_is_a_drawing_and_no_more(twin_of: str, picture: str) -> None:
    assert found(with_file("a.svg", picture.encode(), "image/svg+xml")) == {"svg"}, twin_of


NOTEBOOK = b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d" + b"\x00" * 64
FILE_IN_IT = b"\xe7\x16\xe3\xbd\x65\x26\x11\x45\xa4\xc4\x8d\x4d\x0b\x7a\x9e\xac" + b"\x00" * 20


@pytest.mark.parametrize(
    ("finding_id", "content"),
    [
        ("notebook_program", NOTEBOOK + FILE_IN_IT + DOS),
        ("notebook_program", NOTEBOOK + FILE_IN_IT + b"\x89PNG" + FILE_IN_IT + b"<script language=vbs>"),
        ("notebook_program", NOTEBOOK + FILE_IN_IT + b"@echo off\r\nstart x"),
    ],
)
def test_notebooks(finding_id: str, content: bytes) -> None:
    assert found(with_file("a.one", content)) == {finding_id}


def test_old_macros_are_no_vba() -> None:
    assert found(with_file("a.xls", OLE), {"xlm_macros": "Macro1"}) == {"old_macros"}


@pytest.mark.parametrize("twin_of", ["notebook_program"])
@pytest.mark.parametrize(
    "content",
    [NOTEBOOK, NOTEBOOK + FILE_IN_IT + b"\x89PNG\r\n", NOTEBOOK + b"<script> is how pages run programs"],
)
def test_an_honest_notebook_is_a_notebook_and_no_more(twin_of: str, content: bytes) -> None:
    assert found(with_file("a.one", content)) == {"notebook"}, twin_of


INNER = "From: {sender}\r\nSubject: x\r\nMIME-Version: 1.0\r\n{rest}"
LINK = "\r\nsee https://x.example/login\r\n"


def inner(sender: str = "Pay <pay@elsewhere.example>", rest: str = LINK) -> bytes:
    return INNER.format(sender=sender, rest=rest).encode()


def inner_with(name: str, content: bytes, kind: str = BYTES) -> bytes:
    head = 'Content-Type: multipart/mixed; boundary="q"\r\n\r\n--q\r\n'
    part = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n"
    part += (
        f'Content-Disposition: attachment; filename="{name}"\r\n\r\n{base64.b64encode(content).decode()}\r\n--q--\r\n'
    )
    return inner(rest=head + part)


PASSWORD_PAGE = b"<form><input type=password></form>"


@pytest.mark.parametrize(
    ("finding_id", "name", "kind", "content"),
    [
        ("nested_program", "", "message/rfc822", inner_with("scan.exe", DOS)),
        ("nested_program", "note.eml", BYTES, inner_with("scan.js", b"x")),
        ("nested_program", "note.eml", BYTES, inner_with("a.eml", inner_with("scan.lnk", b"x"))),
        ("nested_page", "", "message/rfc822", inner_with("a.html", PASSWORD_PAGE, "text/html")),
        ("nested_page", "a.eml", BYTES, inner_with("a.htm", b"<script>eval(atob('eA=='))</script>")),
        ("nested_page", "a.eml", BYTES, inner_with("a.eml", inner_with("a.html", PASSWORD_PAGE))),
        ("nested_message", "", "message/rfc822", inner()),
        ("nested_message", "a.eml", BYTES, inner()),
        ("nested_message", "invoice.eml", "message/rfc822", inner(rest=LINK.replace("see", "Click <a>"))),
    ],
)
def test_messages_within(finding_id: str, name: str, kind: str, content: bytes) -> None:
    message = mail(text="See attached.", attachments=((name, kind, content),))
    assert finding_id in found(message)


REPORT = ("Return-Path: <>",)


@pytest.mark.parametrize(
    ("twin_of", "text", "headers", "kind", "content"),
    [
        ("nested_message", "Your message could not be delivered.", REPORT, "message/rfc822", inner()),
        ("nested_message", "What do you think of this? " * 20, (), "message/rfc822", inner()),
        (
            "nested_message",
            "Our own, from last week.",
            (),
            "message/rfc822",
            inner(sender="Lena <lena@meadow-farm.com>"),
        ),
        ("nested_message", "My answer to you.", (), "message/rfc822", inner(sender=OWN)),
        ("nested_message", "Minutes.", (), "message/rfc822", inner(rest="\r\nno links here\r\n")),
        ("nested_program nested_page", "Minutes.", REPORT, "message/rfc822", inner_with("minutes.pdf", b"%PDF-1.4")),
        ("nested_program", "Minutes.", REPORT, "message/rfc822", inner_with("notes.one", NOTEBOOK)),
        (
            "nested_program",
            "Minutes.",
            REPORT,
            "message/rfc822",
            inner_with("Pier.url", b"[InternetShortcut]\nURL=https://x.example\n"),
        ),
        (
            "nested_page",
            "Minutes.",
            REPORT,
            "message/rfc822",
            inner_with("survey.html", b"<form><input name=q></form>"),
        ),
        ("nested_page", "Minutes.", REPORT, "message/rfc822", inner_with("notes.txt", PASSWORD_PAGE, "text/plain")),
        ("nested_message nested_program", "Minutes.", (), "text/plain", inner_with("scan.exe", DOS)),
        ("nested_message", "Minutes.", (), "text/plain", inner()),
    ],
)
def test_honest_messages_within(twin_of: str, text: str, headers: tuple[str, ...], kind: str, content: bytes) -> None:
    assert found(mail(text=text, headers=headers, attachments=(("", kind, content),))) == set(), twin_of


def test_only_an_empty_return_path_makes_a_report() -> None:
    headers = ("Return-Path: <lena@meadow-farm.com>",)
    message = mail(text="See attached.", headers=headers, attachments=(("", "message/rfc822", inner()),))
    assert found(message) == {"nested_message"}


def test_an_outlook_message_with_links_is_a_cover_too() -> None:
    target = Target("message_link", "https://x.example")
    message = mail(text="See attached.", attachments=(("a.msg", BYTES, OLE),))
    assert "nested_message" in found(message, {"nested_message": "x"}, target)
    assert found(message, {"nested_message": "x"}) == set()


def calendar(*lines: str, method: str = "REQUEST", organizer: str = "lena@meadow-farm.com") -> bytes:
    head = ("BEGIN:VCALENDAR", f"METHOD:{method}", "BEGIN:VEVENT", f"ORGANIZER;CN=Lena:mailto:{organizer}")
    return "\r\n".join((*head, *lines, "END:VEVENT", "END:VCALENDAR", "")).encode()


@pytest.mark.parametrize(
    ("finding_id", "content"),
    [
        ("invitation_of_another", calendar(organizer="boss@elsewhere.example")),
        ("invitation_of_another", calendar("SUMMARY:Pay", organizer="x@gmail.com")),
        ("invitation_of_another", calendar(organizer="lena@meadow-farm.com.elsewhere.example")),
        ("invitation_callback", calendar("DESCRIPTION:You were charged 399 USD. Call +1 (888) 555-0100")),
        ("invitation_callback", calendar("SUMMARY:Invoice 88", "DESCRIPTION:to cancel the order: 1-888-555-0100")),
        ("invitation_callback", calendar("LOCATION:Support team\\, 0800 555 0100", "DESCRIPTION:refund")),
        ("invitation_link", calendar("DESCRIPTION:Join: https://meet-x.web.app/login")),
        ("invitation_link", calendar("URL:https://bit.ly/abc")),
        ("invitation_link", calendar("DESCRIPTION:Your pass", " word expires: https://x.example/a")),
    ],
)
def test_invitations(finding_id: str, content: bytes) -> None:
    assert finding_id in found(with_file("invite.ics", content, "text/calendar"))


@pytest.mark.parametrize(
    ("twin_of", "content"),
    [
        ("invitation_link", calendar("SUMMARY:Harvest", "DESCRIPTION:Join https://meadow-farm.com/room/1")),
        (
            "invitation_callback invitation_link",
            calendar("DESCRIPTION:Join https://us02web.zoom.us/j/123456789?pwd=abc\\nDial in: +1 646 555 0100"),
        ),
        (
            "invitation_link",
            calendar("DESCRIPTION:Microsoft Teams meeting https://teams.microsoft.com/l/meetup-join/19%3ameeting"),
        ),
        ("invitation_callback", calendar("DESCRIPTION:Invoices\\, bring yours. Order 2024-05-12 12:00")),
        ("invitation_of_another", calendar(method="REPLY", organizer="boss@elsewhere.example")),
        ("invitation_of_another", calendar(method="PUBLISH", organizer="boss@elsewhere.example")),
        ("invitation_of_another", calendar(organizer=OWN)),
        ("invitation_of_another", b"not a calendar"),
        ("invitation_callback", calendar("DESCRIPTION:We talk about the refund of May. Dial 123.")),
        ("invitation_of_another", calendar(organizer="unknown")),
        ("invitation_of_another", b"METHOD:REQUEST\r\nORGANIZER:mailto:boss@elsewhere.example\r\n"),
        ("invitation_link", calendar("DESCRIPTION:Please confirm: https://rooms.example.org/1")),
    ],
)
def test_honest_invitations(twin_of: str, content: bytes) -> None:
    assert found(with_file("invite.ics", content, "text/calendar")) == set(), twin_of


@pytest.mark.parametrize(
    ("headers", "results"),
    [
        ((), PROVEN + "; dkim=pass header.d=rooms.example"),
        (("List-Id: Tides <tides.lists.example.net>",), "spf=pass smtp.mailfrom=lists.example.net; dkim=none"),
    ],
    ids=["a service that was proven too", "a list"],
)
def test_others_may_send_an_invitation(headers: tuple[str, ...], results: str) -> None:
    content = calendar(organizer="boss@rooms.example")
    message = mail(headers=headers, results=results, attachments=(("invite.ics", "text/calendar", content),))
    assert found(message) == set()


def test_a_file_that_is_no_calendar_is_not_read_as_one() -> None:
    assert found(with_file("plan.txt", calendar(organizer="boss@elsewhere.example"), "text/plain")) == set()


def test_a_page_is_made_for_nobody_where_the_account_has_no_address() -> None:
    message = with_file("a.html", b"<html><p>See you.</p><script>print()</script></html>", "text/html")
    prepared = prepare(message)
    assert {one.id for detector in DETECTORS for one in detector(prepared)} == {"attachments.html"}


def test_folded_lines_and_several_events_are_read() -> None:
    fields = properties(calendar("DESCRIPTION;LANGUAGE=en:one\\, t", " wo", "DESCRIPTION:three"))
    assert fields["DESCRIPTION"] == "one, two\nthree"


def test_a_macro_workbook_of_a_proven_colleague_is_at_most_suspicious() -> None:
    seen = {"macros": "", "auto_exec": "workbook_open", "macro_calls": "xmlhttp"}
    message = with_file("plan.xlsm", b"PK\x03\x04")
    assert scan(message, own_address=OWN, authserv_id=SERVER).verdict.value == "clean"
    worst = scan(message, own_address=OWN, authserv_id=SERVER, read_insides=read_as(seen))
    assert worst.verdict.value == "suspicious"
    stranger = mail("Pay <pay@x.example>", results=NOTHING, attachments=(("plan.xlsm", BYTES, b"PK\x03\x04"),))
    assert scan(stranger, own_address=OWN, authserv_id=SERVER).verdict.value != "clean"


TRAPS = {
    "<script": "<script " * 200_000,
    "base64 just too short": ("A" * 2_999 + " ") * 600,
    "brackets just too short": ("[" * 299 + " ") * 6_000,
    "numbers just too short": ("11," * 199 + ";") * 3_000,
    "input": "<input " * 250_000,
    "meta": "<meta http-equiv=refresh " * 80_000,
    "location": "location" * 200_000,
    "eval": "eval(" * 300_000,
    "iframe": "<iframe src=" * 130_000,
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.timeout(20)
def test_traps_for_patterns(trap: str) -> None:
    text = "<script>" + TRAPS[trap]
    found(with_file("a.html", text.encode(), "text/html"))
    found(with_file("a.svg", text.replace("<script", "<a").encode(), "image/svg+xml"))
    found(with_file("a.ics", b"BEGIN:VCALENDAR\n" + text.encode(), "text/calendar"))
    stated_password("", text)


def test_a_thousand_events_are_one_text() -> None:
    content = b"BEGIN:VCALENDAR\r\n" + b"".join(b"SUMMARY:Pier %d\r\n" % number for number in range(50_000))
    summary = properties(content)["SUMMARY"]
    assert summary.startswith("Pier 0\nPier 1\n")
    assert len(summary) < 20_000


def test_a_first_file_does_not_hide_the_next() -> None:
    """All files of a kind share a bound, but the beginning of each is read."""
    padding = b" " * (2 << 20)
    invitation = calendar("DESCRIPTION:You were charged 399 USD. Call +1 (888) 555-0100")
    for name, kind, first, second, finding_id in (
        ("a.ics", "text/calendar", b"BEGIN:VCALENDAR\n" + padding, invitation, "invitation_callback"),
        ("a.html", "text/html", b"<html>" + padding, b"<html><input type=password>", "html_password"),
        ("a.svg", "image/svg+xml", b"<svg>" + padding, b"<svg><script>x()</script></svg>", "active_svg"),
    ):
        assert finding_id in found(mail(attachments=((name, kind, first), (name, kind, second)))), name
