"""Whose name is this? Brand names in words and in domains; used wherever somebody may pose as another. Pure.

Domains are compared by their registrable label. What a label is told to imitate must not belong to the brand: one of
its domains, or its name under a country's suffix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from mailmill.processing.threat.evidence.brand_index import (
    BY_FOLDED_LABEL,
    BY_LABEL,
    BY_LENGTH,
    BY_NAME,
    BY_WORD_NAME,
    FIRST_WORDS,
    LONGEST_NAME_WORDS,
    LONGEST_WORD_NAME_WORDS,
    SELF_HOSTED,
    SHORTEST_INSIDE,
    belongs_to,
    is_distinctive_label,
    owner_of,
)
from mailmill.processing.threat.evidence.hosts import clean_host, ends_in, organisation_of, split_host
from mailmill.processing.threat.evidence.lookalike import edits, folded, skeleton
from mailmill.processing.threat.evidence.scripts import Restriction, restriction, scripts_of
from mailmill.processing.threat.knowledge.brands import (
    BAIT_WORDS,
    FILLER_WORDS,
    HONEST_NEIGHBOURS,
    SECOND_DOMAIN_WORDS,
    STRONG_BAIT_WORDS,
    Brand,
)
from mailmill.processing.threat.knowledge.confusables import TWINS
from mailmill.processing.threat.knowledge.reference import RISKY_SUFFIXES
from mailmill.processing.threat.knowledge.web_services import COMPANY_PLATFORMS

__all__ = [
    "Claim",
    "belongs_to",
    "brand_at",
    "brand_inside",
    "brand_named",
    "brand_under_other_suffix",
    "carries_name",
    "imitated",
    "imitates",
    "is_brands_own",
    "mixed_script_label",
    "near_miss",
]

_WORDS = re.compile(r"[^\W_]+(?:[.'&+-][^\W_]+)*\+?")
_PIECES = re.compile(r"[.-]")
_SHORTEST_TWO_EDITS = 12  # letters of a name that stays itself with two of them changed
_SHORTEST_KNOWN = 5
_LONGEST_GLUED = 40
# Suffixes in which letters of these alphabets are at home.
_CYRILLIC_SUFFIXES = frozenset({"ru", "su", "ua", "by", "bg", "rs", "mk", "kz", "kg", "mn", "me", "ba"})


@dataclass(frozen=True, slots=True)
class Claim:
    """A brand found in a display name; ``whole``: the name says nothing else but words such as "support"."""

    brand: Brand
    whole: bool


@lru_cache(maxsize=4_096)
def brand_named(text: str) -> Claim | None:
    """The brand that a display name claims to be, or None. Look-alike letters and digits are seen through."""
    words = _WORDS.findall(skeleton(text[:200]))[:30]
    if not words:
        return None
    for size in range(min(LONGEST_NAME_WORDS, len(words)), 0, -1):
        for start in range(len(words) - size + 1):
            brand = BY_NAME.get(" ".join(words[start : start + size]))
            if brand is not None:
                rest = words[:start] + words[start + size :]
                return Claim(brand, all(word in FILLER_WORDS or not word.isalpha() for word in rest))
    left = [word for word in words if word not in FILLER_WORDS and not word.isdigit()]
    brand = BY_WORD_NAME.get(" ".join(left))
    if brand is not None:
        return Claim(brand, whole=True)
    # "C o i n b a s e": letters set apart are no words, and "a" is no filler then.
    spelled = all(len(word) == 1 for word in words)
    joined = BY_FOLDED_LABEL.get(folded("".join(words if spelled else left)))
    return Claim(joined, whole=True) if joined is not None else None


def brand_at(words: list[str], start: int) -> tuple[Brand, int] | None:
    """The brand whose name, ambiguous ones too, begins at that word of a skeleton's words, and how many words it
    takes."""
    if start >= len(words) or words[start] not in FIRST_WORDS:
        return None
    for size in range(min(max(LONGEST_NAME_WORDS, LONGEST_WORD_NAME_WORDS), len(words) - start), 0, -1):
        name = " ".join(words[start : start + size])
        brand = BY_NAME.get(name) or BY_WORD_NAME.get(name)
        if brand is not None:
            return (brand, size)
    return None


def is_brands_own(host: str) -> bool:
    """Whether a host belongs to one of the brands."""
    return owner_of(host) is not None


def carries_name(brand: Brand, host: str) -> bool:
    """Whether the brand's name is part of the registrable label: a branch or a second domain, or made to look like
    one."""
    label = skeleton(split_host(host)[1])
    return any(name in label for name in (skeleton(one).replace(" ", "") for one in brand.names) if len(name) >= 4)


@lru_cache(maxsize=8_192)
def imitated(host: str) -> tuple[Brand, str] | None:
    """(brand, how) if the registrable label of a host passes for a brand's: look-alike letters, digits for letters,
    alone or beside words such as "login"."""
    host = clean_host(host)
    _, label, suffix = split_host(host)
    if not suffix or owner_of(host) is not None:
        return None
    brand = BY_LABEL.get(skeleton(label))
    if brand is not None:
        return (brand, "look-alike letters") if skeleton(label) != label else None
    how = "digits for letters" if any(character.isdigit() for character in label) else "look-alike letters"
    brand = _disguised(label)
    if brand is not None:
        return (brand, how)
    pieces = _PIECES.split(label)
    if len(pieces) < 2 or any(skeleton(piece) in BY_LABEL for piece in pieces):
        return None
    for piece in pieces:
        brand = _disguised(piece)
        if brand is not None and all(_is_bait(skeleton(other)) for other in pieces if other != piece):
            return (brand, how)
    return None


def _disguised(label: str) -> Brand | None:
    """The brand whose label this one becomes with look-alikes read as what they pass for; words as they are are not."""
    if len(label) < _SHORTEST_KNOWN or label in HONEST_NEIGHBOURS:
        return None
    return BY_FOLDED_LABEL.get(folded(label))


@lru_cache(maxsize=8_192)
def near_miss(host: str) -> str | None:
    """The brand's label that the registrable label of a host is one edit away from (two where it is long), or None."""
    host = clean_host(host)
    _, label, suffix = split_host(host)
    plain = skeleton(label)
    if not suffix or "-" in plain or plain in HONEST_NEIGHBOURS or plain in BY_LABEL or owner_of(host) is not None:
        return None
    for length in range(len(plain) - 2, len(plain) + 3):
        most = 2 if min(length, len(plain)) >= _SHORTEST_TWO_EDITS else 1
        if abs(length - len(plain)) > most:
            continue
        for known in BY_LENGTH.get(length, ()):
            if known[0] == plain[:1] and edits(plain, known, most) is not None:
                return known
    return None


