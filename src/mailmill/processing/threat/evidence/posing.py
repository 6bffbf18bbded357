"""Does a message speak as a brand? Signs that its writer claims to be one, rather than to talk of one. Pure, bounded.

Newsletters, invoices and blogs name brands all the time; whoever poses as one begins the subject with its name, signs
as its team, claims its copyright, greets its customers, or shows its logo.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mailmill.processing.threat.evidence.brand_index import FIRST_WORDS, is_distinctive_name
from mailmill.processing.threat.evidence.impersonation import brand_at, brand_named
from mailmill.processing.threat.evidence.lookalike import skeleton
from mailmill.processing.threat.knowledge.brands import FILLER_WORDS, Brand
from mailmill.processing.threat.knowledge.posing_words import (
    ACCOUNT_WORDS,
    CUSTOMER_WORDS,
    FORWARD_MARKS,
    GREETINGS,
    LEGAL_WORDS,
    POSSESSIVES,
    SIGN_OFFS,
    TEAM_WORDS,
)

MAX_FIRST_LINES = 40
MAX_LAST_LINES = 40
MAX_LINE_CHARS = 240
MAX_LOGOS = 3
_MAX_SIGNATURE_WORDS = 8

_WORDS = re.compile(r"[^\W_]+(?:[.'&+-][^\W_]+)*\+?")
_RIGHTS = re.compile(r"(?:©|\(c\)|\bcopyright\b)(.{0,120})", re.IGNORECASE)
_REPLY_MARK = re.compile(r"^(?:\s{0,3}(?:re|fw|fwd|aw|wg|tr|rv|sv|vs)\s?:\s{0,3}){1,5}", re.IGNORECASE)


_BESIDE_A_SIGNATURE = FILLER_WORDS | LEGAL_WORDS | TEAM_WORDS | POSSESSIVES


class Sign(StrEnum):
    """How a message speaks as a brand."""

    NAME = "its name"
    MENTION = "its name in the subject"
    SUBJECT = "its subject"
    ACCOUNT = "an account with it"
    LOGO = "its logo"
    GREETING = "a greeting to its customers"
    SIGNATURE = "a signature"
    RIGHTS = "a copyright line"


STRONG = frozenset({Sign.GREETING, Sign.SIGNATURE, Sign.RIGHTS})
"""Signs that nobody gives who is not the brand."""


@dataclass(slots=True)
class Posing:
    """A brand that the message speaks as, and by which signs; ``shown`` are the words of the strongest."""

    brand: Brand
    signs: set[Sign] = field(default_factory=set)
    shown: str = ""

    @property
    def is_plain(self) -> bool:
        """Two signs of which one is strong, or three; a mention is none."""
        signs = self.signs - {Sign.MENTION}
        return len(signs) >= 3 or (len(signs) == 2 and bool(signs & STRONG))

    @property
    def is_likely(self) -> bool:
        """One strong sign, or two; a mention beside the name alone."""
        signs = self.signs if Sign.NAME in self.signs else self.signs - {Sign.MENTION}
        return bool(signs & STRONG) or len(signs) >= 2


def posings(name: str, subject: str, text: str, image_texts: Sequence[str]) -> list[Posing]:
    """Every brand that the message speaks as, the one with most signs first."""
    found: dict[str, Posing] = {}
    for brand, sign, shown in _signs(name, subject, text, image_texts):
        posing = found.setdefault(brand.name, Posing(brand))
        if not posing.shown or (sign in STRONG and not posing.signs & STRONG):
            posing.shown = shown
        posing.signs.add(sign)
    return sorted(found.values(), key=lambda one: (-len(one.signs), -len(one.signs & STRONG), one.brand.name))


def _signs(name: str, subject: str, text: str, image_texts: Sequence[str]) -> Iterator[tuple[Brand, Sign, str]]:
    claim = brand_named(name) if name else None
    if claim is not None:
        yield claim.brand, Sign.NAME, name
    yield from _of_subject(_REPLY_MARK.sub("", subject[:MAX_LINE_CHARS]))
    for alternative in image_texts[:MAX_LOGOS]:
        logo = brand_named(alternative.lower().replace("logo", " "))
        if logo is not None and logo.whole and not logo.brand.everywhere:
            yield logo.brand, Sign.LOGO, alternative
    lines = [line[:MAX_LINE_CHARS] for line in _own_lines(text)]
    first = lines[:MAX_FIRST_LINES]
    for line in first:
        yield from _of_first_line(line)
    last = lines[MAX_FIRST_LINES:][-MAX_LAST_LINES:] if len(lines) > MAX_FIRST_LINES else []
    for before, line in _with_before([*first, *last]):
        yield from _of_last_line(before, line)


def _own_lines(text: str) -> Iterator[str]:
    """Lines up to what is forwarded or quoted: that speaks as its own writer."""
    for line in text.split("\n"):
        plain = line.strip().lower()
        if any(mark in plain for mark in FORWARD_MARKS):
            return
        if plain and not plain.startswith((">", "|")):
            yield line


def _of_subject(subject: str) -> Iterator[tuple[Brand, Sign, str]]:
    words = _words_of(subject)[:30]
    begins = brand_at(words, 0)
    if begins is not None and is_distinctive_name(" ".join(words[: begins[1]])):
        yield begins[0], Sign.SUBJECT, subject
        return
    for brand in _owned(words):
        yield brand, Sign.SUBJECT, subject
    for start in range(len(words)):
        found = brand_at(words, start)
        if found is not None and is_distinctive_name(" ".join(words[start : start + found[1]])):
            yield found[0], Sign.MENTION, subject


def _of_first_line(line: str) -> Iterator[tuple[Brand, Sign, str]]:
    words = _words_of(line)[:60]
    if words and words[0] in GREETINGS:
        for start in range(1, min(4, len(words))):
            found = brand_at(words, start)
            if found is not None and set(words[1 : start + found[1] + 3]) & CUSTOMER_WORDS:
                yield found[0], Sign.GREETING, line
                break
    for brand in _owned(words):
        yield brand, Sign.ACCOUNT, line


def _owned(words: list[str]) -> Iterator[Brand]:
    """Brands of "your X account", "Ihr X-Konto", "votre compte X"."""
    for position, word in enumerate(words[:-1]):
        if word not in POSSESSIVES:
            continue
        found = brand_at(words, position + 1)
        if found is not None:
            # The last word of the name too, for "Apple ID" is one.
            after = words[position + found[1] : position + 3 + found[1]]
            if any(one in ACCOUNT_WORDS for one in after):
                yield found[0]
        elif words[position + 1] in ACCOUNT_WORDS:
            found = brand_at(words, position + 2)
            if found is not None and is_distinctive_name(" ".join(words[position + 2 : position + 2 + found[1]])):
                yield found[0]


def _of_last_line(before: str, line: str) -> Iterator[tuple[Brand, Sign, str]]:
    match = _RIGHTS.search(line)
    if match:
        owner = _words_of(match.group(1))[:12]
        while owner and (owner[0][0].isdigit() or owner[0] in ("copyright", "by", "c", "the")):
            owner.pop(0)
        found = brand_at(owner, 0)
        if found is not None and all(_goes_with_name(word) for word in owner[found[1] : found[1] + 1]):
            yield found[0], Sign.RIGHTS, line
        return
    words = _words_of(line)
    if not 1 <= len(words) <= _MAX_SIGNATURE_WORDS or line.strip()[0].islower():
        return
    signed_off = any(before.lower().strip(" ,.!").startswith(one) for one in SIGN_OFFS)
    for start in range(len(words)):
        found = brand_at(words, start)
        if found is None:
            continue
        rest = words[:start] + words[start + found[1] :]
        team = bool(TEAM_WORDS.intersection(rest))
        plain = all(word in _BESIDE_A_SIGNATURE for word in rest)
        if plain and (team or signed_off):
            yield found[0], Sign.SIGNATURE, line
        return


def _words_of(text: str) -> list[str]:
    """Words of the text's skeleton; compounds in their parts ("paypal-konto", "l'equipe"), unless a name is one."""
    words: list[str] = []
    for word in _WORDS.findall(skeleton(text)):
        if word not in FIRST_WORDS:
            word = word[2:] if word[:2] in ("l'", "d'") else word
            words.extend(word.split("-"))
        else:
            words.append(word)
    return words


def _goes_with_name(word: str) -> bool:
    return word in FILLER_WORDS or word in LEGAL_WORDS or word[0].isdigit()


def _with_before(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    before = ""
    for line in lines:
        yield before, line
        before = line
