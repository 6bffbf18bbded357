"""Whether a display name and its address have anything in common, as those of people and companies nearly always do."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARS = 300

_WORDS = re.compile(r"[a-z0-9]+")
_LETTERS = re.compile(r"[a-z]+")
_LIKENESS = 4  # so many letters alike at the beginning: Rob and robert, Ott and ottinger are not told apart by less


def in_common(name: str, address: str) -> bool | None:
    """Whether a word, its beginning, or the initials of ``name`` stand in ``address``, or a piece of that in the name.

    None where it cannot be told: no word in Latin letters, no address.
    """
    words = [word for word in _WORDS.findall(_folded(name)) if len(word) > 1]
    lettered = [word for word in words if _LETTERS.search(word)]
    local, _, domain = _folded(address).partition("@")
    pieces = _LETTERS.findall(f"{local}.{domain.rpartition('.')[0]}")
    if not lettered or not pieces:
        return None
    text = "".join(pieces)
    joined = "".join(words)
    if any(len(word) >= 3 and word in text for word in lettered):
        return True
    if any(len(piece) >= 3 and piece in joined for piece in pieces):
        return True
    beginnings = {word[:_LIKENESS] for word in lettered if len(word) >= _LIKENESS}
    if any(piece[:_LIKENESS] in beginnings for piece in pieces if len(piece) >= _LIKENESS):
        return True
    initials = "".join(word[0] for word in _WORDS.findall(_folded(name)))
    if pieces[0] == initials[:1]:
        return True
    return len(initials) >= 2 and any(initials in piece or piece in initials for piece in pieces if len(piece) >= 2)


def _folded(text: str) -> str:
    """Small Latin letters without their accents."""
    decomposed = unicodedata.normalize("NFKD", text[:MAX_CHARS].lower())
    return "".join(character for character in decomposed if not unicodedata.combining(character))
