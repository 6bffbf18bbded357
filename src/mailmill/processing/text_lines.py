"""Text as a reader sees it: runs of blanks as one, nothing invisible within words. Pure and linear."""

from __future__ import annotations

import re

_BLANKS = re.compile(r"\s+")
_LETTER = r"[A-Za-z\u00c0-\u024f\u0370-\u052f]"
_UNSEEN = r"[\u200b\u200c\u200d\u2060-\u2064\ufeff\u034f\u180e]"
_SPLIT_WORD = re.compile(rf"(?<={_LETTER}){_UNSEEN}{{1,20}}(?={_LETTER})(?:{_UNSEEN}{{0,20}}{_LETTER}){{1,60}}")
_SPLIT_BY_HYPHENS = re.compile(rf"(?:{_LETTER}\u00ad){{3,60}}{_LETTER}")
_WITHIN_WORD = re.compile(rf"(?<={_LETTER})(?:{_UNSEEN}|\u00ad){{1,20}}(?={_LETTER})")
_LINE_BLANKS = re.compile(r"[ \t\r\f\v\u00a0\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u2007\u202f]+")


def one_blank(text: str) -> str:
    """The same text with runs of blanks, line ends among them, as one space."""
    return _BLANKS.sub(" ", text)


def one_line(text: str) -> str:
    """The same text in one line, runs of blanks (invisible ones too) as one space."""
    return _BLANKS.sub(" ", _LINE_BLANKS.sub(" ", text)).strip()


def count_split_words(text: str) -> int:
    """Words of alphabets that need no invisible characters, with such in them. Soft hyphens are where words may be
    parted, so they count only where no language parts a word: letter by letter."""
    if text.isascii():
        return 0
    return sum(1 for _ in _SPLIT_WORD.finditer(text)) + sum(1 for _ in _SPLIT_BY_HYPHENS.finditer(text))


def tidy_lines(text: str) -> str:
    """The same text with runs of blanks (invisible ones too) as one space, lines stripped, empty lines dropped.

    What is invisible within a word of Latin, Greek or Cyrillic letters goes: the reader sees one word.
    """
    if not text.isascii():
        text = _WITHIN_WORD.sub("", text)
    lines = (_LINE_BLANKS.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)
