"""Letters that pass for others: skeletons, disguised words, small edit distances. Pure."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from mailmill.processing.threat.evidence.scripts import scripts_of
from mailmill.processing.threat.knowledge.confusables import CAPITALS, DIGITS, LOOKS_LIKE, PAIRS

MAX_CHARS = 300

_LETTERS = str.maketrans({**LOOKS_LIKE, **CAPITALS})
_DIGITS = str.maketrans(DIGITS)


@lru_cache(maxsize=4_096)
def skeleton(text: str) -> str:
    """Lower-case text with accents off and look-alike letters turned to the Latin ones they pass for.

    Digits stay: see ``folded``. Styled letters (mathematical bold, full width, circled) become plain ones (NFKC).
    """
    text = text[:MAX_CHARS]
    if text.isascii():
        return text.lower()
    text = text.translate(_LETTERS)
    text = unicodedata.normalize("NFKD", text).casefold().translate(_LETTERS)
    return "".join(
        character for character in text if not unicodedata.combining(character) and not is_invisible(character)
    )


@lru_cache(maxsize=4_096)
def folded(text: str) -> str:
    """The skeleton with digits read as letters and pairs as one (``rn`` → ``m``): for comparison only."""
    text = skeleton(text).translate(_DIGITS).replace("i", "l")
    for pair, one in PAIRS:
        text = text.replace(pair, one)
    return text


def is_invisible(character: str) -> bool:
    """Format characters that show nothing: zero-width, soft hyphen, bidi marks, word joiners, fillers."""
    return unicodedata.category(character) == "Cf" or character in "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"


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
    return all(character in LOOKS_LIKE or character in CAPITALS for character in foreign)


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


def edits(left: str, right: str, most: int) -> int | None:
    """How many insertions, deletions, changes and swaps of neighbours turn one into the other, if at most ``most``.

    Damerau's distance in its restricted form (no part is edited twice), over a band: linear times ``most``.
    """
    if abs(len(left) - len(right)) > most or max(len(left), len(right)) > MAX_CHARS:
        return None
    far = most + 1
    before: list[int] = []
    last = [column if column <= most else far for column in range(len(right) + 1)]
    for row, letter in enumerate(left, 1):
        current = [far] * (len(right) + 1)
        if row <= most:
            current[0] = row
        for column in range(max(1, row - most), min(len(right), row + most) + 1):
            other = right[column - 1]
            cost = min(last[column] + 1, current[column - 1] + 1, last[column - 1] + (letter != other))
            if row > 1 and column > 1 and letter == right[column - 2] and left[row - 2] == other:
                cost = min(cost, before[column - 2] + 1)
            current[column] = min(cost, far)
        if min(current) > most:
            return None
        before, last = last, current
    return last[-1] if last[-1] <= most else None
