"""Reads the insides of a message's attached files in warm child processes with limits; the parent's side.

Laws: a child is free, at work, or killed; one whose exchange was cut (too slow, died, broken frame) is killed with its
process group, never reused, and the next file gets a fresh one. Children are started when the first file comes; none
outlives this process. Their answers are JSON, cut to bounds. What a message's files may cost together, and which of
them come first, is decided by :mod:`.inside_purse` and :mod:`.file_order`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType
from typing import Any, Final

from mailmill.message_parser import Attachment
from mailmill.processing.threat.evidence.file_order import by_danger
from mailmill.processing.threat.evidence.inside import NOTHING, Inside, from_json
from mailmill.processing.threat.evidence.inside_process import COMPUTED_TOO_LONG, ChildProcess
from mailmill.processing.threat.evidence.inside_purse import FILE_SECONDS, MESSAGE_SECONDS, Purse
from mailmill.processing.threat.evidence.readers import reader_for

MAX_CHILDREN: Final = 2
FILE_WAIT_SECONDS: Final = 5.0
"""By the clock, of a file that is being read: beyond it a child hangs, or the machine does."""
MESSAGE_WAIT_SECONDS: Final = 15.0
"""By the clock, for all files of a message; waiting for a free child counts."""
MEMORY_BYTES: Final = 512 << 20
MAX_CONTENT_BYTES: Final = 64 << 20
MAX_KEPT: Final = 128
"""Results kept: the same logo, signature or campaign comes again and again."""
MAX_KEPT_CHARS: Final = 32_000
"""Of one result that is kept: some 128 times as much would be too much of what a sender chooses."""

_END_SECONDS: Final = 1.0

_Key = tuple[bytes, str, str]


@dataclass(frozen=True, slots=True)
class _File:
    """A content of the message, and the places that it has there."""

    name: str
    content: bytes = field(repr=False)
    places: list[int]


@dataclass(frozen=True, slots=True)
class _Result:
    """``lasting``: the next child would say the same; ``share``: the seconds it took, where more may bring it to its
    end."""

    inside: Inside
    lasting: bool = False
    share: float = 0.0


class InsideReader:
    """A ``ReadInsides`` over child processes, for any number of threads; ``close()`` it, or use it in a ``with``.

    Called with the attachments of one message, it takes ``wait_seconds`` at most and ``message_seconds`` of computing.
    ``seen`` of a result says why a file could not be read: ``too_large``, ``too_slow``, ``unreadable`` (the reader
    failed, wanted too much memory, or its process died), or ``not_reached``: what a message may cost was used up.
    """

    def __init__(
        self,
        *,
        children: int = MAX_CHILDREN,
        file_seconds: float = FILE_SECONDS,
        message_seconds: float = MESSAGE_SECONDS,
        file_wait_seconds: float = FILE_WAIT_SECONDS,
        wait_seconds: float = MESSAGE_WAIT_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._file_seconds = file_seconds
        self._message_seconds = message_seconds
        self._file_wait_seconds = file_wait_seconds
        self._wait_seconds = wait_seconds
        self._memory_bytes = memory_bytes
        self._places = threading.BoundedSemaphore(children)
        self._lock = threading.Lock()
        self._free: list[ChildProcess] = []
        self._all: set[ChildProcess] = set()
        self._kept: OrderedDict[_Key, Inside] = OrderedDict()
        self._closed = False

    def __call__(self, attachments: Sequence[Attachment]) -> list[Inside]:
        """What each of the attachments holds; equal ones are read once."""
        deadline = monotonic() + self._wait_seconds
        purse = Purse(seconds=self._message_seconds, file_seconds=self._file_seconds)
        insides = [NOTHING] * len(attachments)
        late: list[tuple[_Key, _File, float]] = []
        files = self._unknown(_distinct(attachments), insides)
        for number, (key, file) in enumerate(files):
            result = self._first_reading(file, purse, len(files) - number, deadline)
            if result.share:
                late.append((key, file, result.share))
            self._settle(key, file, result, insides)
        for number, (key, file, share) in enumerate(late):
            seconds = purse.share(len(late) - number)
            # No more than it had would come to no more.
            result = self._read(file, purse, seconds if seconds > share else 0.0, deadline)
            self._settle(key, file, result, insides)
        return insides

    def close(self) -> None:
        """Kill the children; files at work come out unreadable, and nothing is read any more."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
            at_work = self._all.difference(free)
        for child in free:
            self._discard(child)
        for child in at_work:
            child.cut()

    def __enter__(self) -> InsideReader:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _unknown(self, files: dict[_Key, _File], insides: list[Inside]) -> list[tuple[_Key, _File]]:
        """The files that no result is kept of; the others are settled."""
        unknown = []
        with self._lock:
            for key, file in files.items():
                kept = self._kept.get(key)
                if kept is None:
                    unknown.append((key, file))
                    continue
                self._kept.move_to_end(key)
                for place in file.places:
                    insides[place] = kept
        return unknown

    def _settle(self, key: _Key, file: _File, result: _Result, insides: list[Inside]) -> None:
        for place in file.places:
            insides[place] = result.inside
        if result.lasting and _chars(result.inside) <= MAX_KEPT_CHARS:
            with self._lock:
                self._kept[key] = result.inside
                if len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)

    def _first_reading(self, file: _File, purse: Purse, files: int, deadline: float) -> _Result:
        if len(file.content) > MAX_CONTENT_BYTES:
            return _failed("too_large", f"{len(file.content) >> 20} MB")
        if not purse.take_bytes(len(file.content)):
            return _failed("not_reached", "the message's other files were too much")
        return self._read(file, purse, purse.share(files), deadline)

    def _read(self, file: _File, purse: Purse, seconds: float, deadline: float) -> _Result:
        """Reads a file within so many seconds of computing."""
        if not seconds:
            return _failed("not_reached", "the message's other files took the time")
        if not self._places.acquire(timeout=max(0.0, deadline - monotonic())):
            return _failed("too_slow", "other messages' files took the time")
        try:
            return self._read_by_child(file, purse, seconds, deadline)
        finally:
            self._places.release()

    def _read_by_child(self, file: _File, purse: Purse, seconds: float, deadline: float) -> _Result:
        while True:
            wait_seconds = min(self._file_wait_seconds, deadline - monotonic())
            if wait_seconds <= 0:
                return _failed("too_slow", "the machine is too busy to read it")
            child, is_new = self._take()
            if child is None:
                return _failed("unreadable", "no process to read it in")
            began = monotonic()
            try:
                answer = child.exchange(file.name, file.content, seconds, wait_seconds)
                inside = _understood(answer)
            except TimeoutError:
                self._discard(child)
                purse.pay(seconds, lost_child=True)
                return _failed("too_slow", f"took longer than {wait_seconds:.0f} s")
            except (OSError, EOFError, ValueError):
                status = self._discard(child, grace_seconds=_END_SECONDS)
                if not is_new and status == 0 and not self._closed:
                    continue  # it ended by itself between two files, before this one reached it
                purse.pay(min(seconds, monotonic() - began), lost_child=True)
                if status == COMPUTED_TOO_LONG:
                    whole = purse.is_whole(seconds)
                    share = 0.0 if whole else seconds
                    return _failed("too_slow", f"takes longer than {seconds:.1f} s", lasting=whole, share=share)
                return _failed("unreadable", "reading it ended the process", lasting=not self._closed)
            except BaseException:
                self._discard(child)
                raise
            exhausted = bool(answer.get("exhausted"))
            purse.pay(_seconds_of(answer, at_most=seconds), lost_child=exhausted)
            self._give_back(child, reusable=not exhausted)
            return _Result(inside, lasting=True)

    def _take(self) -> tuple[ChildProcess | None, bool]:
        with self._lock:
            if self._closed:
                return (None, False)
            while self._free:
                child = self._free.pop()
                if child.alive:
                    return (child, False)
                self._all.discard(child)
                child.kill(0.0)
        try:
            child = ChildProcess(self._memory_bytes)
        except OSError:
            return (None, False)
        with self._lock:
            self._all.add(child)
            closed = self._closed
        if closed:
            self._discard(child)
            return (None, False)
        return (child, True)

    def _give_back(self, child: ChildProcess, *, reusable: bool) -> None:
        with self._lock:
            reusable = reusable and not self._closed
            if reusable:
                self._free.append(child)
        if not reusable:
            self._discard(child)

    def _discard(self, child: ChildProcess, *, grace_seconds: float = 0.0) -> int | None:
        with self._lock:
            self._all.discard(child)
        return child.kill(grace_seconds)


