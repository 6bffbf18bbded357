"""Readers of pictures and PDFs: QR codes, links, actions, words; whatever the bytes."""

from __future__ import annotations

import io
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import as_file, inverted, locked_pdf, on_photo, pdf, qr
from PIL import Image

from mailmill.processing.threat.evidence.inside import Target
from mailmill.processing.threat.evidence.readers import pdf as pdf_reader
from mailmill.processing.threat.evidence.readers import picture as picture_reader
from mailmill.processing.threat.evidence.readers import reader_for
from mailmill.processing.threat.evidence.readers.pdf_names import actions
from mailmill.processing.threat.evidence.readers.qr_codes import Code, read_payload

URL = "https://tide-tables.net/login?u=1"


def _on_nothing(paper: int, ink: int) -> Image.Image:
    """A code in one colour; where the paper was, the picture is transparent."""
    code = qr(URL)
    clear = Image.new("LA", code.size, (paper, 0))
    clear.paste((ink, 255), mask=inverted(code))
    return clear


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", as_file(qr(URL))),
        ("small.png", as_file(qr(URL, scale=1))),
        ("inverted.png", as_file(inverted(qr(URL)))),
        ("turned.png", as_file(qr(URL).rotate(90))),
        ("askew.png", as_file(qr(URL, scale=6).rotate(17, expand=True, fillcolor=255))),
        ("colours.png", as_file(Image.merge("RGB", (qr(URL), qr(URL), Image.new("L", qr(URL).size, 160))))),
        ("palette.png", as_file(qr(URL).convert("P"))),
        ("bits.png", as_file(qr(URL).convert("1"))),
        ("black-on-nothing.png", as_file(_on_nothing(255, 0))),
        ("white-on-nothing.png", as_file(_on_nothing(0, 255))),
        ("a.gif", as_file(qr(URL), "GIF")),
        ("moving.gif", as_file(qr(URL), "GIF", save_all=True, append_images=[Image.new("L", qr(URL).size, 9)])),
        ("a.jpg", as_file(qr(URL), "JPEG", quality=60)),
        ("poster.jpg", as_file(on_photo(qr(URL)), "JPEG")),
        ("large.jpg", as_file(on_photo(qr(URL, scale=14), (4_000, 3_000)), "JPEG")),
        ("cut.jpg", as_file(on_photo(qr(URL)), "JPEG")[:-2_000]),
        ("a.webp", as_file(qr(URL), "WEBP", lossless=True)),
        ("a.bmp", as_file(qr(URL), "BMP")),
    ],
)
def test_codes_in_pictures(name: str, content: bytes) -> None:
    assert reader_for(name, content) == "picture"
    inside = picture_reader.read(name, content)
    assert inside.targets == (Target("qr", URL, ""),)
    assert inside.seen["qr"] == "address"


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (300, 300), 255),
        Image.new("RGB", (1, 1)),
        Image.new("L", (4_000, 20)),
        Image.effect_noise((400, 300), 80),
    ],
)
def test_pictures_without_a_code(picture: Image.Image) -> None:
    inside = picture_reader.read("a.png", as_file(picture))
    assert (inside.targets, dict(inside.seen)) == ((), {})


def test_several_codes_on_one_picture() -> None:
    sheet = Image.new("L", (700, 400), 255)
    sheet.paste(qr("https://one.example/a"), (20, 100))
    sheet.paste(qr("https://two.example/b"), (400, 100))
    found = picture_reader.read("a.png", as_file(sheet)).targets
    assert {target.url for target in found} == {"https://one.example/a", "https://two.example/b"}


def test_a_bomb_is_named_and_not_decoded() -> None:
    bomb = _png_of(60_000, 60_000)
    assert picture_reader.read("a.png", bomb).seen == {"bomb": "60000 x 60000 pixels"}
    assert picture_reader.read("a.png", _png_of(6_000, 5_000)).seen == {"too_large": "6000 x 5000 pixels"}


def test_other_formats_are_not_opened() -> None:
    out = io.BytesIO()
    Image.new("L", (50, 50)).save(out, "TIFF")
    with pytest.raises(OSError, match="cannot identify"):
        picture_reader.read("a.png", out.getvalue())


