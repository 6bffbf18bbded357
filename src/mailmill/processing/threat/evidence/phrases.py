"""Finds the phrases of a book in a text, in one pass over its words. Pure; the work is linear in the words.

A phrase is written as words, read as :func:`~.plain_words.plain_words` reads any text, with these signs:

- ``suspend*``: any word that begins so (two letters at least);
- ``your|the``: either word; ``on_hold|held``: two words, or one;
- ``your?``: the word, or nothing;
- ``..``: up to three words of any kind;
- ``#``: a number; ``<wallet>``: an address of a crypto-currency.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Final

from mailmill.processing.threat.evidence.plain_words import PlainWords, plain_words

MAX_OPEN = 256
"""Phrases begun and not ended that are followed at once; what comes beyond is not followed."""
MAX_GAP_WORDS = 3
MAX_VARIANTS = 16

_GAP: Final = ".."
_NUMBER: Final = "#"
_WALLET: Final = "<wallet>"
_SHORTEST_STEM = 2
_SHORTEST_WORN = 3
# Base58, bech32 or hexadecimal, after case is gone: Bitcoin, Ethereum, Tron, Monero (cut).
_WALLET_WORD = re.compile(
    r"(?:bc1[a-z0-9]{20,60}|[13][a-z0-9]{25,34}|0x[0-9a-f]{40}|t[a-z0-9]{33}|4[0-9ab][a-z0-9]{78})"
)
_SHORTEST_WALLET = 26
_NUMBER_WORD = re.compile(r"\d{1,12}(?:h|hr|hrs|st|nd|rd|th|k|m)?")
_DIGITS = str.maketrans({"0": "o", "1": "l", "3": "e", "4": "a", "5": "s", "7": "t"})

_Choice = frozenset[str]  # the words any of which may stand at one place of a phrase


@dataclass(frozen=True, slots=True)
class Hit:
    """A phrase of ``group`` on the words ``start`` up to, not including, ``end``."""

    group: str
    start: int
    end: int


@dataclass(slots=True)
class _Node:
    """A place within phrases: the choices that may come next, and the groups whose phrase ends here."""

    next: dict[int, _Node] = field(default_factory=dict)
    after_gap: _Node | None = None
    groups: tuple[str, ...] = ()


class PhraseBook:
    """Phrases in groups, ready to be searched for.

    Raises ValueError for a phrase that is empty, starts or ends with a gap, or has more than ``MAX_VARIANTS`` forms.
    """

    def __init__(self, groups: Mapping[str, Iterable[str]]) -> None:
        self._root = _Node()
        self._choices: dict[_Choice, int] = {}
        self._exact: dict[str, list[int]] = {}
        self._stems: dict[str, list[int]] = {}
        for group, phrases in groups.items():
            for phrase in phrases:
                for form in _forms(phrase):
                    self._add(group, form)
        self._stem_lengths = sorted({len(stem) for stem in self._stems})
        self._worn: dict[str, list[int]] = {}
        for word, numbers in self._exact.items():
            if len(word) >= _SHORTEST_WORN and "l" in _without_i(word):
                self._worn.setdefault(_without_i(word), []).extend(numbers)
        self._meaning = lru_cache(maxsize=4_096)(self._read_word)

    def find(self, text: PlainWords) -> list[Hit]:
        """Every place where a phrase of a group ends, in order; of several of one group that end there, the longest."""
        hits: list[Hit] = []
        open_phrases: list[tuple[_Node, int, int]] = []  # where in the book, words of a gap left, first word
        for position, word in enumerate(text.words):
            choices, begun = self._meaning(word)
            if not begun and not open_phrases:
                continue
            reached = [(node, position) for node in begun]
            waiting = []
            for node, gap_left, start in open_phrases:
                if choices:
                    for choice, after in node.next.items():
                        if choice in choices:
                            reached.append((after, start))
                if gap_left:
                    waiting.append((node, gap_left - 1, start))
            if not reached:
                open_phrases = waiting
                continue
            ended: dict[str, int] = {}
            for node, start in reached:
                for group in node.groups:
                    ended[group] = min(start, ended.get(group, start))
                if node.next:
                    waiting.append((node, 0, start))
                if node.after_gap is not None:
                    waiting.append((node.after_gap, MAX_GAP_WORDS, start))
            for group, start in ended.items():
                hits.append(Hit(group, start, position + 1))
            open_phrases = waiting[-MAX_OPEN:]
        return hits

    def _read_word(self, word: str) -> tuple[frozenset[int], tuple[_Node, ...]]:
        """The choices that a word fulfils, and the phrases that it begins."""
        choices = self._choices_of(word)
        begun = (self._root.next.get(choice) for choice in choices)
        return (choices, tuple(node for node in begun if node is not None))

    def _choices_of(self, word: str) -> frozenset[int]:
        """The choices that a word fulfils; a digit among letters stands for the letter it looks like, too,
        and where nothing else is meant, i and l for each other."""
        found = set(self._exact.get(word, ()))
        found.update(self._by_stem(word))
        if word[0].isdigit():
            if _NUMBER_WORD.fullmatch(word):
                found.update(self._exact.get(_NUMBER, ()))
        elif not word.isalpha() and (lettered := word.translate(_DIGITS)) != word:
            found.update(self._exact.get(lettered, ()))
            found.update(self._by_stem(lettered))
        if not found and word.isascii() and ("l" in word or "i" in word):
            found.update(self._worn.get(_without_i(word), ()))
        if len(word) >= _SHORTEST_WALLET and _WALLET_WORD.fullmatch(word):
            found.update(self._exact.get(_WALLET, ()))
        return frozenset(found)

    def _by_stem(self, word: str) -> Iterator[int]:
        for length in self._stem_lengths:
            if length > len(word):
                return
            yield from self._stems.get(word[:length], ())

    def _add(self, group: str, form: list[_Choice | None]) -> None:
        node = self._root
        for choice in form:
            if choice is None:
                node.after_gap = node.after_gap or _Node()
                node = node.after_gap
            else:
                node = node.next.setdefault(self._number(choice), _Node())
        if group not in node.groups:
            node.groups = (*node.groups, group)

    def _number(self, choice: _Choice) -> int:
        number = self._choices.get(choice)
        if number is None:
            number = self._choices[choice] = len(self._choices)
            for word in choice:
                where = self._stems if word.endswith("*") else self._exact
                where.setdefault(word.removesuffix("*"), []).append(number)
        return number


def _without_i(word: str) -> str:
    """i and l as one letter: a capital I is worn for an l, and the other way round ("Iogin", "lmportant")."""
    return word.replace("i", "l")


def _forms(phrase: str) -> Iterator[list[_Choice | None]]:
    """The phrase as places, each a choice of words or a gap (None); once for each way to leave out or replace by
    several words."""
    ways = [_ways(piece) for piece in phrase.split()]
    count = 1
    for one in ways:
        count *= len(one)
    if not ways or count > MAX_VARIANTS:
        raise ValueError(f"the phrase {phrase!r} has {count if ways else 0} forms; it may have 1 to {MAX_VARIANTS}")
    for chosen in product(*ways):
        form = [place for places in chosen for place in places]
        if not form or form[0] is None or form[-1] is None:
            raise ValueError(f"the phrase {phrase!r} starts or ends with a gap, or may be nothing")
        yield form


def _ways(piece: str) -> list[list[_Choice | None]]:
    if piece == _GAP:
        return [[None]]
    if "?" in piece and "|" in piece:
        raise ValueError(f"{piece!r} may not be left out: an option is one word")
    single: set[str] = set()
    ways: list[list[_Choice | None]] = []
    for one in piece.removesuffix("?").split("|"):
        words = _words_of(one)
        if len(words) == 1:
            single.update(words)
        else:
            ways.append([frozenset({word}) for word in words])
    if single:
        ways.append([frozenset(single)])
    if piece.endswith("?"):
        ways.append([])
    return ways


def _words_of(text: str) -> list[str]:
    if text in (_NUMBER, _WALLET):
        return [text]
    words = list(plain_words(text).words)
    if not words:
        raise ValueError(f"no word is left of {text!r}")
    if text.endswith("*"):
        if len(words[-1]) < _SHORTEST_STEM:
            raise ValueError(f"the stem {text!r} is shorter than {_SHORTEST_STEM} letters")
        words[-1] += "*"
    return words