@lru_cache(maxsize=8_192)
def brand_inside(host: str) -> Brand | None:
    """The brand whose name stands in a host that is not its own: as a subdomain, as a part of a hyphenated label, or
    glued to words such as "login" (``securepaypal-login.example``). Short and ambiguous names count beside such words
    alone."""
    host = clean_host(host)
    subdomain, label, suffix = split_host(host)
    if not suffix or owner_of(host) is not None:
        return None
    # A company's own room in software that it rents.
    named = label if ends_in(host, COMPANY_PLATFORMS) else f"{subdomain}.{label}"
    pieces = _PIECES.split(skeleton(named))
    for piece in pieces:
        brand = BY_LABEL.get(piece)
        if brand is None or len(piece) < SHORTEST_INSIDE or piece in SELF_HOSTED or piece == label:
            continue
        if is_distinctive_label(piece):
            return brand
    return _combined(skeleton(label))


@lru_cache(maxsize=8_192)
def brand_under_other_suffix(host: str) -> Brand | None:
    """The brand whose very label stands under a suffix that is not its own (``paypal.top``). Ambiguous and short names
    count under suffixes known for abuse alone."""
    host = clean_host(host)
    _, label, suffix = split_host(host)
    brand = BY_LABEL.get(label)
    if brand is None or not suffix or owner_of(host) is not None or label in SELF_HOSTED:
        return None
    telling = is_distinctive_label(label) and len(label) >= SHORTEST_INSIDE
    return brand if telling or suffix.rpartition(".")[2] in RISKY_SUFFIXES else None


