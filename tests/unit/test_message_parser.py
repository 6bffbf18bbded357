"""Whole messages: which parts become text, which attachments, and what is said of the odd ones."""

from __future__ import annotations

import base64

import pytest

from mailmill.message_parser import Caps, parse_headers, parse_message
from mailmill.model import Address


def mail(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


def test_single_part() -> None:
    parsed = parse_message(
        mail(
            "Received: from a.example by b.example;",
            "\tTue, 3 Mar 2026 10:00:01 +0000",
            "From: Ann Example <ann@example.org>",
            'To: bob@example.net, "Carl, Jr." <carl@example.net>',
            "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=",
            "Date: Tue, 3 Mar 2026 11:00:00 +0100",
            "Message-ID: <1@example.org>",
            "In-Reply-To: <0@example.net>",
            "References: <a@example.net>",
            " <0@example.net>",
            "Content-Type: text/plain; charset=utf-8",
            "",
            "Hällo",
            "world",
        )
    )
    summary = parsed.summary
    assert summary.subject == "Grüße"
    assert summary.from_ == (Address("Ann Example", "ann@example.org"),)
    assert summary.to == (Address("", "bob@example.net"), Address("Carl, Jr.", "carl@example.net"))
    assert summary.date == 1772532000.0
    assert summary.message_id_header == "<1@example.org>"
    assert summary.in_reply_to == "<0@example.net>"
    assert summary.references == ("<a@example.net>", "<0@example.net>")
    assert parsed.text_plain == "Hällo\nworld"
    assert (parsed.text_html, parsed.attachments, parsed.defects) == ("", (), ())
    assert parsed.headers[0] == ("Received", "from a.example by b.example; Tue, 3 Mar 2026 10:00:01 +0000")
    assert parsed.header("SUBJECT") == "Grüße"
    assert parsed.header("X-None") is None
    assert parsed.header_all("received") == (parsed.headers[0][1],)


def test_parts_and_their_imap_paths() -> None:
    """Mixed(alternative(plain, related(html, image)), pdf, calendar, rfc822): paths as in RFC 9051 §6.4.5."""
    pdf = b"%PDF-1.7 \x00\xff"
    inner = mail("Subject: inner", "Content-Type: multipart/mixed; boundary=i", "", "--i", "", "hidden", "--i--")
    raw = (
        mail(
            "Subject: outer",
            'Content-Type: multipart/mixed; boundary="m m"',
            "",
            "preamble",
            "--m m",
            "Content-Type: multipart/alternative; boundary=a",
            "",
            "--a",
            "",
            "plain",
            "--a",
            "Content-Type: multipart/related; boundary=r",
            "",
            "--r",
            "Content-Type: text/html",
            "",
            "<img src=cid:x@y>",
            "--r",
            "Content-Type: image/png; name=dot.png",
            "Content-ID: <x@y>",
            "Content-Transfer-Encoding: base64",
            "",
            base64.b64encode(b"png").decode(),
            "--r--",
            "--a--",
            "--m m",
            "Content-Type: application/pdf",
            "Content-Disposition: attachment; filename*0*=utf-8''Rechnung%20f; filename*1*=%C3%BCr; filename*2=.pdf",
            "Content-Transfer-Encoding: base64",
            "",
            base64.b64encode(pdf).decode(),
            "--m m",
            "Content-Type: text/calendar; method=REQUEST",
            "",
            "BEGIN:VCALENDAR",
            "--m m",
            "Content-Type: message/rfc822",
            "",
        ).replace(b"\r\n--m m\r\nContent-Type: message", b"\r\n--m m  \r\nContent-Type: message")
        + b"\r\n"
        + inner
        + b"\r\n--m m--\r\nepilogue\r\n"
    )
    parsed = parse_message(raw)
    assert parsed.text_plain == "plain"
    assert parsed.text_html == "<img src=cid:x@y>"
    assert [(a.id, a.content_type, a.filename, a.inline) for a in parsed.attachments] == [
        ("1.2.2", "image/png", "dot.png", True),
        ("2", "application/pdf", "Rechnung für.pdf", False),
        ("3", "text/calendar", "", True),
        ("4", "message/rfc822", "", True),
    ]
    image, document, _, forwarded = parsed.attachments
    assert (image.content_id, image.content) == ("x@y", b"png")
    assert (document.content, document.size_bytes) == (pdf, len(pdf))
    assert document.encoded_size_bytes == len(base64.b64encode(pdf))
    assert forwarded.content == inner
    assert parsed.defects == ()


def test_several_inline_texts_are_joined() -> None:
    parsed = parse_message(
        mail("Content-Type: multipart/mixed; boundary=b", "", "--b", "", "body", "--b", "", "-- list footer", "--b--")
    )
    assert parsed.text_plain == "body\n-- list footer"


@pytest.mark.parametrize(
    ("headers", "attached"),
    [
        ("Content-Type: text/plain", False),
        ("Content-Type: text/plain; name=notes.txt", True),
        ("Content-Type: text/html\r\nContent-Disposition: attachment", True),
        ("Content-Type: text/html\r\nContent-Disposition: inline", False),
        ("Content-Type: text/csv", True),
        ("Content-Type: application/ms-tnef; name=winmail.dat", True),
        ("Content-Type: application/octet-stream", True),
        ("Content-Type: nonsense", False),
        ("Content-Type: text", False),
        ("", False),
    ],
)
def test_what_is_an_attachment(headers: str, attached: bool) -> None:
    part = mail("Content-Type: multipart/mixed; boundary=b", "", "--b", *filter(None, [headers]), "", "x", "--b--")
    parsed = parse_message(part)
    assert bool(parsed.attachments) is attached
    assert bool(parsed.text_plain or parsed.text_html) is not attached


def test_a_named_text_is_the_body_where_there_is_nothing_else() -> None:
    assert parse_message(b"Content-Type: text/plain; name=body.txt\r\n\r\nhello").text_plain == "hello"


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        (b"aGVsbG8=", b"hello"),
        (b"aGVs\r\nbG8=\r\n", b"hello"),
        (b"aGVsbG8", b"hello"),
        (b"aGVsbG8===", b"hello"),
        (b"aG!Vs*bG8=", b"hello"),
        (b"aGVsbG8A=x", b"hello\x00"),
        (b"aGk=aGk=", b"hihi"),  # a second half hidden behind padding is shown
        (b"A", b""),
        (b"====", b""),
    ],
)
def test_base64_however_broken(encoded: bytes, decoded: bytes) -> None:
    head = b"Content-Type: application/zip\r\nContent-Transfer-Encoding: BASE64\r\n\r\n"
    assert parse_message(head + encoded).attachments[0].content == decoded


