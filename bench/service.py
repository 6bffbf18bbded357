"""A configuration, and ``mailmill run`` on it as a process of its own, asked over TCP as any client would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import REPOSITORY, processes
from bench.processes import BenchError, Programs

SECRET = "whsec_" + "YmVuY2htYXJrIHNlY3JldCBvZiAzMiBieXRlcyAuLi4="
_START_SECONDS = 30
_STOP_SECONDS = 15
_ASK_SECONDS = 120


FIGURES_SECONDS = 0.7


@dataclass(frozen=True, slots=True)
class AccountConfig:
    """An account on a server of ours on loopback; in the clear unless ``ca_file`` says whom to trust."""

    name: str
    user: str
    port: int
    password: str
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class HookConfig:
    """A webhook on loopback."""

    name: str
    url: str
    events: tuple[str, ...]


def write_config(
    folder: Path,
    accounts: Sequence[AccountConfig],
    hooks: Sequence[HookConfig] = (),
    *,
    service: Mapping[str, str | Sequence[str]] | None = None,
) -> Path:
    """A file with these accounts and destinations, a data folder beside it, and all else at its default.

    ``service`` are further keys of ``[service]``.
    """
    lines = ["[service]", f"data_dir = {_quoted(folder / 'data')}", 'listen = "127.0.0.1:0"']
    lines += [f"{key} = {json.dumps(value)}" for key, value in (service or {}).items()]
    for account in accounts:
        imap = f'host = "127.0.0.1", port = {account.port}'
        tls = f'tls = "implicit", ca_file = {_quoted(account.ca_file)}' if account.ca_file else 'tls = "none"'
        lines += [
            f"[accounts.{account.name}]",
            f'email = "{account.user}@example.org"',
            f"username = {_quoted(account.user)}",
            f"password = {_quoted(account.password)}",
            f"imap = {{ {imap}, {tls} }}",
        ]
    for hook in hooks:
        lines += [
            f"[destinations.{hook.name}]",
            'kind = "webhook"',
            f"url = {_quoted(hook.url)}",
            f'secret = "{SECRET}"',
            f"events = {json.dumps(hook.events)}",
            "allow_private = true",
        ]
    file = folder / "config.toml"
    file.touch(mode=0o600)
    file.write_text("\n".join(lines) + "\n")
    return file


class Service:
    """A running service. Made by `running`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, token: str, log: Path) -> None:
        self._process = process
        self._port = port
        self._token = token
        self._log = log
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def another(self) -> Service:
        """The same service on an HTTP connection of its own."""
        return Service(self._process, self._port, self._token, self._log)

    async def get(self, path: str) -> Any:
        return json.loads(await self._ask("GET", path, b""))

    async def text(self, path: str) -> str:
        return (await self._ask("GET", path, b"")).decode()

    async def post(self, path: str, body: object) -> Any:
        return json.loads(await self._ask("POST", path, json.dumps(body).encode()))

    async def until(self, what: str, ready: Callable[[Any], bool], path: str, timeout_seconds: float = 120) -> Any:
        """Ask ``path`` until the answer is ``ready``. Raises BenchError, with the log's end, where it never is."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            asked = time.monotonic()
            if ready(answer := await self.get(path)):
                return answer
            now = time.monotonic()
            if now > deadline:
                raise BenchError(f"the service never came to {what}: {str(answer)[:2000]}\n{self.log_end()}")
            # A long answer (a thousand accounts) is work for the service, which has other things to do.
            await asyncio.sleep(max(0.05, 9 * (now - asked)))

    async def at_rest(self, timeout_seconds: float = 120) -> None:
        """All accounts connected, first syncs over, nothing queued and nothing to deliver."""

        def connected(answer: Any) -> bool:
            return all(each["state"] == "connected" and each["progress"] is None for each in answer["accounts"])

        def idle(answer: Any) -> bool:
            queue, deliveries = answer["queue"], answer["deliveries"]
            return not (queue["pending"] or queue["processing"] or deliveries["pending"] or deliveries["sending"])

        await self.until("rest", connected, "/v1/accounts", timeout_seconds)
        await self.post("/v1/sync", {"process": False})
        # Figures are shared by all who ask within half a second: look at fresh ones.
        await asyncio.sleep(FIGURES_SECONDS)
        await self.until("rest", idle, "/v1/status", timeout_seconds)

    def memory_bytes(self, field: str = "VmRSS") -> int:
        """Of the service and all its child processes."""
        return sum(processes.memory_bytes(pid, field) for pid in processes.family(self._process.pid))

    def cpu_seconds(self) -> float:
        """Used so far by the service and the child processes it has now."""
        return sum(processes.cpu_seconds(pid) for pid in processes.family(self._process.pid))

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> None:
        """Wait until the process is gone. Raises BenchError where it stays."""
        try:
            await asyncio.to_thread(self._process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise BenchError(f"the service did not end:\n{self.log_end()}") from None

    def log_end(self) -> str:
        return self._log.read_text(errors="replace")[-1500:]

    async def _ask(self, method: str, path: str, body: bytes) -> bytes:
        """On one connection that stays open: what is timed is the answer, not the handshake."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**24)
        reader, writer = self._streams
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with asyncio.timeout(_ASK_SECONDS):
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(answer.partition("content-length:")[2].split("\r\n")[0])
            content = await reader.readexactly(length)
        if not answer.startswith("http/1.1 200"):
            raise BenchError(f"{method} {path}: {answer.splitlines()[0]} {content.decode(errors='replace')[:500]}")
        return content

    def disconnect(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


@contextlib.asynccontextmanager
async def running(
    programs: Programs, name: str, folder: Path, config: Path, *, observer_port: int | None = None
) -> AsyncIterator[Service]:
    """``mailmill run`` for the length of the block; it has answered once when the block begins.

    With ``observer_port`` an observer runs within it (``bench.observed``).
    """
    command = programs.mailmill(config, "run", "--json")
    if observer_port is not None:
        command = programs.side("watched_service", config, observer_port)
    log = folder / "service.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=processes.clean_environment(),
            cwd=REPOSITORY,
        )
    profiler = None
    service = None
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            announced = await asyncio.to_thread(process.stdout.readline)
        if not announced:
            raise BenchError(f"the service did not start:\n{log.read_text(errors='replace')[-1500:]}")
        port = urlsplit(json.loads(announced)["page"]).port
        assert port is not None
        service = Service(process, port, (folder / "data" / "api-token").read_text().strip(), log)
        await service.get("/v1/status")
        profiler = programs.attach_profiler(name, process.pid)
        yield service
    finally:
        if service is not None:
            service.disconnect()
        if profiler is not None:
            profiler.send_signal(signal.SIGINT)
            await asyncio.to_thread(profiler.wait)
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
        process.stdout.close()


def _quoted(value: object) -> str:
    return json.dumps(str(value))
