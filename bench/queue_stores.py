"""Stores for the rows that are about the queue: where one lies, how long its queue is, and programs that work on it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.processes import Programs
from servers.postgres import Postgres

KINDS: Final = {"SQLite": "sqlite", "PostgreSQL": "postgresql"}
"""Name in the table → make of database."""

WORKERS: Final = {"sqlite": 2, "postgresql": 4}
"""How many workers drain at once, within one process: one writes at a time on SQLite, and the other then has its
outcomes ready; on PostgreSQL each has a connection."""

_TIMEOUT_SECONDS = 1200


class QueueStore:
    """One database and its data folder. Made by `QueueStores`."""

    def __init__(self, programs: Programs, kind: str, url: str, folder: Path) -> None:
        self.kind = kind
        self.url = url
        self.folder = folder
        self.rows = 0
        """How many were queued at first."""
        self._programs = programs

    async def grow(self, rows: int, *, accounts: int = 1) -> None:
        """Queue messages until there were ``rows``."""
        if rows > self.rows:
            await self.step("queue_steps", "grow", self.rows + 1, rows, accounts)
            self.rows = rows

    async def step(self, module: str, step: str, *numbers: int) -> Any:
        """What a program of ``bench.sides`` told; each is a process of its own."""
        command = self.command(module, step, *numbers)
        return (await self._programs.run(f"{step}-{self.kind}", command, timeout_seconds=_TIMEOUT_SECONDS)).json

    def command(self, module: str, step: str, *numbers: int, folder: Path | None = None) -> list[str]:
        return self._programs.side(module, self.url, folder or self.folder, step, *numbers)

    def node_folder(self, number: int) -> Path:
        """A further node's data folder: its own, with the raw messages that all share."""
        folder = self.folder / f"node{number}"
        folder.mkdir(exist_ok=True)
        if not (folder / "mail").exists():
            (folder / "mail").symlink_to(self.folder / "mail")
        return folder

    def clear(self) -> None:
        """Its files are of no use any more; a database on a server goes with the server."""
        shutil.rmtree(self.folder, ignore_errors=True)


class QueueStores:
    """Makes stores in ``folder`` and on a PostgreSQL that is started at the first one."""

    def __init__(self, programs: Programs, postgres: Callable[[], Postgres], folder: Path) -> None:
        self._programs = programs
        self._postgres = postgres
        self._folder = folder
        self._long: dict[str, QueueStore] = {}

    def new(self, kind: str) -> QueueStore:
        """An empty one."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        url = self._postgres().new_database() if kind == "postgresql" else f"sqlite+aiosqlite:///{folder}/mailmill.db"
        return QueueStore(self._programs, kind, url, folder)

    async def long(self, kind: str, rows: int) -> QueueStore:
        """One that several rows of the table share: ``rows`` of one account, less what they have worked off."""
        store = self._long.get(kind) or self._long.setdefault(kind, self.new(kind))
        await store.grow(rows)
        return store
