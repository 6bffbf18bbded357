"""A private PostgreSQL: own folder, own port, gone without a trace.

::

    with Postgres() as server:                       # session fixture `postgres` in tests/conftest.py
        url = server.new_database()                  # empty, postgresql+asyncpg://…; give it to `Database.open`
        await server.restart()                       # every connection dies, all data stays
        await server.terminate_connections()         # the same for connections alone

PostgreSQL refuses to run as root, so it runs as the current user, or as ``nobody`` where the tests run as root. Nothing
is synced to disk: the tests are about transactions and connections, not about power cuts.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

from mailmill.store.postgres_schema import upgrade
from servers.ports import LOOPBACK, Watchdog, free_ports, stop_process

_CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = @PORT@
unix_socket_directories = '@ROOT@'
max_connections = 300
shared_buffers = 64MB
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 512MB
log_min_messages = warning
log_line_prefix = '%t [%p] %a '
"""

USER = "mailmill"


class Postgres:
    """One server. ``settings`` go into its configuration, its folder into ``parent`` (by default where temporary files
    go). Raises RuntimeError with the end of its log where it does not start.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, *, parent: Path | None = None) -> None:
        self.host = LOOPBACK
        self.port = 0
        self.password = secrets.token_urlsafe(12)
        self._settings = dict(settings or {})
        self._parent = parent
        self._owner = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        self._root = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None
        self._names = itertools.count(1)
        self._template = ""

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def start(self) -> None:
        """Start, or start again after ``stop`` on the same port with the same data. Ready when it returns."""
        if _program("postgres") is None:
            raise RuntimeError("PostgreSQL is not installed: run `make test`, or `apt-get install postgresql`")
        first = not self.port
        if first:
            self._make_cluster()
        for _ in range(5 if first else 1):
            if first:
                (self.port,) = free_ports(1)
                self._configure()
            self._process = self._popen("postgres", "-D", str(self._root / "data"))
            self._watchdog = Watchdog(self._process, self._root)
            if self._wait_ready():
                return
            self.stop()
        raise RuntimeError(f"PostgreSQL did not start:\n{self.log()[-2000:]}")

    def stop(self) -> None:
        """End the server and cut all its connections (its fast shutdown); the data stays until the context is left."""
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(2)  # SIGINT: cut connections, then end in order
                try:
                    self._process.wait(20)
                except subprocess.TimeoutExpired:
                    self._process.send_signal(3)  # SIGQUIT: at once
            stop_process(self._process)
            self._process = None

    async def restart(self) -> None:
        """Stop and start on the same port: every connection dies, all data stays."""
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.start)

    def log(self) -> str:
        file = self._root / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    # -- databases ----------------------------------------------------------------------------------------------------

    def url(self, database: str, *, port: int | None = None) -> str:
        """``port``: of what stands before the server."""
        return f"postgresql+asyncpg://{USER}:{self.password}@{self.host}:{port or self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a new, empty database. Blocking, some 30 ms."""
        name = f"test{next(self._names)}"
        self._psql(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.url(name)

    def new_store(self) -> str:
        """The URL of a new database with mailmill's schema and nothing else. Blocking, some 100 ms."""
        if not self._template:
            url = self.new_database()
            # In a thread, for callers in whose own one a loop runs.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, upgrade(url)).result()
            self._template = url.rpartition("/")[2]
        name = f"test{next(self._names)}"
        self._psql(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY file_copy")
        return self.url(name)

    def drop(self, url: str) -> None:
        """The database is gone, and whoever is connected to it is cut off. Blocking, some 50 ms."""
        self._psql(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    async def terminate_connections(self, url: str = "") -> int:
        """``pg_terminate_backend`` on all connections of one database, or of all; how many there were."""
        database = url.rpartition("/")[2]
        rows = await self.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND ($1 = '' OR datname = $1)",
            database,
        )
        return len(rows)

    async def fetch(self, sql: str, *parameters: Any, url: str = "") -> list[Any]:
        """Rows of a statement of the administrator's, in the database of ``url``, or in one that is nobody's."""
        connection = await asyncpg.connect(
            host=str(self._root), port=self.port, user=USER, database=url.rpartition("/")[2] or "postgres"
        )
        try:
            return list(await connection.fetch(sql, *parameters))
        finally:
            await connection.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _make_cluster(self) -> None:
        # Not below pytest's tmp_path: that is closed to other users, and a path too long for Unix sockets.
        self._root = Path(tempfile.mkdtemp(prefix="mm-postgres-", dir=self._parent))
        if os.getuid() == 0:
            os.chown(self._root, self._owner.pw_uid, self._owner.pw_gid)
        made = self._popen(
            "initdb", "-D", str(self._root / "data"), "-U", USER, "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync"
        )
        if made.wait(60):
            raise RuntimeError(f"initdb failed:\n{self.log()[-2000:]}")

    def _configure(self) -> None:
        data = self._root / "data"
        text = _CONFIGURATION.replace("@PORT@", str(self.port)).replace("@ROOT@", str(self._root))
        text += "".join(f"{name} = {value}\n" for name, value in self._settings.items())
        (data / "postgresql.conf").write_text(text)
        # The folder is ours alone, so its socket needs no password; a port is everybody's.
        (data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")

    def _wait_ready(self, timeout_seconds: float = 30) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + timeout_seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self._psql(f"ALTER ROLE {USER} PASSWORD '{self.password}'")
            except RuntimeError:
                time.sleep(0.02)
            else:
                return True
        return False

    def _psql(self, sql: str) -> None:
        done = subprocess.run(
            [
                _program("psql") or "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1",
                "-h", str(self._root), "-p", str(self.port), "-U", USER, "-d", "postgres", "-c", sql,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace").replace(self.password, "…"))

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        as_root = os.getuid() == 0
        with (self._root / "log").open("ab") as log:
            return subprocess.Popen(
                [_program(program) or program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                user=self._owner.pw_uid if as_root else None,
                group=self._owner.pw_gid if as_root else None,
                extra_groups=[] if as_root else None,
                start_new_session=True,  # Ctrl-C in a terminal is for pytest, which then stops us in order
            )


def _program(name: str) -> str | None:
    """PostgreSQL's own programs lie outside of everybody's PATH on Debian; the newest version is taken."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: [int(n) for n in re.findall(r"\d+", str(folder))]
    )
    folders = [os.environ.get("PATH", os.defpath), *(str(folder) for folder in reversed(versions))]
    return shutil.which(name, path=":".join(folders))
