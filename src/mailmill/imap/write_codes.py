"""The response codes that answer changes: COPYUID and APPENDUID (RFC 4315 §3), MODIFIED (RFC 7162 §3.1.3). Pure.

The server writes them and we expand them: a few bytes may stand for four thousand million UIDs. So sets are measured as
ranges before they become numbers, and what cannot be true is None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from mailmill.model import Uid
from mailmill.uid_set import UidSet

# More than any mailbox is copied at once; as numbers this is some 40 MB.
_MOST_COPIES = 250_000
_MOST_SET_BYTES = 4 * 1024 * 1024
_MAX_NUMBER = 2**32 - 1
_RANGE = re.compile(r"([1-9]\d{0,9})(?::([1-9]\d{0,9}))?", re.ASCII)


class AppendUid(NamedTuple):
    uid_validity: int
    uid: Uid


class CopyUid(NamedTuple):
    uid_validity: int
    uids: Mapping[Uid, Uid]


def parse_append_uid(argument: str) -> AppendUid | None:
    """From what follows ``APPENDUID`` in the brackets. None where it is not a UIDVALIDITY and one UID."""
    words = argument.split()
    if len(words) != 2:
        return None
    uid_validity, uid = _ranges(words[0]), _ranges(words[1])
    if uid_validity is None or uid is None or len(uid_validity) != 1 or len(uid) != 1:
        return None
    [(generation, same_generation)], [(low, high)] = uid_validity, uid
    return AppendUid(generation, Uid(low)) if generation == same_generation and low == high else None


def parse_copy_uid(argument: str) -> CopyUid | None:
    """From what follows ``COPYUID``: the n-th UID of the first set was copied to the n-th of the second, in the order
    in which they stand there. None where that cannot be.
    """
    words = argument.split()
    if len(words) != 3:
        return None
    uid_validity, sources, targets = map(_ranges, words)
    if uid_validity is None or sources is None or targets is None:
        return None
    if len(uid_validity) != 1 or uid_validity[0][0] != uid_validity[0][1]:
        return None
    count = _count(sources)
    if count != _count(targets) or count > _MOST_COPIES:
        return None
    uids = dict(zip(_numbers(sources), _numbers(targets), strict=True))
    # A UID that stands there twice says two things of one message.
    if len(uids) != count or len(set(uids.values())) != count:
        return None
    return CopyUid(uid_validity[0][0], uids)


def parse_modified(argument: str) -> UidSet | None:
    """From what follows ``MODIFIED``. None where it cannot be read: then nothing is known of any of them."""
    ranges = _ranges(argument)
    return None if ranges is None else UidSet.from_ranges(ranges)


def _ranges(text: str) -> list[tuple[int, int]] | None:
    """In the order of the text, each ascending (``4:2`` is ``2:4``, RFC 9051 §9). None where it is no set."""
    if len(text) > _MOST_SET_BYTES:
        return None
    ranges = []
    for word in text.split(","):
        found = _RANGE.fullmatch(word)
        if found is None:
            return None
        low, high = int(found[1]), int(found[2] or found[1])
        if max(low, high) > _MAX_NUMBER:
            return None
        ranges.append((min(low, high), max(low, high)))
    return ranges


def _count(ranges: list[tuple[int, int]]) -> int:
    return sum(high - low + 1 for low, high in ranges)


def _numbers(ranges: list[tuple[int, int]]) -> list[Uid]:
    return [Uid(number) for low, high in ranges for number in range(low, high + 1)]
