"""The demo itself: a configuration in a folder of its own, the service on it, mail that keeps coming."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from mailmill.app import logs
from mailmill.app.demo.mail_server import USERNAME, DemoServer, demo_server
from mailmill.app.demo.narrator import JsonNarrator, Narrator, TerminalNarrator
from mailmill.app.demo.receiver import receiver
from mailmill.app.demo.samples import AUTHSERV_ID, RECIPIENT, SAMPLES, compose, first_mailbox
from mailmill.app.supervisor import Application, run_service
from mailmill.app.use_cases import UseCases
from mailmill.settings import load_settings

_PORT = 8025
_INTERVAL_SECONDS = 4.0
_FIRST_DELAY_SECONDS = 1.5
_FOLLOW_SECONDS = 25.0


class Serve(Protocol):
    def __call__(
        self, application: Application, *, announce: Callable[[str], None]
    ) -> AbstractAsyncContextManager[None]: ...


async def run_demo(*, serve: Serve, as_json: bool = False, interval_seconds: float = _INTERVAL_SECONDS) -> None:
    """Until Ctrl-C. ``serve`` opens the API, as for ``mailmill run``. Raises what `run_service` raises."""
    narrator: Narrator = JsonNarrator() if as_json else TerminalNarrator()

    def heard(event: dict[str, Any]) -> None:
        if event["event"] == "threatFound":
            narrator.alerted(event)

    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    with tempfile.TemporaryDirectory(prefix="mailmill-demo-", ignore_cleanup_errors=True) as folder:
        async with demo_server() as server, receiver(secret, heard) as hook:
            for mailbox, raw in await asyncio.to_thread(first_mailbox, datetime.now(UTC)):
                await server.append(mailbox, raw)
            config = Path(folder) / "config.toml"
            await asyncio.to_thread(_write_config, config, server, hook, secret)
            settings = load_settings(config, {"HOME": os.environ.get("HOME", folder)})
            logs.configure(level="warning", form="console", file=settings.service.log_file)

            @contextlib.asynccontextmanager
            async def serving(application: Application) -> AsyncIterator[None]:
                async with serve(application, announce=narrator.link), asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(_narrate(UseCases(application), narrator)),
                        group.create_task(_feed(server, interval_seconds)),
                    ]
                    try:
                        yield
                    finally:
                        for task in tasks:
                            task.cancel()

            await run_service(settings, serve=serving)


async def _feed(server: DemoServer, interval_seconds: float) -> None:
    await asyncio.sleep(_FIRST_DELAY_SECONDS)
    for number, sample in enumerate(itertools.cycle(SAMPLES), start=100):
        await server.append(sample.mailbox, compose(sample, sent_at=datetime.now(UTC), number=number))
        await asyncio.sleep(interval_seconds)


async def _narrate(use_cases: UseCases, narrator: Narrator) -> None:
    cursor = 0
    while True:
        page = await use_cases.events(cursor, 100, _FOLLOW_SECONDS)
        cursor = int(page["cursor"])
        for event in page["events"]:
            if event["event"] == "messageProcessed":
                narrator.processed(await use_cases.message(event["account"], event["data"]["id"]))


def _write_config(path: Path, server: DemoServer, hook: str, secret: str) -> None:
    path.write_text(
        f"""\
[service]
data_dir = "data"
listen = "127.0.0.1:{_free_port(_PORT)}"
log_file = "data/mailmill.log"

[accounts.demo]
email = "{RECIPIENT}"
authserv_id = "{AUTHSERV_ID}"
imap = {{ host = "{server.host}", port = {server.port}, tls = "none" }}
username = "{USERNAME}"
password = "{server.password}"

[destinations.demo-webhook]
kind = "webhook"
url = "{hook}"
secret = "{secret}"
events = ["messageNew", "messageProcessed", "threatFound"]
allow_private = true
"""
    )
    path.chmod(0o600)


def _free_port(preferred: int) -> int:
    """``preferred`` if nobody listens there, else any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            bound: int = probe.getsockname()[1]
            return bound
    return preferred