def _distinct(attachments: Sequence[Attachment]) -> dict[_Key, _File]:
    """The contents that are worth reading, the most dangerous first. Two of one content and reader are one."""
    files: dict[_Key, _File] = {}
    for place in by_danger(attachments):
        name, content = attachments[place].filename, attachments[place].content
        reader = reader_for(name, content)
        if reader:
            key = (hashlib.sha256(content).digest(), reader, name.rpartition(".")[2][-20:].lower())
            files.setdefault(key, _File(name[:500], content, [])).places.append(place)
    return files


def _understood(answer: dict[str, Any]) -> Inside:
    if "inside" in answer:
        return from_json(answer["inside"])
    reason = str(answer.get("failed", ""))[:100]
    why = "it wanted too much memory" if reason == "memory" else f"the reader gave up ({reason})"
    return Inside(seen=MappingProxyType({"unreadable": why}))


def _seconds_of(answer: dict[str, Any], *, at_most: float) -> float:
    """The computing that a file took, as its child says."""
    said = answer.get("seconds")
    return min(max(0.0, said), at_most) if isinstance(said, float) else at_most


def _chars(inside: Inside) -> int:
    seen = sum(len(word) + len(evidence) for word, evidence in inside.seen.items())
    targets = sum(len(one.origin) + len(one.url) + len(one.where) for one in inside.targets)
    return seen + targets + sum(map(len, inside.members)) + len(inside.text)


def _failed(word: str, evidence: str, *, lasting: bool = False, share: float = 0.0) -> _Result:
    return _Result(Inside(seen=MappingProxyType({word: evidence})), lasting=lasting, share=share)
