"""The program of a child process: runs one processor job at a time (``python -m mailmill.processing.child``).

Frames both ways: four bytes of length, big-endian, then the body. The parent sends pickles: first ``sys.path``, then
jobs ``(pickled function, message, context, memory_bytes or None)``; a message that is raw bytes is parsed here.
The child answers JSON only, so that nothing the user's code does is unpickled by the service: ``{"ready": true}`` at
the start, then ``{"value": "<JSON text>"}`` or ``{"error": text, "permanent": bool, "exhausted": bool}`` for each job;
one that is ``exhausted`` ran out of memory and is not to be used again.

Laws: the protocol has descriptors of its own, so what a job prints goes to stderr and never into a frame. When the
parent dies the pipe ends, and the child exits at once, also in the middle of a job. Where the machine runs out of
memory the kernel is to take a child, never the service.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import pickle
import struct
import sys
import threading
from queue import SimpleQueue
from typing import Any, BinaryIO, Final

from mailmill.processing import memory_limit

LENGTH: Final = struct.Struct(">I")


def main() -> None:
    commands = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    frames: SimpleQueue[bytes] = SimpleQueue()
    sys.path[:] = pickle.loads(_read_frame(commands))  # noqa: S301 - from the parent, over its pipe
    memory_limit.be_the_first_to_go()
    threading.Thread(target=_listen, args=(commands, frames), daemon=True).start()
    _send(answers, {"ready": True})
    while True:
        _send(answers, run_job(frames.get()))


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
        return {"error": failure.message, "permanent": False, "exhausted": True}
    except BaseException as error:  # noqa: BLE001 - whatever the processor raised is the answer; Ctrl-C does not come here
        failure = describe(error)
        return {"error": failure.message, "permanent": failure.permanent}


async def _await(coroutine: Any) -> Any:
    return await coroutine


def _listen(commands: BinaryIO, frames: SimpleQueue[bytes]) -> None:
    try:
        while True:
            frames.put(_read_frame(commands))
    except (EOFError, OSError):
        os._exit(0)


def _read_frame(stream: BinaryIO) -> bytes:
    (length,) = LENGTH.unpack(_read_exactly(stream, LENGTH.size))
    return _read_exactly(stream, length)


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _send(stream: BinaryIO, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()


if __name__ == "__main__":
    main()