def test_one_corrupt_part_leaves_the_others() -> None:
    parsed = parse_message(
        mail(
            "Content-Type: multipart/mixed; boundary=b",
            "",
            "--b",
            "Content-Transfer-Encoding: base64",
            "Content-Type: image/png",
            "",
            "a=b=c===",
            "--b",
            "Content-Transfer-Encoding: quoted-printable",
            "",
            "caf=C3=A9 =",
            "ol=ZZ",
            "--b--",
        )
    )
    assert parsed.text_plain == "café ol=ZZ"
    assert parsed.defects == ("base64 is corrupt: what could be read was kept",)


def test_unknown_encoding_is_kept_as_it_came() -> None:
    parsed = parse_message(b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 a\r\n")
    assert parsed.text_plain == "begin 644 a\n"
    assert parsed.defects == ("unknown content transfer encoding: kept as it came",)


@pytest.mark.parametrize("end", ["", "--b", "\r\n--b"])
def test_unterminated_multipart(end: str) -> None:
    parsed = parse_message(mail("Content-Type: multipart/mixed; boundary=b", "", "--b", "", "text" + end))
    assert parsed.text_plain.startswith("text")
    assert "a multipart has no closing delimiter" in parsed.defects


def test_inner_multipart_without_end_gives_the_next_part_back_to_its_parent() -> None:
    parsed = parse_message(
        mail(
            "Content-Type: multipart/mixed; boundary=o",
            "",
            "--o",
            "Content-Type: multipart/alternative; boundary=i",
            "",
            "--i",
            "",
            "inner",
            "--o",
            "Content-Type: application/pdf",
            "",
            "pdf",
            "--o--",
        )
    )
    assert parsed.text_plain == "inner"
    assert [(a.id, a.content) for a in parsed.attachments] == [("2", b"pdf")]


def test_a_boundary_used_twice() -> None:
    parsed = parse_message(
        mail(
            "Content-Type: multipart/mixed; boundary=b",
            "",
            "--b",
            "Content-Type: multipart/alternative; boundary=b",
            "",
            "--b",
            "",
            "inner",
            "--b--",
            "--b",
            "Content-Type: image/gif",
            "",
            "gif",
            "--b--",
        )
    )
    assert (parsed.text_plain, parsed.attachments[0].content) == ("inner", b"gif")


@pytest.mark.parametrize(
    ("content_type", "defect"),
    [
        ("multipart/mixed; boundary=other", "a multipart has no part: read as text"),
        ("multipart/mixed", "a multipart names no usable boundary: read as text"),
        ("multipart/mixed; boundary=" + "x" * 500, "a multipart names no usable boundary: read as text"),
    ],
)
def test_a_multipart_that_cannot_be_walked_is_text(content_type: str, defect: str) -> None:
    """Mail programs show it, so a reader, and whoever looks for threats, gets it too."""
    parsed = parse_message(mail(f"Content-Type: {content_type}", "", "visible"))
    assert parsed.text_plain == "visible"
    assert defect in parsed.defects


def test_a_missing_boundary_is_taken_from_the_first_line() -> None:
    parsed = parse_message(mail("Content-Type: multipart/mixed", "", "--q", "", "one", "--q--"))
    assert parsed.text_plain == "one"


def test_a_delimiter_inside_a_header_ends_the_part() -> None:
    parsed = parse_message(
        mail("Content-Type: multipart/mixed; boundary=b", "", "--b", "X-Cut: 1", "--b", "", "text", "--b--")
    )
    assert parsed.text_plain == "\ntext"
    assert parsed.attachments == ()


def test_digest_parts_are_messages() -> None:
    parsed = parse_message(mail("Content-Type: multipart/digest; boundary=b", "", "--b", "", "Subject: x", "", "--b--"))
    assert [a.content_type for a in parsed.attachments] == ["message/rfc822"]


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"\n\n", b"\0", b":", b" ", b"\r", b"x", b"--", b"Subject", b"Subject:"])
def test_next_to_nothing(raw: bytes) -> None:
    assert parse_message(raw).attachments == ()
    assert parse_headers(raw).subject == ""


