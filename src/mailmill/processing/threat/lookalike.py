"""Letters that pass for others: skeletons, scripts, small edit distances. Pure.

The table is our own short one of the letters that are used against Latin names; it is no copy of UTS #39's confusables.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

MAX_CHARS = 300

_LOOKS_LIKE = {
    # Cyrillic
    "а": "a", "в": "b", "с": "c", "ԁ": "d", "е": "e", "ё": "e", "һ": "h", "і": "i", "ї": "i", "ј": "j", "к": "k",
    "ӏ": "l",
    "м": "m", "п": "n", "о": "o", "р": "p", "ԛ": "q", "г": "r", "ѕ": "s", "т": "t", "ц": "u", "ѵ": "v", "ԝ": "w",
    "х": "x",
    "у": "y", "ү": "y", "з": "3", "б": "6", "н": "h",
    # Greek
    "α": "a", "β": "b", "ϲ": "c", "ε": "e", "η": "n", "ι": "i", "κ": "k", "ν": "v", "ο": "o", "ρ": "p", "σ": "o",
    "τ": "t",
    "υ": "u", "χ": "x", "γ": "y", "ω": "w", "μ": "u",
    # Armenian, Latin extensions, symbols
    "ս": "u", "օ": "o", "հ": "h", "ո": "n", "ց": "g", "ɑ": "a", "ɡ": "g", "ı": "i", "ɩ": "i", "ł": "l", "ø": "o",
    "đ": "d",
    "ƅ": "b", "ʋ": "v", "ꜱ": "s", "ʀ": "r", "ᴇ": "e", "ᴀ": "a", "ᴏ": "o", "ɴ": "n", "ᴛ": "t", "ʟ": "l", "ɪ": "i",
    "ß": "b",
}  # fmt: skip
_CAPITALS = {
    "А": "a", "В": "b", "С": "c", "Е": "e", "Н": "h", "І": "i", "Ј": "j", "К": "k", "М": "m", "О": "o", "Р": "p",
    "Ѕ": "s",
    "Т": "t", "Х": "x", "У": "y", "Α": "a", "Β": "b", "Ε": "e", "Ζ": "z", "Η": "h", "Ι": "i", "Κ": "k", "Μ": "m",
    "Ν": "n",
    "Ο": "o", "Ρ": "p", "Τ": "t", "Υ": "y", "Χ": "x",
}  # fmt: skip
_DIGITS = str.maketrans(
    {"0": "o", "1": "l", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "!": "i", "|": "l", "$": "s"}
)
_PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"))
_LETTERS = str.maketrans({**_LOOKS_LIKE, **_CAPITALS})

_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "HEBREW", "ARABIC", "CHEROKEE")


@lru_cache(maxsize=4_096)
def skeleton(text: str) -> str:
    """Lower-case text with accents off and look-alike letters turned to the Latin ones they pass for.

    Digits stay: see ``folded``. Styled letters (mathematical bold, full width, circled) become plain ones (NFKC).
    """
    text = text[:MAX_CHARS].translate(_LETTERS)
    text = unicodedata.normalize("NFKD", text).casefold().translate(_LETTERS)
    return "".join(
        character for character in text if not unicodedata.combining(character) and not is_invisible(character)
    )


@lru_cache(maxsize=4_096)
def folded(text: str) -> str:
    """The skeleton with digits read as letters and pairs as one (``rn`` → ``m``): for comparison only."""
    text = skeleton(text).translate(_DIGITS).replace("i", "l")
    for pair, one in _PAIRS:
        text = text.replace(pair, one)
    return text


def is_invisible(character: str) -> bool:
    """Format characters that show nothing: zero-width, soft hyphen, bidi marks, word joiners, fillers."""
    return unicodedata.category(character) == "Cf" or character in "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"


@lru_cache(maxsize=4_096)
def scripts_of(word: str) -> frozenset[str]:
    """The scripts (of those that can be mistaken for one another) that the letters of a word belong to."""
    found = set()
    for character in word[:MAX_CHARS]:
        if character.isascii():
            if character.isalpha():
                found.add("LATIN")
            continue
        if character.isalpha():
            script = unicodedata.name(character, "").partition(" ")[0]
            if script in _SCRIPTS:
                found.add(script)
    return frozenset(found)


@lru_cache(maxsize=4_096)
def disguised_word(text: str) -> str:
    """The first word of the text whose letters are a disguise, or "".

    That is: one word of Latin mixed with Cyrillic, Greek … letters; an invisible character between two letters of an
    alphabet that needs none; or styled letters (𝗕𝗼𝗹𝗱, Ｗｉｄｅ) beside plain ASCII ones in one word.
    """
    for word in text[:MAX_CHARS].split():
        letters = word.strip("\"'()[]{}<>.,:;!?-–—«»“”‘’*_|/\\")
        if letters.isascii():
            continue
        scripts = scripts_of(letters)
        if len(scripts) > 1 and "LATIN" in scripts and _looks_whole(letters):
            return letters
        if "LATIN" in scripts and _invisible_inside(letters):
            return letters
        if _is_styled(letters):
            return letters
    return ""


def _looks_whole(word: str) -> bool:
    """Mixed by intent: the foreign letters are look-alikes, and no separator parts the scripts (``USB-кабель``)."""
    foreign = [character for character in word if not character.isascii() and scripts_of(character) - {"LATIN"}]
    if not foreign or any(separator in word for separator in "-/_.&+"):
        return False
    return all(character in _LOOKS_LIKE or character in _CAPITALS for character in foreign)


def _invisible_inside(word: str) -> bool:
    for before, character, after in zip(word, word[1:], word[2:], strict=False):
        if is_invisible(character) and before.isalpha() and after.isalpha() and character != "\u00ad":
            return True
    return False


def _is_styled(word: str) -> bool:
    styled = sum(1 for character in word if 0x1D400 <= ord(character) <= 0x1D7FF or 0x24B6 <= ord(character) <= 0x24E9)
    return styled >= 2


def edit_distance_at_most_one(left: str, right: str) -> bool:
    """Whether one insertion, deletion, change or swap of neighbours (or none) turns one into the other. Linear."""
    if left == right:
        return True
    if abs(len(left) - len(right)) > 1:
        return False
    if len(left) > len(right):
        left, right = right, left
    start = 0
    while start < len(left) and left[start] == right[start]:
        start += 1
    if len(left) < len(right):
        return left[start:] == right[start + 1 :]
    if left[start + 1 :] == right[start + 1 :]:
        return True
    return left[start : start + 2] == right[start : start + 2][::-1] and left[start + 2 :] == right[start + 2 :]
