"""Running processors: on the loop, in threads, in children; what they return and raise, and what hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import runner_jobs

from mailmill.errors import ProcessorError
from mailmill.processing import json_value
from mailmill.processing.children import Children
from mailmill.processing.failures import describe
from mailmill.processing.registry import Context, Processor
from mailmill.processing.retry import retry_after
from mailmill.processing.runners import Runners

CONTEXT = Context("work", "me@example.org", 1, ("INBOX",), None, 1, False)
HANGS = 0.05
"""The timeout where it is meant to be met; elsewhere it is the default, far away."""


@pytest.fixture
async def runners() -> AsyncIterator[Runners]:
    made = Runners(threads=2, children=1)
    yield made
    await made.close()


def a_processor(function: Callable[..., Any], kind: Any = "thread", **changed: Any) -> Processor:
    return Processor("p", 1, function, kind, **changed)


async def run(runners: Runners, function: Callable[..., Any], kind: Any, message: Any = "m", **changed: Any) -> Any:
    return json.loads((await runners.run(a_processor(function, kind, **changed), message, CONTEXT)).value)


async def failure(runners: Runners, function: Callable[..., Any], kind: Any, **changed: Any) -> ProcessorError:
    with pytest.raises(ProcessorError) as raised:
        await run(runners, function, kind, **changed)
    return raised.value


# -- what all kinds share ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_a_function_gets_message_and_context(runners: Runners, kind: str) -> None:
    answer = await run(runners, runner_jobs.echo, kind, {"a": 1})
    assert (answer["message"], answer["attempt"]) == ({"a": 1}, 1)
    assert (answer["pid"] == os.getpid()) == (kind == "thread")


@pytest.mark.parametrize("kind", ["async", "process"])
async def test_a_coroutine_function(runners: Runners, kind: str) -> None:
    assert await run(runners, runner_jobs.echo_async, kind, "hello") == "hello"


@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_what_it_raises_is_named(runners: Runners, kind: str) -> None:
    raised = await failure(runners, runner_jobs.fail, kind, message="what was wrong")
    assert (raised.message, raised.permanent) == ("ValueError: what was wrong", False)


@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_it_can_say_that_trying_again_is_of_no_use(runners: Runners, kind: str) -> None:
    raised = await failure(runners, runner_jobs.fail_for_good, kind, message="never")
    assert (raised.message, raised.permanent) == ("never", True)


@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_what_is_not_json_fails_for_good(runners: Runners, kind: str) -> None:
    raised = await failure(runners, runner_jobs.no_json, kind)
    assert "JSON" in raised.message
    assert raised.permanent


@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_it_cannot_end_the_service(runners: Runners, kind: str) -> None:
    assert (await failure(runners, runner_jobs.leave, kind)).message == "SystemExit: 3"
    assert await run(runners, runner_jobs.echo, kind)


@pytest.mark.parametrize("kind", ["async", "thread", "process"])
@pytest.mark.parametrize("name", ["Panic", "KeyboardInterrupt", "GeneratorExit", "CancelledError", "Unspeakable"])
async def test_whatever_it_raises_is_the_rows_failure(runners: Runners, kind: str, name: str) -> None:
    function = runner_jobs.raise_bare_async if kind == "async" else runner_jobs.raise_bare
    raised = await failure(runners, function, kind, message=name)
    assert raised.message.partition(":")[0] == name
    assert not raised.permanent
    assert await run(runners, runner_jobs.echo_async, "async") == "m"


async def test_events_are_announced_from_the_value(runners: Runners) -> None:
    def announce(value: Any) -> tuple[str, ...]:
        return ("threatFound",) if value["message"] == "bad" else ()

    for kind in ("thread", "process"):
        outcome = await runners.run(a_processor(runner_jobs.echo, kind, announce=announce), "bad", CONTEXT)
        assert outcome.announce == ("threatFound",)
        outcome = await runners.run(a_processor(runner_jobs.echo, kind, announce=announce), "good", CONTEXT)
        assert outcome.announce == ()


async def test_an_event_that_does_not_exist_is_refused(runners: Runners) -> None:
    raised = await failure(runners, runner_jobs.echo, "thread", announce=lambda _: ("noSuchEvent",))
    assert "noSuchEvent" in raised.message
    assert raised.permanent


# -- on the loop ------------------------------------------------------------------------------------------------------


async def test_a_coroutine_that_takes_too_long_is_cancelled(runners: Runners) -> None:
    cancelled = asyncio.Event()

    async def hang(message: Any, context: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    raised = await failure(runners, hang, "async", timeout_seconds=HANGS)
    assert raised.message == "took longer than 0.05 s"
    assert cancelled.is_set()


async def test_a_timeout_of_its_own_is_told_apart(runners: Runners) -> None:
    async def times_out(message: Any, context: Any) -> None:
        raise TimeoutError("the server said nothing")

    assert (await failure(runners, times_out, "async")).message == "TimeoutError: the server said nothing"


async def test_a_cancellation_of_its_own_making_is_a_failure(runners: Runners) -> None:
    async def cancels(message: Any, context: Any) -> None:
        raise asyncio.CancelledError

    assert (await failure(runners, cancels, "async")).message == "CancelledError"


async def test_one_that_cancels_its_own_task_harms_no_other(runners: Runners) -> None:
    async def cancels_itself(message: Any, context: Any) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if message == "waits":
            await asyncio.Event().wait()
        return "the cancellation is still pending"

    for message in ("waits", "returns"):
        assert (await failure(runners, cancels_itself, "async", message=message)).message == "CancelledError"
    await asyncio.sleep(0)  # a cancellation that had reached this task would be raised here


async def test_one_that_will_not_be_cancelled_is_left_to_itself(
    runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailmill.processing.runners._CLEAN_UP_SECONDS", HANGS)
    may_end, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(message: Any, context: Any) -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    async with asyncio.timeout(60):
        assert "took longer" in (await failure(runners, stubborn, "async", timeout_seconds=HANGS)).message
        assert not ended.is_set()
        may_end.set()
        await ended.wait()


async def test_a_big_value_is_encoded_off_the_loop(runners: Runners, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded_in: list[threading.Thread] = []
    encode = json_value.encode

    def noted(value: Any) -> str:
        encoded_in.append(threading.current_thread())
        return encode(value)

    monkeypatch.setattr(json_value, "encode", noted)
    small, big = list(range(100)), {str(number): [number] for number in range(20_000)}
    assert await run(runners, runner_jobs.echo_async, "async", small) == small
    assert await run(runners, runner_jobs.echo_async, "async", big) == big
    assert [thread is threading.current_thread() for thread in encoded_in] == [True, False]


async def test_a_cancellation_from_outside_goes_through(runners: Runners) -> None:
    began = asyncio.Event()

    async def waits(message: Any, context: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(run(runners, waits, "async"))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- children ---------------------------------------------------------------------------------------------------------


async def test_a_child_is_kept_warm(runners: Runners) -> None:
    first = await run(runners, runner_jobs.echo, "process")
    assert (await run(runners, runner_jobs.echo, "process"))["pid"] == first["pid"]


async def test_what_a_child_prints_breaks_nothing(runners: Runners) -> None:
    assert await run(runners, runner_jobs.print_much, "process") == "done"
    assert await run(runners, runner_jobs.read_stdin, "process") == ""


@pytest.mark.parametrize("hangs", [runner_jobs.hang, runner_jobs.spin])
async def test_a_child_that_hangs_is_killed_and_replaced(runners: Runners, hangs: Callable[..., Any]) -> None:
    before = (await run(runners, runner_jobs.echo, "process"))["pid"]
    assert (await failure(runners, hangs, "process", timeout_seconds=HANGS)).message == "took longer than 0.05 s"
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert (await run(runners, runner_jobs.echo, "process"))["pid"] != before


@pytest.mark.parametrize(
    ("dies", "how"), [(runner_jobs.kill_self, "signal 9"), (runner_jobs.exit_now, "exit status 7")]
)
async def test_a_child_that_dies_costs_one_attempt(runners: Runners, dies: Callable[..., Any], how: str) -> None:
    raised = await failure(runners, dies, "process")
    assert (raised.message, raised.permanent) == (f"the child process died ({how})", False)
    assert await run(runners, runner_jobs.echo, "process")


async def end_of(fifo: Path) -> None:
    """Wait until nobody holds ``fifo`` open for writing."""

    def read() -> None:
        fifo.read_bytes()

    async with asyncio.timeout(60):
        await asyncio.to_thread(read)


async def test_killing_a_child_takes_along_what_it_started(runners: Runners, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = asyncio.create_task(end_of(fifo))
    running = asyncio.create_task(run(runners, runner_jobs.hang_with_grandchild, "process", str(fifo)))
    # The grandchild opens the FIFO when it has started; from then on only its end can end the reading.
    writer = await asyncio.to_thread(os.open, fifo, os.O_WRONLY)
    try:
        await asyncio.to_thread(_wait_for_second_writer, fifo)
    finally:
        # Also where the wait fails: else the thread that reads would never end.
        os.close(writer)
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await reading


def _wait_for_second_writer(fifo: Path) -> None:
    # Bounded here: this runs in a thread, which nobody can end from outside.
    give_up_at = time.monotonic() + 120
    while sum(1 for _ in _holders(fifo)) < 3:
        if time.monotonic() > give_up_at:
            raise AssertionError("the grandchild did not open the FIFO within 120 s")
        threading.Event().wait(0.1)


def _holders(path: Path) -> Any:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                for descriptor in os.listdir(process / "fd"):
                    # One is of the listing itself, and gone by now.
                    with contextlib.suppress(OSError):
                        if os.readlink(process / "fd" / descriptor) == str(path):
                            yield int(process.name)


async def test_children_end_with_their_parent_in_the_middle_of_a_job(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = tmp_path / "program.py"
    await asyncio.to_thread(
        program.write_text,
        "import asyncio, runner_jobs\n"
        "from mailmill.processing.registry import Context, Processor\n"
        "from mailmill.processing.runners import Runners\n"
        "context = Context('a', 'a', 1, (), None, 1, False)\n"
        f"asyncio.run(Runners().run(Processor('p', 1, runner_jobs.hold_fifo, 'process'), {str(fifo)!r}, context))\n",
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = await asyncio.create_subprocess_exec(sys.executable, str(program), env={**os.environ, "PYTHONPATH": path})
    opened = await asyncio.to_thread(fifo.open, "rb")  # returns when the job has opened its end
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(60):
        assert await asyncio.to_thread(opened.read) == b""
    await asyncio.to_thread(opened.close)


async def test_a_fork_that_hangs_is_in_no_childs_way(tmp_path: Path) -> None:
    """A lock that another thread held is never given back in a fork: whatever runs there first may wait for ever."""
    program = tmp_path / "program.py"
    await asyncio.to_thread(
        program.write_text,
        "import os, signal, uvloop, runner_jobs\n"
        "from mailmill.processing.registry import Context, Processor\n"
        "from mailmill.processing.runners import Runners\n"
        "async def main():\n"
        "    runners = Runners()\n"
        "    await runners.run(Processor('p', 1, runner_jobs.echo, 'process'), 'm', context)\n"
        "    await runners.close()\n"
        "os.register_at_fork(after_in_child=signal.pause)\n"
        "context = Context('a', 'a', 1, (), None, 1, False)\n"
        "uvloop.run(main())\n",
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = await asyncio.create_subprocess_exec(
        sys.executable, str(program), env={**os.environ, "PYTHONPATH": path}, start_new_session=True
    )
    try:
        async with asyncio.timeout(30):
            assert await parent.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


async def test_a_child_that_starts_after_all_is_killed(runners: Runners, monkeypatch: pytest.MonkeyPatch) -> None:
    starting, may_start = threading.Event(), threading.Event()
    real, started = subprocess.Popen, list[subprocess.Popen[bytes]]()

    def slow(*given: Any, **how: Any) -> subprocess.Popen[bytes]:
        starting.set()
        may_start.wait()
        started.append(real(*given, **how))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", slow)
    running = asyncio.create_task(run(runners, runner_jobs.echo, "process"))
    await asyncio.to_thread(starting.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    may_start.set()
    async with asyncio.timeout(30):
        while not started or started[0].returncode is None:
            await asyncio.sleep(0.01)
    assert started[0].returncode == -signal.SIGKILL


async def test_jobs_of_a_cancelled_caller_kill_their_child(runners: Runners, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    running = asyncio.create_task(run(runners, runner_jobs.hold_fifo, "process", str(fifo)))
    opened = await asyncio.to_thread(fifo.open, "rb")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(60):
        assert await asyncio.to_thread(opened.read) == b""
    await asyncio.to_thread(opened.close)
    assert await run(runners, runner_jobs.echo, "process")


class SlowToDie:
    """A child of which all others must be on their way out too before it ends."""

    def __init__(self, all_dying: asyncio.Barrier) -> None:
        self._all_dying = all_dying

    async def kill(self) -> None:
        await self._all_dying.wait()


async def test_all_children_are_killed_at_once() -> None:
    children = Children(3)
    all_dying = asyncio.Barrier(3)
    children._all.update(cast("Any", SlowToDie(all_dying)) for _ in range(3))
    async with asyncio.timeout(10):
        await children.close()


async def test_no_child_is_started_once_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children(1)
    starting, may_start, killed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Starting:
        alive = True

        async def start(self) -> None:
            starting.set()
            await may_start.wait()

        async def kill(self) -> None:
            killed.set()

    monkeypatch.setattr("mailmill.processing.children._Child", Starting)
    running = asyncio.create_task(children.run(runner_jobs.echo, "m", CONTEXT, timeout_seconds=60))
    await starting.wait()
    await children.close()
    killed.clear()
    may_start.set()
    with pytest.raises(ProcessorError, match="closed"):
        await running
    assert killed.is_set()
    starting.clear()
    with pytest.raises(ProcessorError, match="closed"):
        await children.run(runner_jobs.echo, "m", CONTEXT, timeout_seconds=60)
    assert not starting.is_set()


async def test_a_big_message_reaches_the_child(runners: Runners) -> None:
    big = "x" * 3_000_000
    outcome = await runners.run(
        a_processor(runner_jobs.echo_async, "process"), {"length": len(big), "rest": "y"}, CONTEXT
    )
    assert json.loads(outcome.value)["length"] == 3_000_000
    raised = None
    try:
        await runners.run(a_processor(runner_jobs.echo_async, "process"), big, CONTEXT, size_bytes=len(big))
    except ProcessorError as error:
        raised = error
    assert raised is not None
    assert "above the limit" in raised.message


async def test_a_run_that_wants_too_much_memory_fails_alone(runners: Runners) -> None:
    raised = await failure(runners, runner_jobs.eat_memory, "process", memory_bytes=256 << 20)
    assert "memory_bytes = 268,435,456" in raised.message
    assert not raised.permanent
    assert await run(runners, runner_jobs.eat_memory, "process", memory_bytes=2 << 30) == 1 << 30
    assert await run(runners, runner_jobs.eat_memory, "process") == 1 << 30


async def test_a_child_that_ran_out_of_memory_is_not_used_again(runners: Runners) -> None:
    first = (await run(runners, runner_jobs.echo, "process"))["pid"]
    assert (await run(runners, runner_jobs.echo, "process"))["pid"] == first
    await failure(runners, runner_jobs.eat_memory, "process", memory_bytes=64 << 20)
    assert (await run(runners, runner_jobs.echo, "process"))["pid"] != first


async def test_the_kernel_is_to_take_a_child_first(runners: Runners) -> None:
    assert await run(runners, runner_jobs.oom_score, "process") == 1000


@pytest.mark.parametrize("kind", ["async", "thread", "process"])
async def test_apart_is_in_a_child_and_parses_there(runners: Runners, kind: str) -> None:
    function = runner_jobs.where_it_ran_async if kind == "async" else runner_jobs.where_it_ran
    raw = b"Subject: hello\r\n\r\nbody\r\n"
    outcome = await runners.run(a_processor(function, kind), raw, CONTEXT, apart=True)
    answer = json.loads(outcome.value)
    assert answer["subject"] == "hello"
    assert answer["pid"] != os.getpid()


# -- pure decisions ---------------------------------------------------------------------------------------------------


def test_retry_backs_off_with_full_jitter_and_gives_up() -> None:
    def after(failures: int, jitter: float = 1.0, permanent: bool = False) -> float | None:
        return retry_after(failures=failures, max_attempts=5, permanent=permanent, jitter=jitter)

    assert [after(n) for n in (1, 2, 3, 4)] == [5.0, 10.0, 20.0, 40.0]
    assert after(2, jitter=0.0) == 0.0
    assert after(5) is None
    assert after(1, permanent=True) is None
    assert retry_after(failures=999, max_attempts=1000, permanent=False, jitter=1.0) == 3600.0


def test_errors_that_cannot_be_shown_are_described() -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise SystemExit

    assert describe(Unspeakable()).message == "Unspeakable: (its message cannot be shown)"
    assert describe(KeyError()).message == "KeyError"
    assert len(describe(ValueError("x" * 10_000)).message) == 1000
