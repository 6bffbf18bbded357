"""What differs between a server and the store: two views in, gaps out. Pure.

It knows nothing of how sync plans or remembers: it is the second opinion. Differences are kept as sets of UIDs that
share one description, so that 200,000 missing messages are one gap and not 200,000 lines.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mailmill.model import INBOX, Flags, MailboxStatus, Uid
from mailmill.store.dialect import storable
from mailmill.store.verify_reads import StoredMailbox
from mailmill.uid_set import UidSet

# Shown per account; all are counted.
MOST_LISTED = 1000
# Told of a set of flags.
_MOST_FLAGS = 20


class GapKind(StrEnum):
    """What kinds of gaps there are."""

    MAILBOX_MISSING = "mailboxMissing"  # on the server and to be synced, not in the store
    MAILBOX_SURPLUS = "mailboxSurplus"  # in the store, not on the server
    GENERATION = "generation"  # another UIDVALIDITY
    CURSOR = "cursor"  # the cursor claims what is not so
    MISSING = "missing"  # on the server; the store neither holds it nor knows that it should
    PENDING = "pending"  # on the server; sync knows and will fetch it
    PARKED = "parked"  # on the server; could not be fetched, and is tried again
    SURPLUS = "surplus"  # in the store, gone on the server
    FLAGS = "flags"  # other flags
    DELETED = "deleted"  # stands in a mailbox and counts as deleted
    CONTENT = "content"  # the server's bytes are not those that were stored
    UNREADABLE = "unreadable"  # the stored bytes are gone or damaged


@dataclass(frozen=True, slots=True)
class Gap:
    """One difference. ``uids`` are the messages it is about, empty where it is about the mailbox itself."""

    kind: GapKind
    path: str
    uids: UidSet
    detail: str

    @property
    def count(self) -> int:
        """How many messages, or 1 for a mailbox."""
        return len(self.uids) or 1


class Findings:
    """Gaps being collected: the same kind, mailbox and description come together in one."""

    def __init__(self) -> None:
        self._uids: dict[tuple[GapKind, str, str], list[tuple[int, int]]] = {}

    def add(self, kind: GapKind, path: str, uids: Iterable[tuple[int, int]] = (), detail: str = "") -> None:
        """``uids`` are inclusive ranges."""
        ranges = self._uids.setdefault((kind, path, detail), [])
        for low, high in uids:
            if ranges and ranges[-1][1] + 1 == low:
                ranges[-1] = (ranges[-1][0], high)
            else:
                ranges.append((low, high))

    def add_one(self, kind: GapKind, path: str, uid: int, detail: str = "") -> None:
        self.add(kind, path, ((uid, uid),), detail)

    def extend(self, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            self.add(gap.kind, gap.path, gap.uids.ranges, gap.detail)

    def gaps(self) -> list[Gap]:
        """By mailbox, then by kind in the order of `GapKind`."""
        order = {kind: index for index, kind in enumerate(GapKind)}
        found = [
            Gap(kind, path, UidSet.from_ranges(ranges), detail) for (kind, path, detail), ranges in self._uids.items()
        ]
        return sorted(found, key=lambda gap: (gap.path, order[gap.kind], gap.uids.ranges[:1], gap.detail))


@dataclass(frozen=True, slots=True)
class ServerMailbox:
    """A mailbox as the server shows it at one moment: its status and the UIDs it lists."""

    status: MailboxStatus
    existing: UidSet


@dataclass(frozen=True, slots=True)
class Page:
    """Some UIDs of a mailbox as both sides show them. ``server``: UID → flags, None where they could not be read."""

    uids: UidSet
    server: Mapping[Uid, Flags | None] = field(default_factory=dict)
    held: Mapping[Uid, Flags] = field(default_factory=dict)


def wanted_by(globs: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path matches one of the account's globs: ``*`` is anything, ``?`` one character."""
    patterns = [
        re.compile(
            "".join(
                ".*" if character == "*" else "." if character == "?" else re.escape(character)
                for character in (INBOX if glob.upper() == INBOX else glob)
            ),
            re.DOTALL,
        )
        for glob in globs
    ]
    return lambda path: any(pattern.fullmatch(path) for pattern in patterns)


