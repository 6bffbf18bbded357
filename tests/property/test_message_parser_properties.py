"""Any bytes give a well-formed, bounded value: random ones, and real shapes cut, doubled and spliced."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailmill.message_parser import Caps, ParsedMessage, parse_headers, parse_message

CAPS = Caps(message_bytes=20_000, header_bytes=2_000, header_fields=50, depth=4, parts=20, delimiters=200)

PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b";",
    b":",
    b",",
    b'"',
    b"\\",
    b"(",
    b")",
    b"<",
    b">",
    b"=",
    b"?",
    b"\0",
    b"--",
    b"--b",
    b"--b--",
    b"\r\n--b\r\n",
    b"\r\n--b--\r\n",
    b"--c",
    b"\r\n--c\r\n",
    b"boundary=b",
    b"boundary=c",
    b"\xff\xfe",
    b"From: ",
    b"To: ",
    b"Subject: ",
    b"Date: ",
    b"Message-ID: ",
    b"References: ",
    b"Content-Type: ",
    b"a@b.example",
    b"<a@b>",
    b"text/plain",
    b"text/html",
    b"multipart/mixed; boundary=b\r\n\r\n--b\r\n",
    b"multipart/alternative; boundary=c\r\n\r\n",
    b"message/rfc822",
    b"image/png",
    b"charset=",
    b"utf-8",
    b"utf-7",
    b"iso-2022-jp",
    b"gb2312",
    b"utf-16",
    b"hz",
    b"idna",
    b"=?utf-8?q?",
    b"=?utf-7?b?",
    b"?=",
    b"=C3=A9",
    b"w6k=",
    b"+2AA-",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b"\x1b$B",
    b"~{",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"Content-ID: ",
    b"Content-Disposition: attachment; ",
    b"filename*0*=utf-8''",
    b"filename*1=",
    b"filename=",
    b"%E9",
    b"Tue, 3 Mar 2026 ",
    b"10:00:00 +0100",
    b"31 Feb 0000 99:99:99 -9999",
]

mutated = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)), max_size=80).map(b"".join)


def strings(parsed: ParsedMessage) -> list[str]:
    summary = parsed.summary
    people = (*summary.from_, *summary.to, *summary.cc, *summary.reply_to)
    lines = [
        summary.subject,
        summary.message_id_header,
        summary.in_reply_to,
        *summary.references,
        *(text for person in people for text in (person.name, person.address)),
        *(text for field in parsed.headers for text in field),
        *(text for a in parsed.attachments for text in (a.id, a.filename, a.content_type, a.content_id)),
        *parsed.defects,
    ]
    for line in lines:
        assert not any(ord(char) < 32 for char in line), line
    return [*lines, parsed.text_plain, parsed.text_html]


def check(raw: bytes) -> None:
    parsed = parse_message(raw, CAPS)
    for text in strings(parsed):
        text.encode("utf-8")
        assert "\0" not in text
    assert len(parsed.headers) <= CAPS.header_fields
    ids = [attachment.id for attachment in parsed.attachments]
    assert len(ids) == len(set(ids)) <= CAPS.parts
    for attachment in parsed.attachments:
        assert attachment.size_bytes == len(attachment.content) <= attachment.encoded_size_bytes
        assert attachment.id.count(".") < CAPS.depth
        assert all(number.isdecimal() for number in attachment.id.split("."))
    assert len(parsed.text_plain) + len(parsed.text_html) <= len(raw) + CAPS.parts
    date = parsed.summary.date
    assert date is None or 0 <= date < 253402400000
    parse_headers(raw)


@given(st.binary(max_size=400))
def test_random_bytes(raw: bytes) -> None:
    check(raw)


@given(mutated)
def test_mutated_mail(raw: bytes) -> None:
    check(raw)


@given(mutated.map(lambda raw: raw.decode("ascii", "ignore").encode()))
def test_the_summary_is_the_same_from_the_header_alone(raw: bytes) -> None:
    whole = b"Subject: s\r\n" + raw
    assert parse_headers(whole) == parse_message(whole).summary


@given(mutated, st.integers(0, 400))
def test_cut_anywhere(raw: bytes, at: int) -> None:
    check(raw[:at])


parts = st.lists(st.binary(max_size=30).filter(lambda body: b"--" not in body and b"\n" not in body[:1]), max_size=5)


@given(parts)
def test_the_parts_of_a_well_formed_multipart_come_back(bodies: list[bytes]) -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    for body in bodies:
        raw += b"--b\r\nContent-Type: application/octet-stream\r\n\r\n" + body + b"\r\n"
    raw += b"--b--\r\n"
    assert [attachment.content for attachment in parse_message(raw).attachments] == bodies
