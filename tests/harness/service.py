"""The whole program as its user runs it: ``mailmill`` as a child process, its configuration in a file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from harness.patience import eventually

_START_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


async def mailmill(
    config: Path,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    inside: Sequence[str] = (),
    timeout_seconds: float = 60.0,
) -> Finished:
    """Run ``mailmill --config CONFIG …`` to its end; ``inside``: through this command (`small_disk`)."""
    process = await _start(config, *arguments, environ=environ, inside=inside)
    try:
        async with asyncio.timeout(timeout_seconds):
            out, err = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


@dataclass(slots=True)
class RunningService:
    """A ``mailmill run``. ``http`` speaks to it over its unix socket, so as its owner."""

    process: asyncio.subprocess.Process
    http: httpx2.AsyncClient
    errors: list[str]

    async def get(self, path: str, /, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None) -> Any:
        answer = await self.http.post(path, json=body or {})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until_event(self, name: str, after: int = 0) -> dict[str, Any]:
        """The first event ``name`` after a cursor, waiting for it."""
        async with asyncio.timeout(60):
            cursor = after
            while True:
                page = await self.get("/v1/events", after=cursor, limit=100, wait=20)
                cursor = int(page["cursor"])
                for event in page["events"]:
                    if event["event"] == name:
                        found: dict[str, Any] = event
                        return found

    async def until_status(self, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The status as soon as it is as ``ready`` wants it; its counted figures may be two seconds old."""
        return await eventually(lambda: self.get("/v1/status"), ready)

    async def until_line(self, text: str) -> None:
        """Until it has logged ``text``, or written it on stderr otherwise."""

        async def written() -> bool:
            return any(text in line for line in self.errors)

        await eventually(written)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code. Fails if it takes longer than it promises."""
        self.process.send_signal(number)
        async with asyncio.timeout(10):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def service(
    config: Path, socket: Path, *, environ: Mapping[str, str] | None = None
) -> AsyncIterator[RunningService]:
    """``mailmill run``, answering when the block begins."""
    process = await _start(config, "run", environ=environ)
    errors: list[str] = []
    reading = asyncio.create_task(_collect(process, errors))
    transport = httpx2.AsyncHTTPTransport(uds=str(socket))
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://mailmill", timeout=60) as http:
            await _answering(http, process, errors)
            yield RunningService(process, http, errors)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def _answering(http: httpx2.AsyncClient, process: asyncio.subprocess.Process, errors: list[str]) -> None:
    async def answers() -> bool:
        if process.returncode is not None:
            raise AssertionError("mailmill run ended:\n" + "".join(errors))
        try:
            return (await http.get("/health")).status_code == 200
        except httpx2.TransportError:
            return False

    await eventually(answers, within_seconds=_START_SECONDS)


async def _collect(process: asyncio.subprocess.Process, errors: list[str]) -> None:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        errors.append(line.decode(errors="replace"))


async def _start(
    config: Path, *arguments: str, environ: Mapping[str, str] | None = None, inside: Sequence[str] = ()
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *inside,
        sys.executable,
        "-m",
        "mailmill",
        "--config",
        str(config),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1", **(environ or {})},
        start_new_session=True,
    )
