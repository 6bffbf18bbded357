"""Fields and charsets: encoded words, addresses, dates, ids, parameters, bodies whose label lies."""

from __future__ import annotations

import codecs

import pytest

from mailmill.message_parser import parse_headers, parse_message
from mailmill.message_parser.addresses import parse_addresses
from mailmill.message_parser.charsets import _LABELS, codec_of, decode_body
from mailmill.message_parser.fields import text
from mailmill.message_parser.structured import parse_date, parse_message_id, parse_message_ids, parse_parameters
from mailmill.model import Address


@pytest.mark.parametrize(
    ("raw", "decoded"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?a_b=20c?=", "a b c"),
        ("=?UTF-8?B?w6k=?= =?UTF-8?B?w6k=?=", "éé"),
        ("=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
        ("x=?utf-8?q?a?=y", "xay"),
        ("=?utf-8?B?ww==?= =?utf-8?B?qQ==?=", "é"),  # a character cut in two
        ("=?utf-8?q?=C3?=\r\n =?utf-8?q?=A9?=", "é"),
        ("=?iso-8859-1?q?=80?=", "€"),  # WHATWG: latin-1 is windows-1252
        ("=?gb2312?B?1tDOxIE=?=", "中文\ufffd"),
        ("=?ks_c_5601-1987?B?x9GxuQ==?=", "한국"),
        ("=?utf-8*de?q?gr=C3=BCn?=", "grün"),
        ("=?utf-8?q?what is this?=", "what is this"),
        ("=?utf-8?q?what?_this?=", "what? this"),
        ("=?x-unknown?q?=C3=A9?=", "é"),
        ("=?x-unknown?q?=E9?=", "é"),
        ("=?idna?q?xn--a?=", "xn--a"),  # never Python's quadratic codecs
        ("=?utf-8?b?!!!?=", ""),
        ("=?utf-8?q?never ends", "=?utf-8?q?never ends"),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?q?a=0D=0ABcc:_x?=", "a Bcc: x"),  # no line breaks in a field
        ("=?utf-8?q?a=00b?=", "a b"),
        ("=?utf-7?q?+2AA-?=", "\ufffd"),  # a lone surrogate
        ("=?iso-8859-1?Q?Fr\u00f6sche?=", "Frösche"),
    ],
)
def test_encoded_words(raw: str, decoded: str) -> None:
    assert text(raw) == decoded


def test_raw_8bit_header() -> None:
    assert parse_headers("Subject: Grüße".encode()).subject == "Grüße"
    assert parse_headers("Subject: Grüße".encode("latin-1")).subject == "Grüße"
    raw = "Subject: Привет\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\n".encode("koi8-r")
    assert parse_message(raw).summary.subject == "Привет"


A = Address


@pytest.mark.parametrize(
    ("raw", "addresses"),
    [
        ("a@b.c", [A("", "a@b.c")]),
        ("<a@b.c>", [A("", "a@b.c")]),
        ("Ann <a@b.c>", [A("Ann", "a@b.c")]),
        ('"Ann \\"X\\" B" <a@b.c>', [A('Ann "X" B', "a@b.c")]),
        ('"Doe, J" <j@d>, x@y', [A("Doe, J", "j@d"), A("", "x@y")]),
        ("a@b (Ann (the) B)", [A("Ann (the) B", "a@b")]),
        ("a@b (Ann \\) B)", [A("Ann ) B", "a@b")]),
        ("Team: a@b, c@d;, e@f", [A("", "a@b"), A("", "c@d"), A("", "e@f")]),
        ("undisclosed-recipients:;", []),
        ("a@b; c@d", [A("", "a@b"), A("", "c@d")]),
        ("Microsoft: Security <x@evil.example>", [A("Microsoft: Security", "x@evil.example")]),
        ("ceo@bank.example <x@evil.example>", [A("ceo@bank.example", "x@evil.example")]),
        ("=?utf-8?q?ceo=40bank=2C_?= <x@evil.example>", [A("ceo@bank,", "x@evil.example")]),
        ("=?utf-8?q?=3Cceo=40bank=3E?= <x@evil.example>", [A("<ceo@bank>", "x@evil.example")]),
        ("=?utf-8?q?Bank_=3Cceo=40bank=3E?=", [A("Bank <ceo@bank>", "")]),
        ("MAILER-DAEMON", [A("", "MAILER-DAEMON")]),
        ("MAILER-DAEMON <>", [A("MAILER-DAEMON", "")]),
        ("John Smith j@s.example", [A("John Smith", "j@s.example")]),
        ('"john smith"@s.example', [A("", '"john smith"@s.example')]),
        ("a@[127.0.0.1]", [A("", "a@[127.0.0.1]")]),
        ("<@relay,@other:a@b>", [A("", "a@b")]),
        ("<a@b> <c@d>", [A("", "a@b"), A("", "c@d")]),
        ("Ann <Support> <a@b>", [A("Ann <Support>", "a@b")]),
        ('"never ends <a@b>', [A("never ends", "a@b")]),
        ("(never ends <a@b>", [A("(never ends", "a@b")]),
        ("Ann <a@b", [A("Ann", "a@b")]),
        (",,; ,", []),
        ("", []),
    ],
)
def test_addresses(raw: str, addresses: list[Address]) -> None:
    assert list(parse_addresses(raw)) == addresses


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("Tue, 3 Mar 2026 11:00:00 +0100", 1772532000.0),
        ("3 Mar 2026 10:00 +0000", 1772532000.0),
        ("Tue,  3 Mar 2026 05:00:00 EST (Eastern)", 1772532000.0),
        ("Tue, 03 March 2026 10:00:00 GMT", 1772532000.0),
        ("Tue, 3-Mar-26 10:00:00 UT", 1772532000.0),
        ("Tue, 3 Mar 2026 10:00:00", 1772532000.0),
        ("Tue, 3 Mar 2026 10:00:00 -0000", 1772532000.0),
        ("Tue Mar  3 10:00:00 2026", 1772532000.0),
        ("3 Mar 99 00:00:00 Z", 920419200.0),
        ("3 Foo 2026 10:00:00 +0000", None),
        ("31 Feb 2026 10:00:00 +0000", None),
        ("1 Jan 1900 10:00:00 +0000", None),
        ("yesterday", None),
        ("", None),
        ("1 1 1 1 1 1 1 1 99999999999999999999", None),
    ],
)
def test_dates(raw: str, seconds: float | None) -> None:
    assert parse_date(raw) == seconds