def test_line_ends() -> None:
    for end in ("\r\n", "\n", "\r"):
        raw = end.join(["Subject: a", " b", "From: x@example.org", "", "one", "two"]).encode()
        parsed = parse_message(raw)
        assert (parsed.summary.subject, parsed.header("from")) == ("a b", "x@example.org"), repr(end)
        assert parsed.text_plain == "one\ntwo"
        assert parse_headers(raw) == parsed.summary


def test_lines_that_are_no_fields_are_skipped() -> None:
    parsed = parse_message(
        mail("From ann Mon Jan 1 00:00:00 2026", "Subject: a", "no field here", "To: b@c", "", "text")
    )
    assert (parsed.summary.subject, parsed.summary.to, parsed.text_plain) == ("a", (Address("", "b@c"),), "text")
    assert parsed.defects == ("some header lines are no fields",)


def test_blank_lines_before_the_header() -> None:
    assert parse_headers(b"\r\n\r\nSubject: late\r\n\r\n").subject == "late"
    assert parse_message(b"\r\njust text").text_plain == "just text"


def test_the_first_of_fields_that_may_stand_once_counts() -> None:
    parsed = parse_message(mail("From: a@b", "From: evil@b", "To: c@d", "To: e@f", "", ""))
    assert parsed.summary.from_ == (Address("", "a@b"),)
    assert [to.address for to in parsed.summary.to] == ["c@d", "e@f"]
    assert parsed.defects == ("several from fields: the first counts",)


# -- caps -------------------------------------------------------------------------------------------------------------


def multiparts(depth: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))


def test_nesting_beyond_the_cap_is_kept_as_an_attachment() -> None:
    parsed = parse_message(multiparts(3000) + b"\r\ndeep")
    assert [a.content_type for a in parsed.attachments] == ["multipart/mixed"]
    assert b"deep" in parsed.attachments[0].content
    assert parse_message(multiparts(32) + b"\r\ndeep").text_plain == "deep"


def test_parts_beyond_the_cap_are_left_out() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\nContent-Type: a/b\r\n\r\nx\r\n" * 10
    parsed = parse_message(raw, Caps(parts=3))
    assert len(parsed.attachments) == 3
    assert "more than 3 parts: the rest was not read" in parsed.defects


def test_a_header_beyond_the_cap_is_cut_and_never_read_as_text() -> None:
    raw = b"Subject: a\r\n" + b"X-Pad: y\r\n" * 1000 + b"X-Last: 1\r\n\r\nbody"
    parsed = parse_message(raw, Caps(header_bytes=500))
    assert (parsed.summary.subject, parsed.text_plain) == ("a", "body")
    assert parsed.header("X-Last") is None
    many = parse_message(raw, Caps(header_fields=10))
    assert (len(many.headers), many.text_plain) == (10, "body")


def test_a_part_header_beyond_the_cap_is_cut() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: " + b"a" * 5000 + b"\r\n\r\nbody\r\n--b--"
    parsed = parse_message(raw, Caps(header_bytes=100))
    assert parsed.text_plain == "body"
    assert "a part's header is too long: the rest of it was not read" in parsed.defects


def test_sizes_beyond_the_caps_are_cut() -> None:
    parsed = parse_message(b"Content-Type: a/b\r\n\r\n" + b"x" * 100, Caps(decoded_bytes=10))
    assert parsed.attachments[0].size_bytes == len(parsed.attachments[0].content) == 10
    assert parse_message(b"\r\n" + b"x" * 100, Caps(text_bytes=10)).text_plain == "x" * 10
    assert parse_message(b"\r\n" + b"x" * 100, Caps(message_bytes=12)).text_plain == "x" * 10


def test_delimiter_lines_beyond_the_cap() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext" + b"\r\n--x" * 50 + b"\r\n--b--"
    assert (
        "too many lines look like delimiters: the rest was not read" in parse_message(raw, Caps(delimiters=9)).defects
    )
    assert parse_message(raw, Caps(delimiters=99)).defects == ()


def test_charsets_are_guessed_for_a_few_parts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessing takes milliseconds a part, and a sender chooses how many parts there are."""
    asked: list[bytes] = []
    monkeypatch.setattr("mailmill.message_parser.charsets._detect", asked.append)
    part = b"--b\r\n\r\n" + bytes(range(192, 250)) + b"\r\n"
    parsed = parse_message(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 100 + b"--b--")
    assert 0 < len(asked) < 20
    assert len(parsed.text_plain) == 100 * 58 + 99