def compare_lists(
    listed: Mapping[str, bool], stored: Mapping[str, bool], wanted: Callable[[str], bool], findings: Findings
) -> list[str]:
    """Note mailboxes that only one side has; returns the paths to be looked into, by name.

    Both map paths to whether the mailbox can be selected.
    """
    for path, selectable in listed.items():
        if wanted(path) and path not in stored:
            findings.add(GapKind.MAILBOX_MISSING, path, detail="the store does not have this mailbox")
        elif wanted(path) and selectable and not stored[path]:
            findings.add(
                GapKind.MAILBOX_MISSING, path, detail="the store takes it for a mailbox that cannot be selected"
            )
    for path in stored:
        if path not in listed:
            findings.add(GapKind.MAILBOX_SURPLUS, path, detail="the server does not have this mailbox")
    return sorted(path for path, selectable in listed.items() if selectable and stored.get(path) and wanted(path))


def compare_mailbox(stored: StoredMailbox, server: ServerMailbox, findings: Findings) -> bool:
    """Note what is wrong with the cursor; False where the generations differ, so that UIDs cannot be compared."""
    path, status, existing = stored.path, server.status, server.existing
    if stored.of_old:
        of_old = "it stands in an earlier generation of the mailbox"
        findings.add(GapKind.SURPLUS, path, stored.of_old.ranges, of_old)
    if stored.uid_validity != status.uid_validity:
        detail = f"UIDVALIDITY is {status.uid_validity} on the server, {stored.uid_validity} in the store"
        if not stored.uid_validity:
            detail = "the mailbox was never synced"
        if stored.uid_validity or existing:
            findings.add(GapKind.GENERATION, path, detail=detail)
        return False
    uncovered = stored.uncovered
    if uncovered is None:
        findings.add(GapKind.CURSOR, path, detail="what is still to be fetched cannot be read")
        return True
    # Some servers name a UIDNEXT below the UIDs they list.
    uid_next = max(status.uid_next, (existing.highest or 0) + 1)
    if stored.uid_next > uid_next:
        findings.add(GapKind.CURSOR, path, detail=f"uid_next is {stored.uid_next}, the server's is {uid_next}")
    marks = (stored.highest_mod_seq, status.highest_mod_seq)
    if marks[0] is not None and marks[1] is not None and marks[0] > marks[1]:
        findings.add(GapKind.CURSOR, path, detail=f"highest_mod_seq is {marks[0]}, the server's is {marks[1]}")
    counted = len(stored.living | uncovered)
    if stored.messages != counted:
        findings.add(GapKind.CURSOR, path, detail=f"it counts {stored.messages} messages, there are {counted}")
    for uids, detail in (
        (uncovered - existing, "named as still to be fetched, but not on the server"),
        (uncovered & stored.living, "named as still to be fetched, but held"),
    ):
        if uids:
            findings.add(GapKind.CURSOR, path, uids.ranges, detail)
    if stored.undead:
        findings.add(
            GapKind.DELETED, path, stored.undead.ranges, "the message counts as deleted, but stands in this mailbox"
        )
    return True


def compare_page(stored: StoredMailbox, page: Page, findings: Findings) -> None:
    """Note which messages of a page only one side has, and where flags differ."""
    path, server, held = stored.path, page.server, page.held
    for uid in page.uids:
        here = uid in held
        if uid not in server:
            if here:
                findings.add_one(GapKind.SURPLUS, path, uid, "the server does not have this message")
        elif not here:
            kind, detail = _absence(stored, uid)
            findings.add_one(kind, path, uid, detail)
        else:
            flags = server[uid]
            if flags is not None and flags != held[uid] and _storable(flags) != held[uid]:
                detail = f"on the server {_shown(flags)}, in the store {_shown(held[uid])}"
                findings.add_one(GapKind.FLAGS, path, uid, detail)


