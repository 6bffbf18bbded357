"""The limit: a blocking socket that asks for all messages and reads up to the tag, looking at nothing.

Arguments: host, port, user, password, highest UID. Standard library only.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time

_CHUNK_BYTES = 1024 * 1024
_TAIL_BYTES = 512


def main(host: str, port: str, user: str, password: str, last_uid: str) -> None:
    link = socket.create_connection((host, int(port)))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    link.recv_into(buffer)
    _ask(link, view, b"a", f"LOGIN {user} {password}")
    _ask(link, view, b"b", "EXAMINE INBOX")
    cpu, began = _cpu_seconds(), time.perf_counter()
    received = _ask(link, view, b"c", f"UID FETCH 1:{last_uid} (UID BODY.PEEK[])")
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "cpu_seconds": _cpu_seconds() - cpu, "bytes": received}))


def _ask(link: socket.socket, view: memoryview, tag: bytes, command: str) -> int:
    """Send, and read until the tagged answer, which is the last line that comes. How many bytes came."""
    link.sendall(tag + b" " + command.encode() + b"\r\n")
    received = 0
    tail = b""
    while True:
        size = link.recv_into(view)
        if not size:
            raise SystemExit("the server hung up")
        received += size
        tail = (tail + bytes(view[max(0, size - _TAIL_BYTES) : size]))[-_TAIL_BYTES:]
        if tail.endswith(b"\r\n"):
            last = tail[:-2].rpartition(b"\r\n")[2]
            if last.startswith(tag + b" OK"):
                return received
            if last.startswith((tag + b" NO", tag + b" BAD")):
                raise SystemExit(last.decode())


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(*sys.argv[1:])
