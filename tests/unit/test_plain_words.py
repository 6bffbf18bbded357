"""Plain words and the phrases found in them: the same words whatever letters they are written in, in bounded work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailmill.processing.threat.evidence.lookalike import is_invisible
from mailmill.processing.threat.evidence.phrases import Hit, PhraseBook
from mailmill.processing.threat.evidence.plain_words import MAX_CHARS, MAX_WORDS, plain_text, plain_words


@pytest.mark.parametrize(
    "written",
    [
        "verify your account",
        "VERIFY  your\n\taccount",
        "Vérify yoür áccount",
        "ｖｅｒｉｆｙ ｙｏｕｒ ａｃｃｏｕｎｔ",
        "𝘃𝗲𝗿𝗶𝗳𝘆 𝘆𝗼𝘂𝗿 𝗮𝗰𝗰𝗼𝘂𝗻𝘁",
        "vеrify yоur аccоunt",
        "ver\u00adify yo\u200bur acc\u2060ount",
        "ver\ufe0fify your \u202aaccount\u202c",
        "v\U000e0041erify your\u00a0account",
        "v\u0336e\u0336r\u0336i\u0336f\u0336y your account",
        "ve\u0301\u0316\u0317rify your a\u0323\u0307ccount",
        "VERİFY your account",
    ],
)
def test_the_same_words(written: str) -> None:
    assert plain_words(written).words == ("verify", "your", "account")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("l'accès au e-mail", ("l", "acces", "au", "e", "mail")),
        ("Straße", ("strasse",)),
        ("$500 or 20%", ("$", "500", "or", "20", "%")),
        ("请验证", ("请", "验", "证")),
        ("snake_case", ("snake", "case")),
        ("accessibIe", ("accessible",)),
        ("", ()),
        ("… — !", ()),
    ],
)
def test_words(written: str, words: tuple[str, ...]) -> None:
    assert plain_words(written).words == words


def test_what_is_shown_is_readable() -> None:
    words = plain_words("Bitte BESTÄTIGEN Sie Ihr Konto!")
    assert words.shown(1, 5) == "bestätigen sie ihr konto"
    assert words.shown(3, 3) == ""


def test_nothing_invisible_is_left() -> None:
    kept = {chr(code) for code in range(0x20000) if is_invisible(chr(code)) and plain_text(f"a{chr(code)}b") != "ab"}
    marks = {character for character in kept if not 0x600 <= ord(character) <= 0x8FF and ord(character) < 0xFFF0}
    assert not marks


def test_a_heap_of_marks_on_one_letter_is_nothing() -> None:
    assert plain_text("ver" + "\u0301\u0316" * 3_000 + "ify") == "veŕify"


def test_one_character_that_becomes_eighteen_does_not_break_the_limit() -> None:
    assert len(plain_text("\ufdfa" * MAX_CHARS)) <= MAX_CHARS
    assert len(plain_words("a b " * MAX_CHARS).words) <= MAX_WORDS


BOOK = PhraseBook(
    {
        "act": ["confirm|verify .. account|data", "click here"],
        "end": ["account .. suspend*", "within # hours", "on_hold|held up?"],
        "zh": ["点击 .. 链接"],
        "coin": ["send to <wallet>"],
    }
)


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("verify account", [("act", 0, 2)]),
        ("Please confirm the old account now", [("act", 1, 5)]),
        ("confirm one two three four account", []),
        ("your account has been suspended", [("end", 1, 5)]),
        ("within 24 hours", [("end", 0, 3)]),
        ("within 24h hours", [("end", 0, 3)]),
        ("within a few hours", []),
        ("cIick here", [("act", 0, 2)]),
        ("c1ick here", [("act", 0, 2)]),
        ("ver1fy acc0unt", []),
        ("verify acc0unt", [("act", 0, 2)]),
        ("on hold", [("end", 0, 2)]),
        ("held", [("end", 0, 1)]),
        ("held up", [("end", 0, 1), ("end", 0, 2)]),
        ("请点击下面的链接", [("zh", 1, 8)]),
        ("send to bc1qxy2kgdygjrsqtzq2n0yrf2493p83kkfjhx0wlh", [("coin", 0, 3)]),
        ("send to me", []),
    ],
)
def test_phrases(text: str, hits: list[tuple[str, int, int]]) -> None:
    assert BOOK.find(plain_words(text)) == [Hit(*hit) for hit in hits]


@pytest.mark.parametrize("phrase", ["", "..", ".. a", "a ..", "your|the? account", "a*", "!!", "a? b? c? d? e? f?"])
def test_a_phrase_of_no_meaning_is_refused(phrase: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        PhraseBook({"group": [phrase]})


def lines_run(call: Callable[[], object]) -> int:
    """How many lines of Python a call runs: its work, without a clock."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


VOCABULARY = [
    "confirm",
    "verify",
    "account",
    "your",
    "within",
    "24",
    "hours",
    "on",
    "hold",
    "点",
    "击",
    "链",
    "x",
    "\u200b",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(VOCABULARY) | st.text(max_size=5), max_size=200))
def test_any_text_takes_work_in_proportion(pieces: list[str]) -> None:
    text = plain_words(" ".join(pieces))
    assert lines_run(lambda: BOOK.find(text)) <= 400 + 300 * len(text.words)


def test_the_worst_text_takes_work_in_proportion() -> None:
    short, long = (plain_words("confirm account " * times) for times in (100, 1_000))
    few, many = (lines_run(lambda text=text: BOOK.find(text)) for text in (short, long))  # type: ignore[misc]
    assert many <= 11 * few
