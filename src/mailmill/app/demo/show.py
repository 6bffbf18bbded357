"""The demo itself: a configuration in a folder of its own, the service on it, mail that keeps coming."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import structlog

from mailmill.app import logs
from mailmill.app.application import Application
from mailmill.app.demo.mail_server import USERNAME, DemoServer, demo_server
from mailmill.app.demo.narrator import JsonNarrator, Narrator, Opening, TerminalNarrator
from mailmill.app.demo.receiver import receiver
from mailmill.app.demo.samples import AUTHSERV_ID, RECIPIENT, arriving, compose, first_mailbox
from mailmill.app.supervisor import run_service
from mailmill.app.use_cases import UseCases
from mailmill.errors import ConfigurationError, ConnectError
from mailmill.settings import Settings, load_settings

_PORT = 8025
_INTERVAL_SECONDS = 4.0
_FOLLOW_SECONDS = 25.0
_PREFIX = "mailmill-demo-"
_LONGEST_PARENT = 60

_log = structlog.get_logger("mailmill.demo")


class Serve(Protocol):
    def __call__(
        self, application: Application, *, announce: Callable[[str], None]
    ) -> AbstractAsyncContextManager[None]: ...


async def run_demo(*, serve: Serve, as_json: bool = False, interval_seconds: float = _INTERVAL_SECONDS) -> None:
    """Until Ctrl-C, SIGTERM, the terminal's end, or nobody reads what it says.

    ``serve`` opens the API, as for ``mailmill run``. Raises what `run_service` raises.
    """
    narrator: Narrator = JsonNarrator() if as_json else TerminalNarrator()
    show = _Show(narrator, interval_seconds)
    with _as_ctrl_c(signal.SIGTERM, signal.SIGHUP):
        await show.run(serve)
    show.say(narrator.ended, processed=show.processed, alerted=show.alerted)


@dataclass(slots=True)
class _Stage:
    """What one demo runs on."""

    server: DemoServer
    hook: str
    secret: str
    config: Path


class _Show:
    """One demo: who tells it, and what it has told."""

    def __init__(self, narrator: Narrator, interval_seconds: float) -> None:
        self.processed = 0
        self.alerted = 0
        self._narrator = narrator
        self._interval_seconds = interval_seconds
        self._stop = asyncio.Event()
        self._synced = asyncio.Event()

    async def run(self, serve: Serve) -> None:
        self.say(self._narrator.starting)
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=_parent(), ignore_cleanup_errors=True) as folder:
            async with demo_server() as server, receiver(secret, self._heard) as hook:
                for mailbox, received_at, raw in first_mailbox(datetime.now(UTC)):
                    await server.append(mailbox, received_at, raw)
                stage = _Stage(server, hook, secret, Path(folder) / "config.toml")
                try:
                    await self._run_on(stage, serve, _free_port(_PORT))
                except* ConfigurationError as problems:
                    # Another program may have taken the port since we looked (two demos started at once do).
                    if problems.subgroup(_is_something_else) is not None:
                        raise
                    await self._run_on(stage, serve, _free_port(0))

    def say(self, tell: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Tell it; where nobody reads any more (a closed terminal, ``| head``), end the demo."""
        try:
            tell(*args, **kwargs)
        except OSError:
            self._stop.set()

    async def _run_on(self, stage: _Stage, serve: Serve, port: int) -> None:
        settings = await asyncio.to_thread(_configure, stage, port)
        logs.configure(level="warning", form="console", file=settings.service.log_file)

        def announce(link: str) -> None:
            opening = Opening(link, str(stage.config), _program(), self._interval_seconds)
            self.say(self._narrator.opened, opening)

        @contextlib.asynccontextmanager
        async def serving(application: Application) -> AsyncIterator[None]:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._stop.set)
            async with serve(application, announce=announce), asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._narrate(UseCases(application))),
                    group.create_task(self._feed(stage.server)),
                ]
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()

        await run_service(settings, serve=serving, stop=self._stop)

    async def _feed(self, server: DemoServer) -> None:
        # What comes before the first sync is over counts as history, and nobody would be told of it.
        await self._synced.wait()
        for number, sample in enumerate(itertools.cycle(arriving()), start=100):
            now = datetime.now(UTC)
            try:
                await server.append(sample.mailbox, now, compose(sample, sent_at=now, number=number))
            except ConnectError as error:
                _log.warning("a sample was not delivered", error=str(error), cause=str(error.__cause__))
            await asyncio.sleep(self._interval_seconds)

    async def _narrate(self, use_cases: UseCases) -> None:
        cursor = 0
        while True:
            page = await use_cases.events(cursor, 100, _FOLLOW_SECONDS)
            cursor = int(page["cursor"])
            for event in page["events"]:
                if event["event"] == "accountInitialized":
                    self._synced.set()
                elif event["event"] == "messageProcessed":
                    self.processed += 1
                    message = await use_cases.message(event["account"], event["data"]["id"])
                    self.say(self._narrator.processed, message)

    def _heard(self, event: dict[str, Any]) -> None:
        if event["event"] == "threatFound":
            self.alerted += 1
            self.say(self._narrator.alerted, event)


@contextlib.contextmanager
def _as_ctrl_c(*numbers: signal.Signals) -> Iterator[None]:
    """Signals that would kill us with a server running and a folder left do what Ctrl-C does.

    While the service runs it takes them itself; this is for the moments before.
    """
    before = {number: signal.signal(number, signal.getsignal(signal.SIGINT)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_something_else(problem: BaseException) -> bool:
    return isinstance(problem, ConfigurationError) and problem.key != "service.listen"


def _configure(stage: _Stage, port: int) -> Settings:
    """Write the demo's configuration and read it, as ``mailmill run`` would."""
    stage.config.write_text(
        f"""\
[service]
data_dir = "data"
listen = "127.0.0.1:{port}"
log_file = "data/mailmill.log"

[accounts.demo]
email = "{RECIPIENT}"
authserv_id = "{AUTHSERV_ID}"
imap = {{ host = "{stage.server.host}", port = {stage.server.port}, tls = "none" }}
username = "{USERNAME}"
password = "{stage.server.password}"

[destinations.demo-webhook]
kind = "webhook"
url = "{stage.hook}"
secret = "{stage.secret}"
events = ["messageNew", "messageProcessed", "threatFound"]
allow_private = true
"""
    )
    stage.config.chmod(0o600)
    return load_settings(stage.config, {"HOME": os.environ.get("HOME", str(stage.config.parent))})


def _parent() -> str | None:
    """Where temporary folders are made, unless that is too deep for the service's socket (108 bytes in all)."""
    return "/tmp" if len(tempfile.gettempdir()) > _LONGEST_PARENT else None  # noqa: S108  # the folder itself is ours alone


def _program() -> str:
    """How this program was called, for a person to call it again."""
    called = Path(sys.argv[0])
    return sys.argv[0] if called.name == "mailmill" else "mailmill"


def _free_port(preferred: int) -> int:
    """``preferred`` if nobody listens there, else any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            bound: int = probe.getsockname()[1]
            return bound
    return preferred
