"""What a row is given to work with: the size of the run, servers, folders, programs, and a bar to move."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from bench import corpus, durable
from bench.durable import Redis
from bench.processes import Programs
from bench.queue_stores import QueueStores
from bench.roomy import Roomy
from servers.dovecot import Dovecot
from servers.postgres import Postgres

T = TypeVar("T")

BULK_USER = "bulk"
EMPTY_USER = "empty"


class Bar(Protocol):
    """Where the progress of a row is shown."""

    def expect(self, steps: int) -> None: ...
    def doing(self, what: str) -> None: ...
    def advance(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BulkMailbox:
    """The large INBOX of ``BULK_USER``: UIDs 1 to ``messages``, assigned, and its files in the page cache."""

    messages: int
    size_bytes: int


class Stage:
    """Shared by the rows of one run; the server and the large mailbox are made when first asked for."""

    def __init__(self, *, quick: bool, programs: Programs) -> None:
        self.quick = quick
        self.programs = programs
        self.bar: Bar
        self._stack = contextlib.ExitStack()
        self._dovecot: Dovecot | None = None
        self._bulk: BulkMailbox | None = None
        self._roomy: Roomy | None = None
        self._postgres: Postgres | None = None
        self._redis: Redis | None = None
        self._queues: QueueStores | None = None
        self._many: set[int] = set()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def size(self, full: int, quick: int) -> int:
        """How much of something: ``full`` is what the goals speak of."""
        return quick if self.quick else full

    @property
    def dovecot(self) -> Dovecot:
        if self._dovecot is None:
            self._dovecot = self._stack.enter_context(Dovecot())
        return self._dovecot

    @property
    def roomy(self) -> Roomy:
        """Where mailboxes of very many messages are; see `many`."""
        if self._roomy is None:
            self._roomy = self._stack.enter_context(Roomy())
        return self._roomy

    @property
    def postgres(self) -> Postgres:
        """Syncs to disk, as one would have it in production."""
        if self._postgres is None:
            self._postgres = self._stack.enter_context(durable.postgres())
        return self._postgres

    @property
    def redis(self) -> Redis:
        """Syncs to disk at every write."""
        if self._redis is None:
            self._redis = self._stack.enter_context(Redis())
        return self._redis

    @property
    def queues(self) -> QueueStores:
        """Stores with long queues, each made once in a run."""
        if self._queues is None:
            self._queues = QueueStores(self.programs, lambda: self.postgres, self._stack.enter_context(self.folder()))
        return self._queues

    async def many(self, count: int, *, seed: int) -> str:
        """The user of `roomy` whose INBOX has ``count`` small messages, made once in a run."""
        user = self.many_user(count)
        if count not in self._many:
            await asyncio.to_thread(self.roomy.fill, user, count, seed=seed)
            self._many.add(count)
        return user

    @staticmethod
    def many_user(count: int) -> str:
        return f"many{count}"

    async def bulk(self) -> BulkMailbox:
        """5,000 messages, 239 MB (fewer in a quick run), delivered once and read by every row that wants them."""
        if self._bulk is None:
            self.bar.doing("filling the large mailbox")
            count = self.size(5000, 2000)
            server, total = self.dovecot, 0

            def delivered() -> Iterator[bytes]:
                nonlocal total
                for raw in corpus.messages(count):
                    total += len(raw)
                    yield raw

            await asyncio.to_thread(server.fill, BULK_USER, "INBOX", delivered())
            # What is still to be written to disk would be written while something is timed.
            await asyncio.to_thread(os.sync)
            self._bulk = BulkMailbox(count, total)
        return self._bulk

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder on disk (not in memory, where fsync costs nothing), gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="mm-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as made:
            yield Path(made)

    async def interleaved(
        self, rounds: int, sides: Mapping[str, Callable[[], Awaitable[T]]], *, warm_up: int = 1
    ) -> dict[str, list[T]]:
        """A B A B …: each side ``rounds`` times, after ``warm_up`` rounds whose outcome is thrown away."""
        measured: dict[str, list[T]] = {name: [] for name in sides}
        for number in range(-warm_up, rounds):
            for name, side in sides.items():
                turn = f"{number + 1}/{rounds}" if number >= 0 else "warming up"
                self.bar.doing(f"{name} {turn}")
                outcome = await side()
                if number >= 0:
                    measured[name].append(outcome)
                self.bar.advance()
        return measured
