"""A private pgbouncer before a `Postgres`: lends the server's connections for one transaction each.

::

    with PgBouncer(postgres) as pooler:
        url = pooler.url(database_url)      # the same database, by way of the pooler
        await pooler.restart()              # every connection through it dies
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from servers.ports import LOOPBACK, Watchdog, free_ports, stop_process
from servers.postgres import USER, Postgres

# Fewer connections to the server than a process has to us: no client keeps the one it had before.
_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port=@SERVER@
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = @PORT@
unix_socket_dir =
auth_type = scram-sha-256
auth_file = @ROOT@/users
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
server_login_retry = 0
logfile = @ROOT@/log
pidfile = @ROOT@/pid
"""
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class PgBouncer:
    """One pooler in transaction mode. Raises RuntimeError with the end of its log where it does not start."""

    def __init__(self, server: Postgres) -> None:
        self.port = 0
        self._server = server
        self._owner = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        self._root = Path()
        self._program = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None

    def __enter__(self) -> Self:
        program = shutil.which("pgbouncer", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
        if program is None:
            raise RuntimeError("pgbouncer is not installed: run `make test`, or `apt-get install pgbouncer`")
        self._root = Path(tempfile.mkdtemp(prefix="mm-pgbouncer-"))
        self._program = program
        for _ in range(5):
            (self.port,) = free_ports(1)
            self._configure()
            if self._start():
                return self
        raise RuntimeError(f"pgbouncer did not start:\n{self._log()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def url(self, database_url: str) -> str:
        return self._server.url(database_url.rpartition("/")[2], port=self.port)

    async def restart(self) -> None:
        """Stop and start on the same port."""
        await asyncio.to_thread(self._stop)
        if not await asyncio.to_thread(self._start):
            raise RuntimeError(f"pgbouncer did not start again:\n{self._log()}")

    def _start(self) -> bool:
        as_root = os.getuid() == 0
        self._process = subprocess.Popen(
            [self._program, "-q", str(self._root / "pgbouncer.ini")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._root,
            user=self._owner.pw_uid if as_root else None,
            group=self._owner.pw_gid if as_root else None,
            extra_groups=[] if as_root else None,
            start_new_session=True,  # Ctrl-C in a terminal is for pytest, which then stops us in order
        )
        self._watchdog = Watchdog(self._process, self._root)
        if self._wait_ready():
            return True
        self._stop()
        return False

    def _log(self) -> str:
        log = self._root / "log"
        return log.read_text()[-2000:] if log.exists() else ""

    def _configure(self) -> None:
        values = {"SERVER": str(self._server.port), "PORT": str(self.port), "ROOT": str(self._root)}
        text = _CONFIGURATION
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        (self._root / "pgbouncer.ini").write_text(text)
        (self._root / "users").write_text(f'"{USER}" "{self._server.password}"\n')
        if os.getuid() == 0:
            for path in (self._root, *self._root.iterdir()):
                shutil.chown(path, self._owner.pw_uid, self._owner.pw_gid)

    def _wait_ready(self, timeout_seconds: float = 20) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + timeout_seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with socket.create_connection((LOOPBACK, self.port), timeout=5) as link:
                    link.sendall(_SSL_REQUEST)
                    if link.recv(1):
                        return True
            except OSError:
                pass
            time.sleep(0.01)
        return False

    def _stop(self) -> None:
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        if self._process is not None:
            stop_process(self._process)
            self._process = None
