"""A text as the words that a reader takes from it, whatever letters they are written in. Pure, linear and bounded.

Compatibility forms become plain (NFKC), look-alike letters Latin, accents and case go, characters that show nothing
vanish: ``Vérify``, ``ＶＥＲＩＦＹ``, ``ver<soft hyphen>ify`` and ``vеrify`` (Cyrillic е) are all ``verify``. Signs of
scripts written without blanks (Chinese, Japanese) are words of their own.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import islice

from mailmill.processing.threat.evidence.lookalike import skeleton

MAX_CHARS = 16_000
MAX_WORDS = 4_000
MAX_WORD_CHARS = 80

_UNSPACED = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[$€£%]")
# A capital I among small letters is worn for an l.
_WORN_CAPITAL = re.compile(r"(?<=[^\W\d_A-Z])I")
_BLANK = re.compile(r"\s+")
# Format characters (zero width, soft hyphen, bidi, tags), fillers, variation selectors: what is_invisible() is asked
# for, as one set, for it is asked of every character of a message;
# and the marks that are no part of a letter after NFKC: strokes through it, heaps above and below it.
_NOT_READ = re.compile(
    "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
    "\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_NORMALISED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class PlainWords:
    """``text`` is readable and lower case; ``words`` are the plain forms of its words, in order."""

    text: str
    words: tuple[str, ...]

    def shown(self, start: int, end: int) -> str:
        """The readable text from word ``start`` up to, not including, word ``end``. Linear in the text."""
        spans = [match.span() for match in islice(_WORD.finditer(self.text), start, end)]
        return self.text[spans[0][0] : spans[-1][1]] if spans else ""


def plain_text(text: str, limit: int = MAX_CHARS) -> str:
    """The first ``limit`` characters: NFKC, nothing invisible, runs of blanks as one, lower case; letters as they
    are."""
    text = text[:limit]
    if not text.isascii():
        # Marks on one letter are sorted by exchanging neighbours (UAX #15), quadratic in their number: so piece by
        # piece. One character can become 18 (U+FDFA), so the limit holds again after it.
        pieces = (text[start : start + _NORMALISED_AT_ONCE] for start in range(0, len(text), _NORMALISED_AT_ONCE))
        text = _NOT_READ.sub("", "".join(unicodedata.normalize("NFKC", piece) for piece in pieces))[:limit]
    # The small form of a Turkish capital has a mark of its own, which would part the word.
    return _BLANK.sub(" ", _WORN_CAPITAL.sub("l", text)).strip().casefold().replace("i\u0307", "i")[:limit]


def plain_words(text: str, limit: int = MAX_CHARS) -> PlainWords:
    """The words of the first ``limit`` characters of a text, in order: at most ``MAX_WORDS``, each cut at
    ``MAX_WORD_CHARS``."""
    readable = plain_text(text, limit)
    words = _WORD.findall(readable)[:MAX_WORDS]
    forms = {word: _plain_form(word) for word in set(words)}
    return PlainWords(readable, tuple([forms[word] for word in words]))


def _plain_form(word: str) -> str:
    word = word[:MAX_WORD_CHARS]
    return word if word.isascii() else skeleton(word) or word
