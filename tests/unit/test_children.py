"""Child processes: what a job does to its child, the end of the parent, and a machine that gives none."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import runner_jobs

from mailmill import programs
from mailmill.errors import NotStartedError, ProcessorError
from mailmill.processing import children as children_module
from mailmill.processing.child import HEAD
from mailmill.processing.children import Children
from mailmill.processing.registry import Context

CONTEXT = Context("work", "me@example.org", 1, ("INBOX",), None, 1, False)
PATIENCE_SECONDS = 60.0
BROKEN = "the child process broke its protocol"


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    made = Children(1)
    yield made
    await made.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    made = tmp_path / "fifo"
    os.mkfifo(made)
    return made


async def run(children: Children, function: Callable[..., Any], message: Any = "m") -> Any:
    return json.loads(await children.run(function, message, CONTEXT, timeout_seconds=PATIENCE_SECONDS))


async def pid_of(children: Children) -> int:
    found: int = (await run(children, runner_jobs.echo))["pid"]
    return found


@pytest.fixture
def attachments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with files that write another when they are run."""
    for name in ("queue.py", "threading.py", "mailmill.py"):
        (tmp_path / name).write_text("open('it-ran', 'w').close()\nraise ImportError\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_no_module_is_taken_from_the_working_directory(children: Children, attachments: Path) -> None:
    """``mailmill threat scan .`` in a folder of attachments must not run one of them."""
    with suppress(NotStartedError):
        assert await run(children, runner_jobs.echo_async, "hello") == "hello"
    assert not await asyncio.to_thread((attachments / "it-ran").exists)


# -- answers ----------------------------------------------------------------------------------------------------------


async def test_a_fork_that_a_job_does_not_end_never_answers(children: Children) -> None:
    before = await pid_of(children)
    assert await run(children, runner_jobs.fork_that_returns) == "the original"
    assert await pid_of(children) == before


async def test_an_answer_too_many_is_not_taken_for_the_next_jobs(children: Children) -> None:
    before = await pid_of(children)  # the jobs below are the third and the fourth frame
    assert await run(children, runner_jobs.write_frame, (3, json.dumps({"value": '"too many"'}))) == "too many"
    with pytest.raises(ProcessorError, match=BROKEN):
        await run(children, runner_jobs.echo_async, "another message")
    assert await run(children, runner_jobs.echo_async, "a third") == "a third"
    assert await pid_of(children) != before


@pytest.mark.parametrize("body", ["no JSON", "[" * 100_000, '"no object"'])
async def test_an_answer_that_is_none_breaks_the_protocol(children: Children, body: str) -> None:
    with pytest.raises(ProcessorError) as raised:
        await run(children, runner_jobs.write_frame, (2, body))
    assert raised.value.message == BROKEN


# -- what is left, and the end of the parent --------------------------------------------------------------------------


async def read_to_the_end(fifo: Path) -> bytes:
    """Until nobody has it open for writing any more."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await asyncio.to_thread(fifo.read_bytes)


async def test_what_a_job_leaves_running_ends_with_it(children: Children, fifo: Path) -> None:
    reading = asyncio.create_task(read_to_the_end(fifo))
    before = await run(children, runner_jobs.leave_a_process, str(fifo))
    await reading
    assert await pid_of(children) != before


async def test_one_in_a_session_of_its_own_may_stay(children: Children) -> None:
    """The reader of attached files is kept for the next message, and so is its child."""
    before = await run(children, runner_jobs.leave_one_apart)
    assert await pid_of(children) == before


async def test_a_job_that_holds_the_gil_ends_with_the_parent(tmp_path: Path, fifo: Path) -> None:
    program = tmp_path / "program.py"
    await asyncio.to_thread(
        program.write_text,
        "import asyncio, runner_jobs\n"
        "from mailmill.processing.children import Children\n"
        "from mailmill.processing.registry import Context\n"
        "context = Context('a', 'a', 1, (), None, 1, False)\n"
        "job = runner_jobs.never_give_up_the_gil\n"
        f"asyncio.run(Children(1).run(job, {str(fifo)!r}, context, timeout_seconds=600))\n",
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = await asyncio.create_subprocess_exec(sys.executable, str(program), env={**os.environ, "PYTHONPATH": path})
    opened = await asyncio.to_thread(fifo.open, "rb")
    job = int(await asyncio.to_thread(opened.readline))
    try:
        parent.kill()
        await parent.wait()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await asyncio.to_thread(opened.read) == b""
    finally:
        with suppress(ProcessLookupError):
            os.kill(job, signal.SIGKILL)
    await asyncio.to_thread(opened.close)


def test_the_end_of_the_socket_takes_along_what_the_jobs_started(fifo: Path) -> None:
    """Also where the kernel tells nothing of the lifeline."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "mailmill.processing.child"],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            start_new_session=True,
        )
        job = (pickle.dumps(runner_jobs.hang_with_grandchild), str(fifo), CONTEXT, None)
        for number, body in enumerate((pickle.dumps(sys.path), pickle.dumps(job))):
            ours.sendall(HEAD.pack(len(body), number) + body)
        with fifo.open("rb") as opened:  # returns when the grandchild has its end
            ours.shutdown(socket.SHUT_RDWR)
            assert child.wait(PATIENCE_SECONDS) == -signal.SIGKILL
            assert opened.read() == b""


# -- a machine that gives none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "no child process could be started: Too many open files"),
        (OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "could be started: Resource temporarily unavailable"),
        (MemoryError(), "could be started: MemoryError"),
        (RuntimeError("can't start new thread"), "could be started: can't start new thread"),
        (TimeoutError(), "no child process was ready within 30 s"),
    ],
    ids=["EMFILE", "EAGAIN", "memory", "thread", "time"],
)
async def test_one_that_cannot_be_started_is_no_fault_of_the_run(
    children: Children, monkeypatch: pytest.MonkeyPatch, trouble: Exception, told: str
) -> None:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise trouble

    with monkeypatch.context() as patched, pytest.raises(NotStartedError, match=told) as raised:
        patched.setattr(programs, "start", refuse)
        await run(children, runner_jobs.echo)
    for limit in ("TasksMax", "LimitNOFILE", "memory"):
        assert limit in raised.value.hint
    assert await run(children, runner_jobs.echo_async, "and now") == "and now"


async def test_one_that_dies_before_it_is_ready_is_no_fault_of_the_run(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(NotStartedError, match=r"died \(exit status 1\)"):
        patched.setattr(sys, "executable", "/bin/false")
        await run(children, runner_jobs.echo)
    assert await run(children, runner_jobs.echo_async, "and now") == "and now"


async def test_one_that_is_not_ready_in_time_is_killed(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[programs.Program]()
    real = programs.start

    async def noted(*given: Any, **how: Any) -> programs.Program:
        started.append(await real(*given, **how))
        return started[0]

    async def says_nothing(_child: Any, _frame: bytes) -> Any:
        raise TimeoutError

    with monkeypatch.context() as patched, pytest.raises(NotStartedError, match="ready within"):
        patched.setattr(programs, "start", noted)
        patched.setattr(children_module._Child, "exchange", says_nothing)
        await run(children, runner_jobs.echo)
    assert started[0].returncode == -signal.SIGKILL
