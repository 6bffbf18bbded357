"""Alphabets: which a word is written in, and which mixtures of them honest names have (UTS #39 §5). Pure."""

from __future__ import annotations

import unicodedata
from enum import IntEnum
from functools import lru_cache

MAX_CHARS = 300

# By the first word of a letter's Unicode name, which names its script; what stands here under another name is one
# script with it.
_SAME_AS = {"CJK": "HAN", "IDEOGRAPHIC": "HAN", "KATAKANA-HIRAGANA": "KATAKANA"}
# Styled forms of Latin letters and the like: no alphabet of their own.
_NO_SCRIPT = frozenset(
    {"MATHEMATICAL", "FULLWIDTH", "HALFWIDTH", "CIRCLED", "NEGATIVE", "SQUARED", "PARENTHESIZED", "MODIFIER", "MICRO",
     "OHM", "KELVIN", "ANGSTROM", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER", "FEMININE", "MASCULINE", "TURNED",
     "ROMAN", "SMALL", "SUPERSCRIPT", "SUBSCRIPT", "REGIONAL", "INFORMATION", "PLANCK", "EULER", "ALEF", "BET"}
)  # fmt: skip

_WRITTEN_TOGETHER = (
    frozenset({"LATIN", "HAN", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "HAN", "BOPOMOFO"}),
    frozenset({"LATIN", "HAN", "HANGUL"}),
)
# Alphabets whose letters pass for Latin ones: beside Latin ones in a word they are a disguise.
_LIKE_LATIN = frozenset({"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET"})


class Restriction(IntEnum):
    """How far a name mixes alphabets, roughly as UTS #39 §5.2 has it."""

    ASCII = 0
    SINGLE_SCRIPT = 1
    HIGHLY_RESTRICTIVE = 2
    MODERATELY_RESTRICTIVE = 3
    UNRESTRICTED = 4


@lru_cache(maxsize=4_096)
def scripts_of(word: str) -> frozenset[str]:
    """The scripts (``LATIN``, ``CYRILLIC``, ``HAN`` …) that the letters of a word belong to; digits belong to none."""
    if word.isascii():
        return frozenset({"LATIN"}) if any(character.isalpha() for character in word[:MAX_CHARS]) else frozenset()
    found = set()
    for character in word[:MAX_CHARS]:
        if character.isascii():
            if character.isalpha():
                found.add("LATIN")
            continue
        if character.isalpha():
            script = unicodedata.name(character, "").partition(" ")[0]
            if script and script not in _NO_SCRIPT:
                found.add(_SAME_AS.get(script, script))
    return frozenset(found)


def restriction(label: str) -> Restriction:
    """The level that a label of a host reaches. Latin beside an alphabet like it is unrestricted, whatever else."""
    if label.isascii():
        return Restriction.ASCII
    scripts = scripts_of(label)
    if len(scripts) <= 1:
        return Restriction.SINGLE_SCRIPT
    if any(scripts <= together for together in _WRITTEN_TOGETHER):
        return Restriction.HIGHLY_RESTRICTIVE
    if len(scripts) == 2 and "LATIN" in scripts and not scripts & _LIKE_LATIN:
        return Restriction.MODERATELY_RESTRICTIVE
    return Restriction.UNRESTRICTED
