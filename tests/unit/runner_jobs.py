"""Processor functions that a child process can import."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any, NoReturn

from mailmill.errors import ProcessorError
from mailmill.processing.child import HEAD


def echo(message: Any, context: Any) -> Any:
    return {"message": message, "attempt": context.attempt, "pid": os.getpid()}


async def echo_async(message: Any, context: Any) -> Any:
    return message


def print_much(message: Any, context: Any) -> str:
    print("x" * 100_000)
    os.write(1, b"straight to the descriptor")
    return "done"


def read_stdin(message: Any, context: Any) -> str:
    return sys.stdin.read()


def hang(message: Any, context: Any) -> NoReturn:
    threading.Event().wait()
    raise AssertionError


def spin(message: Any, context: Any) -> NoReturn:
    while True:
        pass


def hang_with_grandchild(message: str, context: Any) -> NoReturn:
    """Starts a process that holds the FIFO ``message`` open for writing, then hangs."""
    subprocess.Popen([sys.executable, "-c", f"import time; f = open({message!r}, 'w'); time.sleep(600)"])
    time.sleep(600)
    raise AssertionError


def kill_self(message: Any, context: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def exit_now(message: Any, context: Any) -> NoReturn:
    os._exit(7)


def fail(message: Any, context: Any) -> NoReturn:
    raise ValueError(message)


def fail_for_good(message: Any, context: Any) -> NoReturn:
    raise ProcessorError(message, permanent=True)


def no_json(message: Any, context: Any) -> Any:
    return {1, 2}


class Panic(BaseException):
    """As extensions written in Rust raise it."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit(9)


_BARE: dict[str, type[BaseException]] = {
    "Panic": Panic,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "Unspeakable": Unspeakable,
}


def raise_bare(message: str, context: Any) -> NoReturn:
    raise _BARE[message]


async def raise_bare_async(message: str, context: Any) -> NoReturn:
    raise_bare(message, context)


def leave(message: Any, context: Any) -> NoReturn:
    raise SystemExit(3)


def hold_fifo(message: str, context: Any) -> NoReturn:
    """Opens the FIFO ``message`` for writing and never ends by itself."""
    with open(message, "w"):
        threading.Event().wait()
    raise AssertionError


def eat_memory(message: Any, context: Any) -> int:
    """Wants a gigabyte; says how much it got."""
    return len(bytearray(1 << 30))


def where_it_ran(message: Any, context: Any) -> dict[str, Any]:
    return {"pid": os.getpid(), "subject": message.summary.subject}


async def where_it_ran_async(message: Any, context: Any) -> dict[str, Any]:
    return where_it_ran(message, context)


def oom_score(message: Any, context: Any) -> int:
    with open("/proc/self/oom_score_adj") as score:
        return int(score.read())


def misbehave(message: Any, context: Any) -> dict[str, Any]:
    """What the subject says, on the first attempt; a value after that."""
    if context.attempt == 1:
        {"kill": kill_self, "hang": hang, "eat": eat_memory}.get(message.summary.subject, echo)(message, context)
    return where_it_ran(message, context)


def kill_self_over_poison(message: Any, context: Any) -> str:
    if message.summary.subject == "poison":
        kill_self(message, context)
    return "fine"


def fork_that_returns(message: Any, context: Any) -> str:
    """Answers only when its fork, which goes its own way out of the job, has ended."""
    fork = os.fork()
    if fork == 0:
        return "the fork"
    os.waitpid(fork, 0)
    return "the original"


def write_frame(message: tuple[int, str], context: Any) -> str:
    """Writes ``(number, body)`` to the parent as if the child answered."""
    number, body = message
    end = next(one for one in os.listdir("/proc/self/fd") if _is_socket(f"/proc/self/fd/{one}"))
    os.write(int(end), HEAD.pack(len(body), number) + body.encode())
    return "its own"


def _is_socket(path: str) -> bool:
    return os.path.exists(path) and os.readlink(path).startswith("socket:")


def leave_a_process(message: str, context: Any) -> int:
    """Leaves one behind that holds the FIFO ``message`` open for writing; it has come so far that it does."""
    code = f"import time; f = open({message!r}, 'w'); print(flush=True); time.sleep(600)"
    left = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert left.stdout is not None
    left.stdout.readline()
    return os.getpid()


def leave_one_apart(message: Any, context: Any) -> int:
    """Leaves one behind in a session of its own, which ends when this process does."""
    _KEPT.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True))
    return os.getpid()


_KEPT: list[subprocess.Popen[bytes]] = []


def never_give_up_the_gil(message: str, context: Any) -> NoReturn:
    """Writes its number to the FIFO ``message``, keeps that open, and lets no other thread run from then on."""
    endless = re.compile(r"(a+)+$")
    sys.setswitchinterval(3600)  # or another could take it before the match begins
    with open(message, "w") as fifo:
        fifo.write(f"{os.getpid()}\n")
        fifo.flush()
        endless.match("a" * 60 + "b")
    raise AssertionError