def _absence(stored: StoredMailbox, uid: Uid) -> tuple[GapKind, str]:
    """Why a message that the server has is not held."""
    known = stored.uncovered is not None and uid in stored.uncovered
    reason = stored.parked.get(uid)
    if known and reason is not None:
        return GapKind.PARKED, f"could not be fetched: {reason}"
    if known:
        return GapKind.PENDING, "not fetched yet"
    if uid >= stored.uid_next:
        return GapKind.PENDING, "not seen by a pass yet"
    return GapKind.MISSING, "the cursor has passed it, and nothing would ever fetch it"


def _storable(flags: Flags) -> Flags:
    """As a database can hold them."""
    return frozenset(storable(flag) for flag in flags)


def _shown(flags: Flags) -> str:
    names = sorted(flags)
    text = " ".join(names[:_MOST_FLAGS])
    return f"({text}{' …' if len(names) > _MOST_FLAGS else ''})"


# -- two looks --------------------------------------------------------------------------------------------------------

_ABSENCE = frozenset({GapKind.MISSING, GapKind.PENDING, GapKind.PARKED})


def still_there(now: Iterable[Gap], before: Iterable[Gap]) -> tuple[list[Gap], list[Gap]]:
    """``now`` split into what was there ``before`` as well, and what was not.

    A message that is not held is the same gap whatever the reason has become. Flags are the same gap only while both
    sides stay as they were: of a message whose flags change all the time, each look may catch another change half way.
    """
    known: dict[tuple[object, str, str], UidSet] = {}
    for gap in before:
        key = _family(gap)
        known[key] = known.get(key, UidSet()) | gap.uids
    stayed, fresh = [], []
    for gap in now:
        uids = known.get(_family(gap))
        if uids is None:
            fresh.append(gap)
        elif not gap.uids or gap.kind is GapKind.CURSOR:
            stayed.append(gap)
        else:
            stayed += [replace(gap, uids=same)] if (same := gap.uids & uids) else []
            fresh += [replace(gap, uids=rest)] if (rest := gap.uids - uids) else []
    return stayed, fresh


def no_longer(before: Iterable[Gap], now: Iterable[Gap]) -> list[Gap]:
    """What was there ``before`` and is not any more."""
    return still_there(before, now)[1]


def _family(gap: Gap) -> tuple[object, str, str]:
    sides = gap.detail if gap.kind is GapKind.FLAGS else ""
    return (_ABSENCE if gap.kind in _ABSENCE else gap.kind, gap.path, sides)


# -- which messages to look at ----------------------------------------------------------------------------------------


def pages(uids: UidSet, size: int) -> Iterator[UidSet]:
    """``uids`` in ascending pieces of ``size``, in one walk."""
    ranges: list[tuple[int, int]] = []
    room = size
    for whole_low, high in uids.ranges:
        low = whole_low
        while low <= high:
            end = min(high, low + room - 1)
            ranges.append((low, end))
            room -= end - low + 1
            low = end + 1
            if not room:
                yield UidSet.from_ranges(ranges)
                ranges, room = [], size
    if ranges:
        yield UidSet.from_ranges(ranges)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Whose contents are compared: the ``newest`` of each mailbox and ``random`` others, or all where ``full``.

    ``seed`` makes the choice repeatable.
    """

    newest: int = 20
    random: int = 20
    full: bool = False
    seed: int | None = None

    def choose(self, uids: UidSet, path: str) -> UidSet:
        if self.full:
            return uids
        newest = uids.newest(self.newest)
        rest = uids - newest
        # Of its own for each mailbox: what one holds must not change what is chosen in another.
        source = random.Random(None if self.seed is None else f"{self.seed}\0{path}")  # noqa: S311 - a sample
        count = min(self.random, len(rest))
        return newest | _at(rest, sorted(source.sample(range(len(rest)), count)))


def _at(uids: UidSet, indexes: Sequence[int]) -> UidSet:
    """The UIDs at ascending positions."""
    found: list[int] = []
    passed = 0
    wanted = iter(indexes)
    index = next(wanted, None)
    for low, high in uids.ranges:
        size = high - low + 1
        while index is not None and index < passed + size:
            found.append(low + index - passed)
            index = next(wanted, None)
        if index is None:
            break
        passed += size
    return UidSet(found)
