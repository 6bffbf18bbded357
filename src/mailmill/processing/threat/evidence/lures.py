"""Which lures a text holds, by the phrases that stand near one another. Pure, one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from mailmill.processing.threat.evidence.phrases import Hit, PhraseBook
from mailmill.processing.threat.evidence.plain_words import MAX_CHARS, PlainWords, plain_words
from mailmill.processing.threat.knowledge.lures import Lure, read_lures

MAX_SHOWN_CHARS = 70


@dataclass(frozen=True, slots=True)
class LureText:
    """``told``: the lures by name, with the words that make them, for a person; ``counts``: how often each group of
    phrases occurs."""

    told: Mapping[str, str]
    counts: Mapping[str, int]


@lru_cache(maxsize=4)
def _book(family: str) -> tuple[tuple[Lure, ...], PhraseBook]:
    known = read_lures(family)
    return known.lures, PhraseBook(known.groups)


# The detectors of a family ask for the same text one after the other.
@lru_cache(maxsize=8)
def read_lure_text(family: str, subject: str, text: str) -> LureText:
    """The lures of a family in a message's subject and text, read on as one."""
    lures, book = _book(family)
    words = plain_words(f"{subject}\n{text[:MAX_CHARS]}")
    hits = book.find(words)
    spans = _spans(hits)
    counts = Counter(hit.group for hit in hits)
    told: dict[str, str] = {}
    for lure in lures:
        if all(any(group in counts for group in row) for row in lure.needs):
            parts = _nearby(lure, spans)
            if parts:
                told[lure.name] = _shown(words, parts)
    for lure in lures:
        if lure.unless & told.keys():
            told.pop(lure.name, None)
    return LureText(told, counts)


@lru_cache(maxsize=4)
def told_of_known(family: str) -> frozenset[str]:
    """Names of a family's lures that are told of people the account knows as well."""
    return frozenset(lure.name for lure in _book(family)[0] if lure.of_known)


def _spans(hits: Iterable[Hit]) -> list[tuple[Hit, frozenset[str]]]:
    """The hits in the order in which they end, those on the same words as one; with their groups."""
    groups: dict[tuple[int, int], list[Hit]] = {}
    for hit in hits:
        groups.setdefault((hit.end, hit.start), []).append(hit)
    return [(here[0], frozenset(hit.group for hit in here)) for _, here in sorted(groups.items())]


def _nearby(lure: Lure, spans: Iterable[tuple[Hit, frozenset[str]]]) -> list[Hit]:
    """The first hits that fulfil every row of the lure within its distance, by their place; empty if there are none.

    Each row needs words of its own: what is a phrase of two groups ("business proposal"), said once, is one phrase. It
    may stand for any row that is empty, else it takes the place of the oldest, of several the pickiest.
    """
    latest: list[Hit | None] = [None] * len(lure.needs)
    for hit, groups in spans:
        rows = [row for row, needed in enumerate(lure.needs) if not needed.isdisjoint(groups)]
        if not rows:
            continue
        oldest = min(rows, key=lambda row: (_age(latest[row]), len(lure.needs[row])))
        for row in [row for row in rows if latest[row] is None] or [oldest]:
            latest[row] = hit
        found = [one for one in latest if one is not None]
        said = {(one.start, one.end) for one in found}
        if len(said) == len(latest) and hit.end - min(one.start for one in found) <= lure.within:
            return sorted(found, key=lambda one: one.start)
    return []


def _age(hit: Hit | None) -> int:
    return -1 if hit is None else hit.end


def _shown(words: PlainWords, parts: Iterable[Hit]) -> str:
    return " … ".join(f'"{words.shown(part.start, part.end)[:MAX_SHOWN_CHARS]}"' for part in parts)