def _combined(label: str) -> Brand | None:
    """The brand in a label whose rest is bait: ``dhl-tracking``, ``apple-id-verify``, ``securenetflix2024``."""
    pieces = label[:_LONGEST_GLUED].split("-")
    if len(pieces) > 1:
        for piece in pieces:
            brand = BY_LABEL.get(piece)
            others = [other for other in pieces if other != piece]
            if brand is not None and others and all(_is_bait(other) for other in others):
                return brand if _baits(piece, others) else None
        return None
    for cut in range(3, len(label) - 2):
        for name, rest in ((label[:cut], label[cut:]), (label[cut:], label[:cut])):
            brand = BY_LABEL.get(name)
            if brand is None or len(name) < SHORTEST_INSIDE or not is_distinctive_label(name):
                continue
            if len(rest) > 2 and rest not in SECOND_DOMAIN_WORDS and _is_bait(rest):
                return brand
    return None


def _baits(name: str, others: list[str]) -> bool:
    """Whether the words beside a name make it bait: any for a distinctive name; for one that is also a word, one that
    asks for something, and where it is short a further one (``free-account``, ``orange-shop`` are none)."""
    words = [other for other in others if len(other) > 1 and other.isalpha()]
    if is_distinctive_label(name):
        return any(len(word) > 2 and word not in SECOND_DOMAIN_WORDS for word in words)
    return (len(words) > 1 or len(name) >= SHORTEST_INSIDE) and any(word in STRONG_BAIT_WORDS for word in words)


@lru_cache(maxsize=4_096)
def _is_bait(text: str) -> bool:
    """Whether the text is made of bait words and digits alone."""
    text = text[:_LONGEST_GLUED].strip("0123456789")
    reached = {0}
    for end in range(1, len(text) + 1):
        if any(text[start:end] in BAIT_WORDS for start in reached if end - start <= 16):
            reached.add(end)
    return len(text) in reached


@lru_cache(maxsize=8_192)
def imitates(host: str, known: str) -> str:
    """How the registrable label of a host imitates that of an organisation we know: in words, or "".

    Both are domains, neither a brand's. Labels under five letters are too short to tell.
    """
    label, known_label = split_host(host)[1], split_host(known)[1]
    if len(known_label) < _SHORTEST_KNOWN or not label or organisation_of(host) == organisation_of(known):
        return ""
    if label == known_label:
        return ""
    if folded(label) == folded(known_label):
        return "look-alike letters"
    most = 2 if len(known_label) >= _SHORTEST_TWO_EDITS else 1
    plain = skeleton(label)
    if plain[:1] == known_label[:1] and edits(plain, known_label, most) is not None:
        return "a letter off"
    if plain.replace("-", "") == known_label.replace("-", ""):
        return "hyphens"
    before, found, after = plain.partition(known_label)
    rest = (before + after).replace("-", "")
    return "words added" if found and len(rest) > 2 and _is_bait(rest) else ""


@lru_cache(maxsize=8_192)
def mixed_script_label(host: str) -> str:
    """The first label of a host that mixes Latin with an alphabet like it, or is all look-alikes of Latin letters; or
    ""."""
    host = clean_host(host)
    suffix = host.rpartition(".")[2]
    for label in host.split("."):
        if label.isascii():
            continue
        if restriction(label) is Restriction.UNRESTRICTED:
            return label
        scripts = scripts_of(label)
        if not scripts or "LATIN" in scripts or scripts_of(suffix) == scripts:
            continue
        plain = skeleton(label)
        if plain.isascii() and plain in BY_LABEL:
            return label
        at_home = suffix in _CYRILLIC_SUFFIXES and "CYRILLIC" in scripts
        if not at_home and len(label) >= 4 and all(one in TWINS for one in label if one.isalpha()):
            return label
    return ""
