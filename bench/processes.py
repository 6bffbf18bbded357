"""Programs in processes of their own: how long, how much CPU, how much memory; if asked for, where the time goes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import REPOSITORY

_PROFILE_RATE = "400"
_ERROR_CHARACTERS = 1500
_FOREIGN_PREFIXES = ("MAILMILL_", "IMAP_", "DATABASE_URL", "OPENAI_", "CEREBRAS_", "BLOCKBUSTER")


class BenchError(Exception):
    """A row cannot be measured; the text says why, and what to do where there is something to do."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ended well. CPU time is the kernel's word (wait4), children it waited for included.

    ``peak_bytes`` is VmHWM, looked at every few milliseconds: wait4's ``ru_maxrss`` begins with that of whoever forked.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    out: bytes

    @property
    def json(self) -> Any:
        """The one JSON object that it printed; a profiler's own words may stand around it."""
        text = self.out.decode()
        try:
            return json.JSONDecoder().raw_decode(text, text.index("{"))[0]
        except ValueError as error:
            raise BenchError(f"no JSON came, but: {text[:_ERROR_CHARACTERS]}") from error


class Programs:
    """Starts programs; with ``profile_folder`` under py-spy, a flame graph each (the figures then count for little)."""

    def __init__(self, profile_folder: Path | None = None) -> None:
        self._folder = profile_folder
        self._serial = 0
        if profile_folder is not None:
            if shutil.which("py-spy") is None:
                raise BenchError("--profile needs py-spy on PATH")
            profile_folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def side(module: str, *arguments: object) -> list[str]:
        """The command line of a program in ``bench.sides``, in the project's own environment."""
        return [sys.executable, "-m", f"bench.sides.{module}", *map(str, arguments)]

    @staticmethod
    def mailmill(config: Path, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "mailmill", "--config", str(config), *arguments]

    async def run(self, name: str, command: Sequence[str], *, timeout_seconds: float = 600) -> Ended:
        """Run to the end in the repository's folder, output captured. Raises BenchError where it fails or hangs."""
        return await asyncio.to_thread(self._run, name, list(command), timeout_seconds)

    def attach_profiler(self, name: str, pid: int) -> subprocess.Popen[bytes] | None:
        """For a program that is ended by a signal. Interrupt what is returned before, and wait for it."""
        if self._folder is None:
            return None
        command = [*self._py_spy(name), "--pid", str(pid)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _py_spy(self, name: str) -> list[str]:
        self._serial += 1
        output = f"{self._folder}/{name}-{self._serial}.svg"
        return ["py-spy", "record", "--rate", _PROFILE_RATE, "--nonblocking", "--threads", "--output", output]

    def _run(self, name: str, command: list[str], timeout_seconds: float) -> Ended:
        if self._folder is not None and "python" in Path(command[0]).name:
            command = [*self._py_spy(name), "--", *command]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            began = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=errors
            )
            with _Watched(process.pid, timeout_seconds) as watched:
                _pid, status, usage = os.wait4(process.pid, 0)
                wall_seconds = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            errors.seek(0)
            if process.returncode != 0:
                said = (out.read() + errors.read()).decode(errors="replace").strip()[-_ERROR_CHARACTERS:]
                raise BenchError(f"{name} ended with {process.returncode}: {said}")
            return Ended(wall_seconds, usage.ru_utime + usage.ru_stime, watched.peak_bytes, out.read())


class _Watched:
    """A thread that notes a program's peak memory, and kills it when its time is up: wait4 knows no timeout."""

    def __init__(self, pid: int, timeout_seconds: float) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._deadline = time.monotonic() + timeout_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = 0.002
        while not self._ended.wait(pause):
            # Later it changes less, and a look costs the machine that is being measured.
            pause = min(0.02, pause * 1.2)
            try:
                self.peak_bytes = max(self.peak_bytes, memory_bytes(self._pid, "VmHWM"))
            except (OSError, BenchError):
                return
            if time.monotonic() > self._deadline:
                os.kill(self._pid, signal.SIGKILL)


def clean_environment() -> dict[str, str]:
    """This process's environment without what would configure mailmill."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_PREFIXES)}


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """Of one process, as the kernel tells it: ``VmRSS`` is resident now, ``VmHWM`` the most it ever was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"process {pid} has no {field}")


def cpu_seconds(pid: int) -> float:
    """What one process has used so far, user and system, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found
