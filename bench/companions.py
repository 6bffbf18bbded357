"""Programs of ours that run beside what is measured (a server, a proxy): they announce themselves, answer questions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

from bench import REPOSITORY, processes
from bench.processes import BenchError

_ANSWER_SECONDS = 30
_STOP_SECONDS = 5


class Companion:
    """A running program. ``announced`` is the JSON object it printed first. Made by `companion`."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self._process = process
        self._name = name
        self.announced: dict[str, Any] = {}

    @property
    def port(self) -> int:
        return int(self.announced["port"])

    @property
    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self._process.pid)

    async def ask(self, question: str = "") -> dict[str, Any]:
        """Send a line, get a JSON object."""
        assert self._process.stdin is not None
        self._process.stdin.write(question.encode() + b"\n")
        self._process.stdin.flush()
        return await self.read()

    async def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(_ANSWER_SECONDS):
            line = await asyncio.to_thread(self._process.stdout.readline)
        if not line:
            raise BenchError(f"{self._name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.asynccontextmanager
async def companion(module: str, *arguments: object) -> AsyncIterator[Companion]:
    """``python -m MODULE ARGUMENTS`` for the length of the block. Its errors go to ours; it ends with its stdin."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env=processes.clean_environment(),
    )
    running = Companion(process, module)
    try:
        running.announced = await running.read()
        yield running
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            await asyncio.to_thread(process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
        process.stdout.close()
