"""Reads the insides of attached files in warm child processes with limits; the parent's side.

Laws: a child is free, at work, or killed; one whose exchange was cut (too slow, died, broken frame) is killed with its
process group, never reused, and the next file gets a fresh one. Children are started by ``exec``, never forked, when
the first file comes; each has a socket of its own, and ends when that does, so none outlives this process. They get
none of our environment but where modules lie: a stranger's bytes are read where no secret is. Their answers are JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any, Final

from mailmill.message_parser import Attachment
from mailmill.processing.threat.evidence.inside import NOTHING, Inside, ReadInside, from_json
from mailmill.processing.threat.evidence.inside_child import LENGTH
from mailmill.processing.threat.evidence.readers import reader_for

MAX_CHILDREN: Final = 2
FILE_SECONDS: Final = 5.0
MESSAGE_SECONDS: Final = 15.0
START_SECONDS: Final = 20.0
IDLE_SECONDS: Final = 10.0
MEMORY_BYTES: Final = 512 << 20
MAX_CONTENT_BYTES: Final = 64 << 20
MAX_ANSWER_BYTES: Final = 2 << 20
MAX_KEPT: Final = 128
"""Results kept: the same logo, signature or campaign comes again and again."""
MAX_KEPT_CHARS: Final = 32_000
"""Of one result that is kept: some 128 times as much would be too much of what a sender chooses."""

_REAP_SECONDS: Final = 2.0
_END_SECONDS: Final = 1.0
_PROGRAM: Final = "mailmill.processing.threat.evidence.inside_child"


class InsideReader:
    """A ``ReadInside`` over child processes, for any number of threads; ``close()`` it, or use it in a ``with``.

    Called for one attachment, it takes ``file_seconds`` at most once a child is free; a message of many is to be read
    through :meth:`for_message`, which bounds them together. ``seen`` of the result says why a file could not be read:
    ``too_large``, ``too_slow``, or ``unreadable`` (the reader failed, wanted too much memory, or its process died).
    """

    def __init__(
        self,
        *,
        children: int = MAX_CHILDREN,
        file_seconds: float = FILE_SECONDS,
        message_seconds: float = MESSAGE_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._file_seconds = file_seconds
        self._message_seconds = message_seconds
        self._memory_bytes = memory_bytes
        self._places = threading.BoundedSemaphore(children)
        self._lock = threading.Lock()
        self._free: list[_Child] = []
        self._all: set[_Child] = set()
        self._kept: OrderedDict[tuple[bytes, str, str], Inside] = OrderedDict()
        self._closed = False

    def __call__(self, attachment: Attachment) -> Inside:
        return self._read(attachment, monotonic() + self._message_seconds)

    def for_message(self) -> ReadInside:
        """A ``ReadInside`` for the attachments of one message, all within ``message_seconds`` from now."""
        deadline = monotonic() + self._message_seconds
        return lambda attachment: self._read(attachment, deadline)

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

    def _read(self, attachment: Attachment, deadline: float) -> Inside:
        content = attachment.content
        reader = reader_for(attachment.filename, content)
        if not reader:
            return NOTHING
        if len(content) > MAX_CONTENT_BYTES:
            return _failed("too_large", f"{len(content) >> 20} MB")
        extension = attachment.filename.rpartition(".")[2][-20:].lower()
        key = (hashlib.sha256(content).digest(), reader, extension)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        if not self._places.acquire(timeout=max(0.0, deadline - monotonic())):
            return _failed("too_slow", "other files took the time")
        try:
            inside, lasting = self._read_by_child(attachment.filename[:500], content, deadline)
        finally:
            self._places.release()
        if lasting and _chars(inside) <= MAX_KEPT_CHARS:
            with self._lock:
                self._kept[key] = inside
                if len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
        return inside

    def _read_by_child(self, name: str, content: bytes, deadline: float) -> tuple[Inside, bool]:
        """What a child said, and whether the next one would say the same (a lack of time or of a child passes)."""
        seconds = min(self._file_seconds, deadline - monotonic())
        if seconds <= 0:
            return (_failed("too_slow", "the message's other files took the time"), False)
        while True:
            child, is_new = self._take()
            if child is None:
                return (_failed("unreadable", "no process to read it in"), False)
            try:
                answer = child.exchange(name, content, seconds)
                inside = _understood(answer)
            except TimeoutError:
                self._discard(child)
                return (_failed("too_slow", f"took longer than {seconds:.0f} s"), seconds == self._file_seconds)
            except (OSError, EOFError, ValueError):
                status = self._discard(child, grace_seconds=_END_SECONDS)
                if not is_new and status == 0 and not self._closed:
                    continue  # it ended by itself between two files, before this one reached it
                return (_failed("unreadable", "reading it ended the process"), not self._closed)
            except BaseException:
                self._discard(child)
                raise
            self._give_back(child, reusable=not answer.get("exhausted"))
            return (inside, True)

    def _take(self) -> tuple[_Child | None, bool]:
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
            child = _Child(int(self._file_seconds) + 1, self._memory_bytes)
        except OSError:
            return (None, False)
        with self._lock:
            self._all.add(child)
            closed = self._closed
        if closed:
            self._discard(child)
            return (None, False)
        return (child, True)

    def _give_back(self, child: _Child, *, reusable: bool) -> None:
        with self._lock:
            reusable = reusable and not self._closed
            if reusable:
                self._free.append(child)
        if not reusable:
            self._discard(child)

    def _discard(self, child: _Child, *, grace_seconds: float = 0.0) -> int | None:
        with self._lock:
            self._all.discard(child)
        return child.kill(grace_seconds)


class _Child:
    """One process and our end of its socket. The time it takes to start is not the file's."""

    def __init__(self, cpu_seconds: int, memory_bytes: int) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-B", "-m", _PROGRAM, str(cpu_seconds), str(memory_bytes), str(IDLE_SECONDS)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours
        self._started = False

    def exchange(self, name: str, content: bytes, seconds: float) -> dict[str, Any]:
        """Raises TimeoutError; EOFError or OSError where the process died; ValueError for a broken frame."""
        if not self._started:
            self._exactly(LENGTH.size, monotonic() + START_SECONDS)
            self._started = True
        deadline = monotonic() + seconds
        self._socket.settimeout(seconds)
        encoded = name.encode("utf-8", "replace")
        self._socket.sendall(LENGTH.pack(len(encoded)) + encoded + LENGTH.pack(len(content)))
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(content)
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size, deadline))
        if length > MAX_ANSWER_BYTES:
            raise ValueError("an answer beyond its bound")
        answer = json.loads(self._exactly(length, deadline))
        if not isinstance(answer, dict):
            raise ValueError("an answer of another form")  # noqa: TRY004 - the peer's fault, not a caller's
        return answer

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def cut(self) -> None:
        """End the process; the thread that waits for it sees the end of its socket."""
        # Never by the number of a process that was waited for: it may be another's by now.
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self, grace_seconds: float) -> int | None:
        """End the process unless it does so by itself within ``grace_seconds``; its status, None if it would not."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(grace_seconds)
        self.cut()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_REAP_SECONDS)
        return None

    def _exactly(self, size: int, deadline: float) -> bytes:
        pieces: list[bytes] = []
        while size > 0:
            self._socket.settimeout(_left(deadline))
            piece = self._socket.recv(min(size, 1 << 16))
            if not piece:
                raise EOFError
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _understood(answer: dict[str, Any]) -> Inside:
    if "inside" in answer:
        return from_json(answer["inside"])
    reason = str(answer.get("failed", ""))[:100]
    return _failed(
        "unreadable", "it wanted too much memory" if reason == "memory" else f"the reader gave up ({reason})"
    )


def _chars(inside: Inside) -> int:
    seen = sum(len(word) + len(evidence) for word, evidence in inside.seen.items())
    targets = sum(len(one.origin) + len(one.url) + len(one.where) for one in inside.targets)
    return seen + targets + sum(map(len, inside.members)) + len(inside.text)


def _failed(word: str, evidence: str) -> Inside:
    return Inside(seen=MappingProxyType({word: evidence}))


def _environment() -> dict[str, str]:
    """Where modules lie, as this process finds them, and nothing else."""
    paths = [str(Path(path).absolute()) for path in sys.path]
    return {"PYTHONPATH": os.pathsep.join(paths), "LC_ALL": "C.UTF-8"}
