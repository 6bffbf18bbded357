"""Starting programs, on the loop of the service: what is read of them, and that they are gone when they are to be."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import mailmill
from mailmill import programs

SOURCE = Path(mailmill.__file__).parent
pytestmark = pytest.mark.both_loops


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_what_it_prints_and_how_it_ends() -> None:
    code = "import os, sys; sys.stdout.write(os.environ['A'] + sys.stdin.read()); sys.stderr.write('b'); sys.exit(3)"
    running = await programs.start(
        python(code), stdout=programs.PIPE, stderr=programs.PIPE, environ={"A": "a", "PATH": os.defpath}
    )
    assert await running.output(100) == (b"a", b"b")
    assert await running.wait() == running.returncode == 3


async def test_no_more_is_kept_than_is_wanted() -> None:
    """The rest is read all the same, or the program would wait for a reader for ever."""
    running = await programs.start(python("print('x' * 1_000_000)"), stdout=programs.PIPE)
    assert await running.output(10) == (b"x" * 10, b"")
    assert await running.wait() == 0


async def test_one_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        await programs.start(["/no/such/program"])


async def test_what_it_started_is_killed_with_it() -> None:
    reading, writing = os.pipe()
    running = await programs.start(
        python("import os, time; os.fork(); os.write(1, b'x'); time.sleep(600)"), stdout=writing
    )
    os.close(writing)
    both = b""
    while both != b"xx":
        both += await asyncio.to_thread(os.read, reading, 2)
    running.kill()
    async with asyncio.timeout(60):
        assert await asyncio.to_thread(os.read, reading, 1) == b""  # closed by the last who had it
        assert await running.wait() == -signal.SIGKILL
    os.close(reading)
    running.kill()  # once more does no harm


async def test_its_descriptors_are_its_own() -> None:
    """What it was given may be closed as soon as it is started, or as nobody wants it any more."""
    reading, writing = os.pipe()
    running = await programs.start(python("import os; os.write(1, b'said')"), stdout=writing)
    os.close(writing)
    assert await asyncio.to_thread(os.read, reading, 100) == b"said"
    assert await asyncio.to_thread(os.read, reading, 100) == b""
    os.close(reading)
    assert await running.wait() == 0


async def test_where_there_is_no_thread_nothing_is_kept_and_nothing_started_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The standard executor keeps the job for which it could start no thread, and does it when it has one."""
    kept, started = list[Callable[[], Any]](), list[Any]()

    class Refusing(ThreadPoolExecutor):
        def submit(self, function: Any, *_: Any, **__: Any) -> Any:
            kept.append(function)
            raise RuntimeError("can't start new thread")

    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **_: started.append(given))
    asyncio.get_running_loop().set_default_executor(Refusing())
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await programs.start(python("pass"), stdin=writing, stdout=writing)
    os.close(writing)
    assert os.read(reading, 1) == b""  # BlockingIOError where a copy is open
    os.close(reading)
    with suppress(IndexError):
        kept[0]()
    assert not started


async def test_one_that_nobody_waits_for_any_more_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    reading, writing = os.pipe()
    popen = subprocess.Popen

    def slow(*given: Any, **how: Any) -> Any:
        begun.set()
        go_on.wait(60)
        return popen(*given, **how)

    monkeypatch.setattr(subprocess, "Popen", slow)
    starting = asyncio.create_task(programs.start(python("import time; time.sleep(600)"), stdout=writing))
    await asyncio.to_thread(begun.wait, 60)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    os.close(writing)
    go_on.set()
    async with asyncio.timeout(60):
        assert await asyncio.to_thread(os.read, reading, 1) == b""  # closed by the last who had it
    os.close(reading)


def test_no_program_is_started_through_the_loop() -> None:
    found = [
        f"{file.relative_to(SOURCE)}:{node.lineno}"
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("create_subprocess_exec", "create_subprocess_shell")
    ]
    assert not found, found
