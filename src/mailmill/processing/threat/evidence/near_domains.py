"""Organisational domains that pass for one another at a glance. Pure.

Sister domains of one firm look alike too (``acme-us.com`` and ``acme-uk.com``, ``acme.de`` and ``acme.be``): what
differs in a short piece of its own, or in a country's suffix, is not near.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from mailmill.processing.threat.evidence.hosts import split_host
from mailmill.processing.threat.evidence.lookalike import edit_distance_at_most_one, folded

_SHORTEST_EDITED = 6
_SHORTEST_FOLDED = 4
_SHORT_PIECE = 3
_WIDE_SUFFIXES = frozenset({"com", "net", "org"})


@lru_cache(maxsize=16_384)
def passes_for(left: str, right: str) -> bool:
    """Whether two organisational domains differ by a letter, or by letters that look alike; never for the same one."""
    _, left_label, left_suffix = split_host(left)
    _, right_label, right_suffix = split_host(right)
    if left == right or not left_suffix or not right_suffix:
        return False
    if left_suffix != right_suffix:
        # acme.co for acme.com; two countries are two branches.
        wide = bool({left_suffix, right_suffix} & _WIDE_SUFFIXES)
        return wide and left_label == right_label and edit_distance_at_most_one(left_suffix, right_suffix)
    if min(len(left_label), len(right_label)) >= _SHORTEST_FOLDED and folded(left_label) == folded(right_label):
        return True
    if min(len(left_label), len(right_label)) < _SHORTEST_EDITED:
        return False
    return edit_distance_at_most_one(left_label, right_label) and not _sisters(left_label, right_label)


def first_like(domain: str, others: Iterable[str]) -> str:
    """The first of ``others`` that ``domain`` passes for; ""."""
    return next((other for other in others if passes_for(domain, other)), "")


def _sisters(left: str, right: str) -> bool:
    left_pieces, right_pieces = left.split("-"), right.split("-")
    if len(left_pieces) == len(right_pieces) > 1:
        pairs = zip(left_pieces, right_pieces, strict=True)
        return all(max(len(one), len(other)) <= _SHORT_PIECE for one, other in pairs if one != other)
    different = {*left} ^ {*right}
    return bool(different) and all(character.isdigit() for character in different) and left[-1:].isdigit()