def test_message_ids() -> None:
    assert parse_message_ids("<a@b>\t<c@d> junk <e f>") == ("<a@b>", "<c@d>", "<ef>")
    assert parse_message_id("bare@id") == "bare@id"
    assert parse_message_id("Your message of Tuesday") == ""
    assert parse_message_ids("<" * 10_000) == ()


@pytest.mark.parametrize(
    ("raw", "value", "parameters"),
    [
        ("Text/PLAIN", "text/plain", {}),
        ('text/plain; charset="utf-8"; Format=flowed', "text/plain", {"charset": "utf-8", "format": "flowed"}),
        ('text/plain charset="utf-8"', "text/plain", {"charset": "utf-8"}),
        ("a/b; name=my file.pdf", "a/b", {"name": "my file.pdf"}),
        ('a/b; name="a\\"b;c"', "a/b", {"name": 'a"b;c'}),
        ('a/b; name="never ends', "a/b", {"name": "never ends"}),
        ("a/b; name==?utf-8?q?=C3=A9.txt?=", "a/b", {"name": "é.txt"}),
        ("a/b; name*=utf-8'en'%C3%A9.txt; name=e.txt", "a/b", {"name": "é.txt"}),
        ("a/b; name*1=b; name*0=a; name*2=c", "a/b", {"name": "abc"}),
        ("a/b; name*0*=iso-8859-1''%E9; name*1=%41", "a/b", {"name": "é%41"}),
        ("a/b; a=1; a=2", "a/b", {"a": "1"}),
        ("a/b (comment); a=1", "a/b", {"a": "1"}),
        (";;;", "", {}),
    ],
)
def test_parameters(raw: str, value: str, parameters: dict[str, str]) -> None:
    assert parse_parameters(raw) == (value, parameters)


def test_every_label_means_a_codec_that_decodes_text() -> None:
    for codec in _LABELS:
        assert codecs.lookup(codec).name
        assert isinstance(b"abcd".decode(codec, "replace"), str)


@pytest.mark.parametrize("label", ["idna", "punycode", "unicode_escape", "rot13", "zlib", "x" * 1000, "../etc", ""])
def test_labels_that_are_not_looked_up(label: str) -> None:
    assert codec_of(label) is None


RUSSIAN = "Здравствуйте, это обычное письмо о встрече на следующей неделе. " * 5


@pytest.mark.parametrize(
    ("data", "label", "shown"),
    [
        ("é".encode(), "utf-8", "é"),
        (b"\xef\xbb\xbfabc", "", "abc"),
        (b"\xef\xbb\xbfabc", "utf-8", "abc"),
        ("\u201chi\u201d".encode("cp1252"), "iso-8859-1", "\u201chi\u201d"),
        ("é".encode(), "us-ascii", "é"),
        ("漢字".encode("gb18030"), "GB2312", "漢字"),
        ("日本語のメール".encode("euc_jp"), "iso-2022-jp", "日本語のメール"),  # declared for one another
        (RUSSIAN.encode("cp1251"), "", RUSSIAN),
        (RUSSIAN.encode("cp1251"), "utf-8", RUSSIAN),
        (b"It\x92s plain English, with one quote in it.", "", "It\u2019s plain English, with one quote in it."),
        (
            b"caf\xe9 \xa9 and much more text of plain ASCII letters and words.",
            "us-ascii",
            "café © and much more text of plain ASCII letters and words.",
        ),
        (b"x" * 100 + b"\xc3 mangled", "utf-8", "x" * 100 + "\ufffd mangled"),
        (b"a\0b", "utf-8", "ab"),
        (b"+2AA-", "utf-7", "\ufffd"),
    ],
)
def test_bodies(data: bytes, label: str, shown: str) -> None:
    assert decode_body(data, label)[0] == shown