def _png_of(width: int, height: int) -> bytes:
    """The head of a PNG of that size, and hardly any data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("https://a.example/x", Code("address", "https://a.example/x")),
        ("HTTPS://A.EXAMPLE/X", Code("address", "HTTPS://A.EXAMPLE/X")),
        ("  http://a.example  ", Code("address", "http://a.example")),
        ("a.example/x", Code("address", "http://a.example/x")),
        ("www.a.example", Code("address", "http://www.a.example")),
        ("Open https://a.example/x now", Code("address", "https://a.example/x")),
        ("MEBKM:TITLE:x;URL:https://a.example/;;", Code("address", "https://a.example/;;")),
        ("mailto:a@b.example", Code("address", "mailto:a@b.example")),
        ("tel:+4912345", Code("address", "tel:+4912345")),
        ("WIFI:T:WPA;S:guests;P:secret;;", Code("address", "WIFI:T:WPA;S:guests;P:secret;;")),
        ("otpauth://totp/Mill:dana?secret=JBSWY3DP", Code("authenticator", "")),
        ("BCD\n002\n1\nSCT\n\nMill\nDE71110220330123456789\nEUR5\n\n\nhttps://a.example", Code("payment", "")),
        ("SPC\r\n0200\r\n1\r\nCH4431999123000889012", Code("payment", "")),
        ("bitcoin:bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", Code("payment", "")),
        ("BEGIN:VCARD\nURL:https://a.example\nEND:VCARD", Code("card", "")),
        ("M1OTT/LENA EABC123 FRAJFKAF 0006 246Y012A0001", Code("text", "")),
        ("Room 4.12", Code("text", "")),
        ("", Code("text", "")),
    ],
)
def test_what_a_phone_would_open(payload: str, code: Code) -> None:
    assert read_payload(payload) == code


def test_pages_links_and_words() -> None:
    content = pdf(
        text="Invoice 17\nSee https://mill.example/terms for terms", links=["https://mill.example/pay"], pages=2
    )
    inside = pdf_reader.read("a.pdf", content)
    assert "Invoice 17" in inside.text
    assert Target("pdf_link", "https://mill.example/pay", "page 1") in inside.targets
    assert Target("pdf_link", "https://mill.example/pay", "page 2") in inside.targets
    assert Target("pdf_text", "https://mill.example/terms", "page 1") in inside.targets
    assert dict(inside.seen) == {}


def test_a_code_on_a_page() -> None:
    inside = pdf_reader.read("a.pdf", pdf(picture=qr(URL)))
    assert inside.targets == (Target("qr", URL, "page 1"),)
    assert dict(inside.seen) == {"single_page": "one page", "qr": "address"}


@pytest.mark.parametrize("media_box", [b"[0 0 595000 842000]", b"[0 0 0 0]", b"[0 0 1 99999]", b"[9 9 -9 -9]"])
def test_pages_of_any_size_are_drawn_within_bounds(media_box: bytes) -> None:
    content = pdf(text="Big").replace(b"[0 0 595 842]", media_box)
    assert pdf_reader.read("a.pdf", content).seen["single_page"]


def test_a_locked_file() -> None:
    assert pdf_reader.read("a.pdf", locked_pdf()).seen == {"encrypted": "opens with a password only"}


@pytest.mark.parametrize("content", [b"%PDF-1.7\n", b"%PDF-1.7\n" + bytes(5_000), pdf(text="x")[:300]])
def test_a_broken_file(content: bytes) -> None:
    assert "unreadable" in pdf_reader.read("a.pdf", content).seen


@pytest.mark.parametrize(
    ("word", "content"),
    [
        ("launch", pdf(objects=[b"<< /S /Launch /F (cmd.exe) >>"])),
        ("launch", pdf(objects=[b"<< /S /La#75nch /F (cmd.exe) >>"])),
        ("launch", pdf(packed=[b"<< /S /Launch /F (cmd.exe) >>"])),
        ("javascript", pdf(objects=[b"<< /S /JavaScript /JS (app.alert\\(1\\)) >>"])),
        ("javascript", pdf(objects=[b"<< /S /#4aavaScript /J#53 (x) >>"])),
        ("javascript", pdf(packed=[b"<< /JS 51 0 R >>"])),
        ("by_itself", pdf(catalog="/OpenAction << /S /JavaScript /JS (x) >>")),
        ("by_itself", pdf(catalog="/OpenAction 50 0 R", objects=[b"<< /S /JavaScript /JS (x) >>"])),
        ("by_itself", pdf(catalog="/#4fpenAction << /S /Launch /F (x) >>")),
        ("embedded_file", pdf(objects=[b"<< /Type /Filespec /EF << /F 51 0 R >> >>", b"<< /Type /EmbeddedFile >>"])),
        ("submit_form", pdf(objects=[b"<< /S /SubmitForm /F (https://a.example) >>"])),
        ("rich_media", pdf(objects=[b"<< /Subtype /RichMedia >>"])),
        ("launch", b"%PDF-1.7\n1 0 obj << /S /Launch >> and no more"),
    ],
)
def test_actions(word: str, content: bytes) -> None:
    assert word in actions(content)


@pytest.mark.parametrize(
    "content",
    [
        pdf(text="Plain"),
        pdf(catalog="/OpenAction [100 0 R /FitH 700]"),
        pdf(catalog="/OpenAction << /S /GoTo /D [100 0 R /Fit] >>"),
        pdf(text="(/JSomething) is no script"),
        pdf(objects=[b"<< /LaunchDate (today) /AAPL:Keywords [] /JSON (x) >>"]),
    ],
)
def test_no_actions(content: bytes) -> None:
    assert actions(content) == {}


def test_a_script_of_a_form_does_not_run_by_itself() -> None:
    content = pdf(catalog="/OpenAction [100 0 R /Fit]", objects=[b"<< /AA << /F << /S /JavaScript /JS (x) >> >> >>"])
    assert set(actions(content)) == {"javascript"}


def test_object_streams_are_inflated_within_bounds() -> None:
    bomb = zlib.compress(bytes(20 << 20))
    content = b"%PDF-1.7\n" + b"1 0 obj\n<< /Type /ObjStm >>\nstream\n" + bomb + b"\nendstream\n"
    assert actions(content * 20 + b"/Launch ") == {"launch": "/Launch"}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 900))
def test_any_damage_is_answered(noise: bytes, place: int) -> None:
    whole = pdf(text="x", links=["https://a.example"], catalog="/OpenAction << /S /JavaScript /JS (x) >>")
    assert isinstance(pdf_reader.read("a.pdf", whole[:place] + noise + whole[place + len(noise) :]).text, str)
