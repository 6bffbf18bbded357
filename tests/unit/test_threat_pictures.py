"""Family pictures: where QR codes and PDFs lead, and what PDFs do."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pytest
from picture_files import as_file, locked_pdf, modules, pdf, qr
from threat_mail import NOTHING, OWN, PROVEN, SERVER, mail

from mailmill.message_parser import Attachment, ParsedMessage
from mailmill.processing.threat.context import ThreatContext, prepare
from mailmill.processing.threat.engine import DETECTORS, scan
from mailmill.processing.threat.evidence import readers
from mailmill.processing.threat.evidence.drawn_pictures import MAX_PICTURES, pictures_in
from mailmill.processing.threat.evidence.inside import Inside
from mailmill.processing.threat.evidence.painted_codes import painted_in_text

ELSEWHERE = "https://tide-tables.net/go?x=1"
LETTER = "Dear Dana, the plan for the harbour is ready and the boats are painted. " * 6
SIGN_IN = "Your password will expire today. Scan the QR code with your phone to keep it."


def _read(attachments: Sequence[Attachment]) -> list[Inside]:
    return [readers.read(each.filename, each.content) for each in attachments]


def _prepared(message: ParsedMessage) -> ThreatContext:
    return prepare(message, own_address=OWN, authserv_id=SERVER, read_insides=_read)


def _found(message: ParsedMessage, family: str = "pictures") -> set[str]:
    context = _prepared(message)
    ids = {one.id for detector in DETECTORS for one in detector(context)}
    return {one.removeprefix(f"{family}.") for one in ids if one.startswith(f"{family}.")}


def _verdict(message: ParsedMessage) -> str:
    return scan(message, own_address=OWN, authserv_id=SERVER, read_insides=_read).verdict.value


def _with_code(payload: str, text: str = LETTER, *, results: str = NOTHING, html: str = "") -> ParsedMessage:
    return mail(text=text, html=html, results=results, attachments=(("code.png", "image/png", as_file(qr(payload))),))


def _with_pdf(content: bytes, text: str = LETTER, *, results: str = NOTHING) -> ParsedMessage:
    return mail(text=text, results=results, attachments=(("Statement.pdf", "application/pdf", content),))


def _by_list(name: str, kind: str, content: bytes) -> ParsedMessage:
    results = "spf=pass smtp.mailfrom=lists.example.net; dkim=none"
    headers = ("List-Id: Tides <tides.lists.example.net>",)
    return mail(text="See the file.", results=results, headers=headers, attachments=((name, kind, content),))


def _data_uri(payload: str) -> str:
    return "data:image/png;base64," + base64.b64encode(as_file(qr(payload))).decode()


def _as_table(payload: str) -> str:
    cells = {True: '<td bgcolor="#000000"></td>', False: '<td style="background:#fff;width:4px"> </td>'}
    rows = ("<tr>" + "".join(cells[dark] for dark in row) + "</tr>" for row in modules(payload))
    return f"<table cellspacing=0>{''.join(rows)}</table>"


def _as_blocks(payload: str, light: str = " ") -> str:
    return "\n".join("".join("██" if dark else light * 2 for dark in row) for row in modules(payload))


def _as_half_blocks(payload: str) -> str:
    grid = modules(payload)
    signs = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): "\u00a0"}
    pairs = zip(grid[::2], [*grid[1::2], [False] * len(grid)], strict=False)
    return "\n".join("".join(signs[pair] for pair in zip(*rows, strict=False)) for rows in pairs)


@pytest.mark.parametrize(
    ("finding_id", "message"),
    [
        ("qr_elsewhere", _with_code(ELSEWHERE)),
        ("qr_elsewhere", _with_code("tide-tables.net/go")),
        ("qr_elsewhere", _with_pdf(pdf(text=LETTER, picture=qr(ELSEWHERE)))),
        ("qr_elsewhere", mail(results=NOTHING, html=f'<p>{LETTER}<img src="{_data_uri(ELSEWHERE)}">')),
        ("qr_elsewhere", mail(results=NOTHING, html=f"<p style=\"background:url('{_data_uri(ELSEWHERE)}')\">{LETTER}")),
        ("qr_sign_in", _with_code(ELSEWHERE, SIGN_IN, results=PROVEN)),
        ("qr_sign_in", _with_code(ELSEWHERE, "Bitte bestätigen Sie Ihr Konto: Code mit dem Smartphone öffnen")),
        ("qr_sign_in", _with_pdf(pdf(text=SIGN_IN, picture=qr(ELSEWHERE)), "See the file.", results=PROVEN)),
        ("qr_alone", _with_code(ELSEWHERE, "Hello")),
        ("qr_alone", _with_code(ELSEWHERE, "Hello", results=PROVEN)),
        ("qr_alone", _with_pdf(pdf(picture=qr(ELSEWHERE)), "Your document")),
        ("qr_recipient", _with_code(f"https://tide-tables.net/?e={OWN}", results=PROVEN)),
        ("qr_recipient", _with_code(f"https://tide-tables.net/#{OWN.replace('@', '%40')}")),
        ("qr_recipient", _with_code(f"https://tide-tables.net/{base64.b64encode(OWN.encode()).decode()}")),
        ("qr_painted", mail(html=f"<p>{LETTER}</p>{_as_table(ELSEWHERE)}")),
        ("qr_painted", mail(html=f"<p>{LETTER}</p>" + _as_table("https://b.example").replace("td", "span"))),
        ("qr_painted", mail(text=f"{LETTER}\n{_as_blocks(ELSEWHERE)}\n")),
        ("qr_painted", mail(html=f"<pre>{_as_half_blocks(ELSEWHERE)}</pre>")),
        ("qr_painted", mail(html=f'<i style="box-shadow:{",".join(["4px 4px #000"] * 160)}"></i>')),
        ("pdf_only_link", _with_pdf(pdf(links=[ELSEWHERE]))),
        ("pdf_only_link", _with_pdf(pdf(text="Open the document", links=[ELSEWHERE]), results=PROVEN)),
        ("pdf_only_link", _with_pdf(pdf(links=[ELSEWHERE, ELSEWHERE + "2"], pages=2))),
        ("pdf_to_anywhere", _with_pdf(pdf(links=["https://bit.ly/3abc"]), results=PROVEN)),
        ("pdf_to_anywhere", _with_pdf(pdf(links=["https://login-page.web.app/x"]), results=PROVEN)),
        ("pdf_to_anywhere", _with_pdf(pdf(text="Open", links=["http://203.0.113.9/"]), results=PROVEN)),
        ("pdf_launch", _with_pdf(pdf(text=LETTER, objects=[b"<< /S /Launch /F (cmd.exe) >>"]), results=PROVEN)),
        ("pdf_launch", _with_pdf(pdf(objects=[b"<< /S /Launc#68 /F (x) >>"]))),
        ("pdf_launch", _with_pdf(pdf(packed=[b"<< /S /Launch /F (x) >>"]))),
        ("pdf_runs_script", _with_pdf(pdf(catalog="/OpenAction << /S /JavaScript /JS (x) >>"))),
        ("pdf_runs_script", _with_pdf(pdf(catalog="/OpenAction 50 0 R", objects=[b"<< /S /JavaScript /JS (x) >>"]))),
        ("pdf_runs_script", _with_pdf(pdf(catalog="/OpenAction << /S /#4aavaScript /JS (x) >>"))),
        ("pdf_script", _with_pdf(pdf(objects=[b"<< /S /JavaScript /JS (x) >>"]))),
        ("pdf_script", _with_pdf(pdf(packed=[b"<< /S /JavaScript /JS (x) >>"]))),
        ("pdf_script", _with_pdf(pdf(objects=[b"<< /AA << /K << /S /JavaScript /JS (x) >> >> >>"]))),
        ("pdf_password_given", _with_pdf(locked_pdf(), "Password: harbour17")),
        ("pdf_password_given", _with_pdf(locked_pdf(), "The password for the file is 4711-A")),
        ("pdf_password_given", _with_pdf(locked_pdf(), "Das Passwort lautet Hafen17")),
        ("pdf_locked", _with_pdf(locked_pdf())),
        ("pdf_locked", _with_pdf(locked_pdf(), "The password is your date of birth")),
        ("pdf_locked", _with_pdf(locked_pdf(), "Open it with your date of birth", results=PROVEN)),
    ],
)
def test_found(finding_id: str, message: ParsedMessage) -> None:
    assert finding_id in _found(message)


@pytest.mark.parametrize("finding_id", ["pdf_program"])
@pytest.mark.parametrize("name", ["tool.exe", "Rechnung.pdf.js", "x.LNK ", "macro.docm", "page.html"])
def test_a_program_within_a_pdf(finding_id: str, name: str) -> None:
    assert finding_id in _found(_with_pdf(_holding(name)))


@pytest.mark.parametrize("twin_of", ["pdf_program"])
@pytest.mark.parametrize("name", ["factur-x.xml", "photo.jpg", "terms.pdf", "table.csv"])
def test_other_files_within_a_pdf(twin_of: str, name: str) -> None:
    assert _found(_with_pdf(_holding(name))) == set(), twin_of


def _holding(name: str) -> bytes:
    filespec = f"<< /Type /Filespec /F ({name}) /UF ({name}) /EF << /F 51 0 R >> >>".encode()
    stream = b"<< /Type /EmbeddedFile /Length 3 >>\nstream\nabc\nendstream"
    return pdf(
        text=LETTER, catalog=f"/Names << /EmbeddedFiles << /Names [({name}) 50 0 R] >> >>", objects=[filespec, stream]
    )


PAYMENT = "BCD\n002\n1\nSCT\n\nMeadow Farm\nDE71110220330123456789\nEUR12.50\n\n\nInvoice 17"
SWISS = "SPC\r\n0200\r\n1\r\nCH4431999123000889012\r\nS\r\nMeadow Farm"
INVOICE = "Invoice 17\nApples 12.50 EUR\n" + "Payable within fourteen days without any deduction\n" * 8


@pytest.mark.parametrize(
    ("twin_of", "message"),
    [
        (
            "qr_elsewhere qr_sign_in qr_alone",
            _with_code("https://www.meadow-farm.com/ticket/1", "Your ticket", results=PROVEN),
        ),
        (
            "qr_elsewhere qr_alone",
            _with_code("https://www.meadow-farm.com/ticket/1", "Your ticket"),
        ),  # a spoof gains nothing by leading there
        (
            "qr_elsewhere qr_alone qr_sign_in",
            _with_code("https://intranet.example.org/x", "Scan this", results=PROVEN),
        ),  # the account's own domain
        (
            "qr_alone qr_elsewhere",
            _with_code(
                "M1OTT/LENA EABC123 FRAJFKAF 0006 246Y012A0001",
                "Your boarding pass, scan it at the gate",
                results=PROVEN,
            ),
        ),
        (
            "qr_sign_in qr_alone",
            _with_code(
                "otpauth://totp/Farm:dana?secret=JBSWY3DP",
                "Scan the code with your authenticator app, then your password",
            ),
        ),
        ("qr_elsewhere qr_alone", _with_code(PAYMENT, "Please pay by scanning the code")),
        ("qr_elsewhere qr_alone", _with_code(SWISS, "Please pay by scanning the code")),
        (
            "qr_sign_in qr_elsewhere",
            _with_code("https://apps.apple.com/app/id1", "Get the app: scan the code, then sign in with your password"),
        ),
        (
            "qr_sign_in qr_alone",
            _with_code("WIFI:T:WPA;S:guests;P:secret;;", "The password of the guests' network: scan the code"),
        ),
        ("qr_elsewhere", _with_code("tel:+4912345", "Call us")),
        ("qr_elsewhere", _with_code(ELSEWHERE, results=PROVEN)),  # a partner's page, in a letter, from who is proven
        ("qr_elsewhere qr_sign_in", _with_code(ELSEWHERE, LETTER + "Scan the code for a discount", results=PROVEN)),
        ("qr_sign_in", _with_code("https://aka.ms/authapp", LETTER + "Set up MFA: scan the code", results=PROVEN)),
        ("pdf_only_link", _with_pdf(pdf(text=INVOICE, links=["https://www.meadow-farm.com/pay"]), results=PROVEN)),
        ("pdf_only_link", _with_pdf(pdf(text=INVOICE, links=["https://pay.example/17"]), results=PROVEN)),
        (
            "pdf_only_link pdf_to_anywhere",
            _with_pdf(pdf(text="Ticket", links=["https://meadow-farm.com/t"]), results=PROVEN),
        ),
        ("pdf_only_link", _with_pdf(pdf(text=INVOICE, picture=qr(PAYMENT)), results=PROVEN)),
        ("pdf_launch pdf_runs_script", _with_pdf(pdf(text="A scan", catalog="/OpenAction [100 0 R /Fit]"))),
        (
            "pdf_only_link pdf_to_anywhere",
            _with_pdf(pdf(text="See https://tide-tables.net/x")),
        ),  # a written URL is no button
        (
            "qr_painted",
            mail(html="<table>" + "<tr><td bgcolor=#000></td><td bgcolor=#fff></td></tr>" * 32 + "</table>"),
        ),  # a chessboard
        (
            "qr_painted",
            mail(html='<table bgcolor="#fff">' + "<tr><td>&nbsp;</td><td></td><td>x</td></tr>" * 200 + "</table>"),
        ),
        (
            "qr_painted",
            mail(html="<p>" + f'<a style="box-shadow:0 1px 2px rgba(0,0,0,.2),0 0 0 1px #eee">{LETTER}</a>' * 50),
        ),
        ("qr_painted", mail(text="Done: ██████████░░░░░ 66 %\n" + "\n".join("█" * size for size in range(3, 40)))),
        ("qr_painted", mail(text="\n".join(["Mon ████ 4", "Tue ██ 2", "Wed ███ 3"] * 10))),
        ("qr_painted", mail(text="\n".join(["+----+----+", "| a  | b  |"] * 30))),
        (
            "qr_elsewhere",
            mail(html='<img src="data:image/png;base64,AAAA"><img src="data:image/png;base64,*"><img src="data:,x">'),
        ),
        ("qr_recipient", _with_code("https://tide-tables.net/?e=pia@elsewhere.example", results=PROVEN)),
        ("qr_recipient", _with_code("https://tide-tables.net/dana/harbour", results=PROVEN)),
        (
            "qr_recipient",
            _with_code(
                f"https://tide-tables.net/{base64.b64encode(b'pia@elsewhere.example').decode()}", results=PROVEN
            ),
        ),
        ("qr_elsewhere qr_alone", _by_list("code.png", "image/png", as_file(qr(ELSEWHERE)))),
        ("pdf_only_link pdf_to_anywhere", _by_list("a.pdf", "application/pdf", pdf(links=["https://bit.ly/3abc"]))),
        ("pdf_to_anywhere", _with_pdf(pdf(text=INVOICE, links=["https://bit.ly/3abc"]), results=PROVEN)),
        (
            "pdf_to_anywhere pdf_only_link",
            _with_pdf(pdf(text="Flyer", links=[f"https://shop-{n}.com" for n in "abcd"]), results=PROVEN),
        ),
        ("pdf_launch pdf_script", _with_pdf(pdf(text="The launch of the boat, and a course in JavaScript"))),
        (
            "pdf_launch pdf_runs_script pdf_script",
            _with_pdf(pdf(text=LETTER, catalog="/PageLayout /SinglePage /PageMode /UseNone")),
        ),
        ("pdf_runs_script pdf_script", _with_pdf(pdf(text=LETTER, objects=[b"<< /Title (Java) /Subject (Script) >>"]))),
        (
            "pdf_password_given pdf_locked",
            _with_pdf(pdf(text=INVOICE), "The password for our portal is harbour17", results=PROVEN),
        ),
        ("pdf_locked", _with_pdf(pdf(text="The gate is locked; /Encrypt is a word"), results=PROVEN)),
        (
            "pdf_locked",
            _with_pdf(pdf(text=INVOICE, catalog="/MarkInfo << /Marked true >>"), "It is encrypted.", results=PROVEN),
        ),
        ("qr_sign_in", _with_code(ELSEWHERE, LETTER + "Your password was changed.", results=PROVEN)),
    ],
)
def test_benign_twin(twin_of: str, message: ParsedMessage) -> None:
    assert _found(message) == set(), twin_of


@pytest.mark.parametrize("twin_of", ["pdf_password_given"])
@pytest.mark.parametrize(
    "text", ["The password is your date of birth", "The password comes by telephone", "You know the password"]
)
def test_a_lock_without_its_key(twin_of: str, text: str) -> None:
    assert _found(_with_pdf(locked_pdf(), text, results=PROVEN)) == {"pdf_locked"}, twin_of


def test_a_code_is_judged_as_a_link() -> None:
    assert {"qr_recipient"} <= _found(_with_code(f"https://tide-tables.net/#{OWN}"))
    assert "shortener" in _found(_with_code("https://bit.ly/3abc"), "links")
    assert "ip_host" in _found(_with_code("http://203.0.113.9/x"), "links")
    assert "lookalike_link" in _found(_with_code("https://paypa1.com/x"), "domains")


def test_a_link_of_a_pdf_is_judged_as_a_link() -> None:
    assert "ip_host" in _found(_with_pdf(pdf(text=INVOICE, links=["http://203.0.113.9/x"])), "links")
    assert "lookalike_link" in _found(_with_pdf(pdf(links=["https://paypa1.com/x"])), "domains")


def test_files_add_links_with_their_elements() -> None:
    context = _prepared(
        _with_pdf(pdf(text="https://c.example/t", links=["https://b.example/"], picture=qr("https://a.example/")))
    )
    assert [(link.element, link.url.host) for link in context.links] == [
        ("qr", "a.example"),
        ("pdf", "b.example"),
        ("text", "c.example"),
    ]


def test_honest_mail_stays_clean_as_a_whole() -> None:
    assert (
        _verdict(
            _with_pdf(pdf(text=INVOICE, links=["https://meadow-farm.com/pay"], picture=qr(PAYMENT)), results=PROVEN)
        )
        == "clean"
    )
    assert _verdict(_with_pdf(locked_pdf(), "The password is your date of birth", results=PROVEN)) == "clean"
    assert _verdict(_with_pdf(pdf(text="Flyer", links=[ELSEWHERE]), results=PROVEN)) == "clean"


def test_scanned_sign_ins_are_suspicious_whoever_is_proven() -> None:
    assert _verdict(_with_code(ELSEWHERE, SIGN_IN, results=PROVEN)) == "suspicious"
    assert _verdict(_with_code(ELSEWHERE, SIGN_IN, results=NOTHING)) in ("suspicious", "malicious")


def test_rows_of_blocks_have_to_follow_one_another() -> None:
    code = _as_blocks(ELSEWHERE, "░")
    assert painted_in_text(code)
    assert painted_in_text("x", "Hello\n\n" + code.replace("\n", "\n\n"))
    assert not painted_in_text("\nand\n".join(code.split("\n")))
    assert not painted_in_text("")


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("data:image/png;base64,AAEC", b"\x00\x01\x02"),
        ("DATA:Image/PNG;Base64,AAEC", b"\x00\x01\x02"),
        ("data:image/gif;charset=x;base64,AA EC\n", b"\x00\x01\x02"),
        ("data:image/png;base64,AAE", b"\x00\x01"),  # without its padding
        ("data:image/png;base64,AAECA", b"\x00\x01\x02"),  # cut within a byte
        ("data:image/png;base64,AA%45C", b"\x00\x01\x02"),
        ("data:image/bmp,BM%00%01", b"BM\x00\x01"),
    ],
)
def test_pictures_in_the_html(source: str, content: bytes) -> None:
    [attachment] = pictures_in([source])
    assert (attachment.content, attachment.size_bytes, attachment.inline) == (content, len(content), True)
    assert attachment.content_type.startswith("image/")


@pytest.mark.parametrize(
    "source", ["", "data:image/png;base64,", "data:image/svg+xml,<svg/>", "data:text/html,x", "cid:1"]
)
def test_no_pictures_in_the_html(source: str) -> None:
    assert list(pictures_in([source])) == []


def test_pictures_in_the_html_are_capped() -> None:
    assert len(list(pictures_in(["data:image/png;base64,AAEC"] * 50))) == MAX_PICTURES
