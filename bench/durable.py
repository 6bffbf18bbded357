"""A PostgreSQL and a Redis of the run's own that sync to disk what they acknowledge, as one would have it in
production.

The PostgreSQL is the tests' with that which they switch off put back on, and memory as for a database of this size.
Redis syncs its append-only file at every write (``appendfsync always``): that is what the other side does at every
commit.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from bench.processes import BenchError
from servers.ports import LOOPBACK, Watchdog, free_ports, stop_process
from servers.postgres import Postgres

_START_SECONDS = 30
_POSTGRES_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
}


def disk() -> Path:
    """Where data lies: on a disk, not in memory, where syncing costs nothing."""
    return Path(os.environ.get("TMPDIR", "/var/tmp"))


def postgres() -> Postgres:
    """Not yet started. Raises BenchError where PostgreSQL is not installed."""
    if shutil.which("postgres") is None and not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        raise BenchError("PostgreSQL is not installed: apt-get install postgresql")
    return Postgres(_POSTGRES_SETTINGS, parent=disk())


class Redis:
    """``with Redis() as server``: ``server.url(0)`` is its database 0. Raises BenchError where it does not start."""

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise BenchError("redis-server is not installed: apt-get install redis-server")
        self._program = program
        self._port = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="mm-redis-", dir=disk()))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
            if user is not None:
                os.chown(folder, user.pw_uid, user.pw_gid)
            [self._port] = free_ports(1)
            command = [self._program, "--port", str(self._port), "--bind", LOOPBACK, "--dir", str(folder)]
            command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    user=user and user.pw_uid,
                    group=user and user.pw_gid,
                )
            stack.callback(stop_process, process)
            stack.callback(Watchdog(process, folder).dismiss)
            self._wait(process, folder / "log")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, database: int) -> str:
        return f"redis://{LOOPBACK}:{self._port}/{database}"

    def _wait(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self._port), timeout=5):
                return
            time.sleep(0.02)
        raise BenchError(f"Redis did not start: {log.read_text(errors='replace')[-1000:]}")
