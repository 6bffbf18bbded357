"""pymap in a child process: a real server of another make, without CONDSTORE, so it is the plain tier.

It keeps its mail in memory; one user with three mailboxes comes from its demo data, any other finds an empty INBOX.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from mailmill.model import Credentials, Endpoint, Tls
from servers.mail_server import Traits
from servers.over_imap import OverImap
from servers.ports import LOOPBACK, Watchdog, free_ports, stop_process, wait_listening

DEMO_USER = "demouser"


class Pymap(OverImap):
    """One server with demo data. Raises RuntimeError with what it printed where it does not start."""

    traits = Traits(tier="plain", idle_misses_what_came_before=True, forgets_when_stopped=True)

    def __init__(self) -> None:
        self.host = LOOPBACK
        self.port = 0
        self._output: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None
        self._users = itertools.count(1)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start with fresh demo data. Ready when it returns."""
        said = ""
        for _ in range(5):
            self.port = self.port or free_ports(1)[0]
            self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives until stop()
            # -P: this folder's own `pymap` must not stand before the package.
            command = [sys.executable, "-P", str(Path(__file__).with_name("pymap_program.py"))]
            command += ["--host", self.host, "--port", str(self.port), "--no-tls"]
            command += ["--no-service", "admin", "--no-service", "managesieve", "dict", "--demo-data"]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._watchdog = Watchdog(self._process)
            if wait_listening(self.port, self._process):
                return
            said = self.output()
            self.stop()
            self.port = 0
        raise RuntimeError(f"pymap did not start:\n{said[-2000:]}")

    def stop(self) -> None:
        """End the server; its mail is gone with it."""
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        if self._process is not None:
            # It has nothing to bring to safety, and may wait for ever for a client that is not gone.
            stop_process(self._process, grace_seconds=0.5)
            self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None

    async def restart(self) -> None:
        """Stop and start on the same port, with fresh demo data and nothing else."""
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.start)

    def output(self) -> str:
        """What the server printed so far."""
        if self._output is None:
            return ""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def endpoint(self) -> Endpoint:
        return Endpoint(self.host, self.port, Tls.NONE)

    def credentials(self, user: str = DEMO_USER) -> Credentials:
        return Credentials(user, "demopass")

    def new_user(self) -> str:
        """A user name that nobody has used on this server: an empty account of its own for each test."""
        return f"user{next(self._users)}"
