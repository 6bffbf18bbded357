"""The program of a child process that reads the insides of files, one at a time
(``python -m mailmill.processing.threat.evidence.inside_child MEMORY_BYTES IDLE_SECONDS``).

Frames both ways: four bytes of length, big-endian, then the body. The child sends an empty one when it is ready. The
parent sends two for a file, ``{"name", "seconds"}`` and the content; the child answers one: ``{"inside": {…}}``,
``{"failed": "word"}``, or ``{"failed": "memory", "exhausted": true}`` by a child that is not to be used again, with
``seconds``, the computing that it took. A file that takes more than its seconds ends the process (SIGPROF).

Laws: the protocol has a descriptor of its own, so what a library prints never gets into a frame. When the parent dies
its end of the socket closes and the child exits; the file that it is at ends before by its own limit. A child that had
nothing to do for so many seconds, or has read ``MAX_FILES``, exits with status 0 between two files: that is no failure
of the next. It writes no file, and leaves no core.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from signal import ITIMER_PROF, setitimer
from struct import Struct
from time import process_time
from typing import Any, Final

from mailmill.processing import memory_limit
from mailmill.processing.threat.evidence import readers
from mailmill.processing.threat.evidence.inside import to_json

LENGTH: Final = Struct(">I")
MAX_FILES: Final = 1_000


def main() -> None:
    memory_bytes, idle_seconds = int(sys.argv[1]), float(sys.argv[2])
    parent = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    memory_limit.be_the_first_to_go()
    parent.sendall(LENGTH.pack(0))
    for _ in range(MAX_FILES):
        parent.settimeout(idle_seconds)
        try:
            order = json.loads(_receive(parent))
            parent.settimeout(None)
            content = _receive(parent)
        except (TimeoutError, EOFError, OSError):
            return
        answer = read_file(order["name"], content, order["seconds"], memory_bytes)
        del content
        body = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
        parent.sendall(LENGTH.pack(len(body)) + body)


def read_file(name: str, content: bytes, seconds: float, memory_bytes: int | None = None) -> dict[str, Any]:
    """The answer for one file; never raises. Beyond so many seconds of computing it ends the process."""
    began = process_time()
    try:
        readers.load(name, content)
        began = process_time()
        setitimer(ITIMER_PROF, seconds)
        with memory_limit.at_most(memory_bytes):
            answer: dict[str, Any] = {"inside": to_json(readers.read(name, content))}
    except MemoryError:
        answer = {"failed": "memory", "exhausted": True}
    except BaseException as error:  # noqa: BLE001 - whatever a library raises over a stranger's bytes is "unreadable"
        answer = {"failed": type(error).__name__}
    setitimer(ITIMER_PROF, 0)
    return answer | {"seconds": process_time() - began}


def _receive(parent: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(_exactly(parent, LENGTH.size))
    return bytes(_exactly(parent, length))


def _exactly(parent: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    have = 0
    while have < size:
        count = parent.recv_into(view[have:])
        if not count:
            raise EOFError
        have += count
    return data


if __name__ == "__main__":
    main()
