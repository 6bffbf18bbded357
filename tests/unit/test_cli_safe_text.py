"""Text made harmless for a terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmill.cli.safe_text import ago, duration, json_escaped, moment, neutral, one_line, size


@given(st.text())
def test_nothing_a_terminal_obeys_is_left(text: str) -> None:
    shown = neutral(text)
    assert not [each for each in shown if (ord(each) < 0x20 and each not in "\n\t") or 0x7F <= ord(each) < 0xA0]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u2028\u2029")
    shown.encode("utf-8")


@given(st.recursive(st.text() | st.text(st.characters(categories=["Cs", "Cc", "Cf"])), st.lists))
def test_json_says_the_same_and_is_harmless(value: object) -> None:
    document = json_escaped(json.dumps(value, ensure_ascii=False, indent=1))
    # JSON cannot tell two escaped surrogates side by side from the character they make.
    assert json.dumps(json.loads(document)) == json.dumps(value)
    assert neutral(document) == document


def test_pictures() -> None:
    assert neutral("a\x1b[31m\r\nb\x07\x7f\x9b") == "a␛[31m\nb␇␡\ufffd"
    assert one_line(" a\n\tb  c ") == "a b c"
    assert one_line("abcdefgh", 5) == "abcd…"


@pytest.mark.parametrize(
    ("size_bytes", "shown"), [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (250 * 1024**2, "250 MiB")]
)
def test_size(size_bytes: int | None, shown: str) -> None:
    assert size(size_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.0123, "12 ms"),
        (0.9999, "1.0 s"),
        (4.2, "4.2 s"),
        (59, "59 s"),
        (75, "1 min"),
        (7200, "2 h"),
        (200_000, "2 d"),
    ],
)
def test_duration(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_times() -> None:
    assert ago("1970-01-01T00:01:40Z", now=103.5) == "3.5 s ago"
    assert ago(None) == "never"
    assert moment("no time \x1b") == "no time ␛"
    assert moment(None) == "-"
