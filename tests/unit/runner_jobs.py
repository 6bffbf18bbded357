"""Processor functions that a child process can import."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, NoReturn

from mailmill.errors import ProcessorError


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
