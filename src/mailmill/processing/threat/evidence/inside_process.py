"""One child process that reads the insides of files, and our end of its socket (:mod:`.inside_child` is its program).

Laws: it is started by ``exec``, never forked, and ends when its socket does, so it does not outlive this process. It
gets none of our environment but where modules lie: a stranger's bytes are read where no secret is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final

from mailmill.processing.threat.evidence.inside_child import LENGTH

START_SECONDS: Final = 20.0
IDLE_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 2 << 20
COMPUTED_TOO_LONG: Final = -signal.SIGPROF
"""The status of a child that the kernel ended because its file took more computing than it may."""

_REAP_SECONDS: Final = 2.0
_PROGRAM: Final = "mailmill.processing.threat.evidence.inside_child"


class ChildProcess:
    """One process and our end of its socket. The time it takes to start is not the file's."""

    def __init__(self, memory_bytes: int) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-B", "-m", _PROGRAM, str(memory_bytes), str(IDLE_SECONDS)],
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

    def exchange(self, name: str, content: bytes, computing_seconds: float, seconds: float) -> dict[str, Any]:
        """The answer for one file, which may take so much computing, and so long by the clock once the child is up.

        Raises TimeoutError; EOFError or OSError where the process died; ValueError for a broken frame.
        """
        if not self._started:
            self._exactly(LENGTH.size, monotonic() + START_SECONDS)
            self._started = True
        deadline = monotonic() + seconds
        order = json.dumps({"name": name, "seconds": computing_seconds}).encode("ascii")
        self._socket.settimeout(seconds)
        self._socket.sendall(LENGTH.pack(len(order)) + order + LENGTH.pack(len(content)))
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


def _environment() -> dict[str, str]:
    """Where modules lie, as this process finds them, and nothing else."""
    paths = [str(Path(path).absolute()) for path in sys.path]
    return {"PYTHONPATH": os.pathsep.join(paths), "LC_ALL": "C.UTF-8"}
