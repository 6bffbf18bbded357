"""The program of a child process: runs one processor job at a time (``python -P -m mailmill.processing.child``).

Its standard output is a socket, for frames both ways: ``HEAD`` (length and number), then the body. The parent sends
pickles: first ``sys.path``, then jobs ``(pickled function, message, context, memory_bytes or None)``; a message that is
raw bytes is parsed here. The child answers each under its number, in JSON only, so that nothing the user's code does is
unpickled by the service: ``{"ready": true}``, then ``{"value": "<JSON text>"}`` or ``{"error": text, "permanent":
bool}`` for each job. With ``"spent": true`` it is not to be used again: the job took all its memory, or left processes.

Its standard input is a pipe that the parent holds open and never writes to: the *lifeline*.

Laws: the protocol has descriptors of its own, so what a job prints goes to stderr and never into a frame. A fork that a
job does not end never answers. When the parent dies, the kernel kills the child's whole group at once, also in the
middle of a job that holds the GIL; what a job put into a session of its own is out of reach. Where the machine runs out
of memory the kernel is to take a child, never the service.
"""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import json
import os
import pickle
import signal
import struct
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, BinaryIO, Final

from mailmill.processing import memory_limit

HEAD: Final = struct.Struct(">IQ")
"""Before each body: its length in bytes, and the number of the job, which the answer repeats."""


def main() -> None:
    own = os.getpid()
    _hang_on(os.dup(0))
    commands = os.fdopen(os.dup(1), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    memory_limit.be_the_first_to_go()
    frames: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
    threading.Thread(target=_listen, args=(commands, frames), daemon=True).start()
    number, path = frames.get()
    sys.path[:] = pickle.loads(path)  # noqa: S301 - from the parent, over its socket
    _send(answers, number, {"ready": True})
    while True:
        number, job = frames.get()
        answer = run_job(job)
        if os.getpid() != own:
            os._exit(1)
        if _left_processes():
            answer["spent"] = True
        _send(answers, number, answer)


def run_job(frame: bytes) -> dict[str, Any]:
    """Run the pickled job; never raises."""
    # Imported after sys.path is the parent's.
    from mailmill.processing import json_value
    from mailmill.processing.failures import describe, out_of_memory

    memory_bytes: int | None = None
    try:
        pickled, message, context, memory_bytes = pickle.loads(frame)  # noqa: S301 - from the parent
        with memory_limit.at_most(memory_bytes):
            # By itself, for this imports its module: what that takes is the job's.
            target: Any = pickle.loads(pickled)  # noqa: S301 - from the parent
            if isinstance(message, bytes):
                from mailmill.message_parser import parse_message

                message = parse_message(message, keep_raw=True)
            value = target(message, context)
            if inspect.iscoroutine(value):
                value = asyncio.run(_await(value))
            return {"value": json_value.encode(value)}
    except MemoryError as error:
        failure = describe(error) if memory_bytes is None else out_of_memory(memory_bytes)
        return {"error": failure.message, "permanent": False, "spent": True}
    except BaseException as error:  # noqa: BLE001 - whatever the processor raised is the answer; Ctrl-C does not come here
        failure = describe(error)
        return {"error": failure.message, "permanent": failure.permanent}


async def _await(coroutine: Any) -> Any:
    return await coroutine


def _hang_on(lifeline: int) -> None:
    """Have the kernel send SIGKILL to this process's group when the other end of ``lifeline`` is closed.

    Not PR_SET_PDEATHSIG: it goes by the *thread* that started us. Nor a thread of ours alone: it waits for the GIL.
    """
    owner = -os.getpgrp() if _leads_its_group() else os.getpid()
    with suppress(OSError):  # not on Linux's own pipes: then what remains is _listen
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, owner)
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _leads_its_group() -> bool:
    return os.getpgrp() == os.getpid()


def _left_processes() -> bool:
    """Whether there is a child of ours in our group, at work or ended and not waited for.

    In a group of its own it is not ours to end: the reader of attached files, which is kept for the next message.
    """
    try:
        os.waitid(os.P_PGID, os.getpgrp(), os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _listen(commands: BinaryIO, frames: SimpleQueue[tuple[int, bytes]]) -> None:
    try:
        while True:
            length, number = HEAD.unpack(_read_exactly(commands, HEAD.size))
            frames.put((number, _read_exactly(commands, length)))
    except (EOFError, OSError):
        if _leads_its_group():
            os.killpg(0, signal.SIGKILL)
        os._exit(0)


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _send(stream: BinaryIO, number: int, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    stream.write(HEAD.pack(len(body), number) + body)
    stream.flush()


if __name__ == "__main__":
    main()
