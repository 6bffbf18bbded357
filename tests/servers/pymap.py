"""pymap in a child process: a real server of another make, without CONDSTORE, so it is the plain tier.

It keeps its mail in memory; one user with three mailboxes comes from its demo data.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from types import TracebackType
from typing import IO, Self

from mailmill.model import Credentials, Endpoint, Tls
from servers.ports import LOOPBACK, Watchdog, free_ports, stop_process, wait_listening


class Pymap:
    """One server with demo data. Raises RuntimeError with what it printed where it does not start."""

    def __init__(self) -> None:
        self.host = LOOPBACK
        self.port = 0
        self._output: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None

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
            command = [sys.executable, "-c", "from pymap.main import main; main()"]
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
            stop_process(self._process)
            self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None

    def output(self) -> str:
        """What the server printed so far."""
        if self._output is None:
            return ""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def endpoint(self) -> Endpoint:
        return Endpoint(self.host, self.port, Tls.NONE)

    def credentials(self) -> Credentials:
        return Credentials("demouser", "demopass")
