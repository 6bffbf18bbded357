"""Dying on purpose, inside the process that is to die: every commit point reports here, and at one of them it ends.

The points are found from outside, by wrapping the doors that all writes go through (`SqliteDatabase.write` and
`transact`, `BlobStore.put_batch`) and the functions that say what a transaction is about; ``src`` knows nothing of it.

A transaction is named after what it does (`Killer.install`), and comes to two phases: ``…/uncommitted``, when all is
written and COMMIT not yet said, and ``…/committed``, before anybody in the process has learnt of it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import mailmill.sync.context
from mailmill.imap.connection import ImapConnection
from mailmill.store import accounts, messages, queue, queue_exchange, requests
from mailmill.store.blobs import BlobStore
from mailmill.store.sqlite_database import SqliteDatabase


class Killer:
    """Notes every phase in the file ``log``, and at the ``at``-th time it comes to ``phase`` once `armed`, kills."""

    def __init__(self, log: str, phase: str, at: int) -> None:
        self.armed = False
        self._log = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._phase = phase
        self._left = at
        self._transaction: list[str] = []
        self._opened = False
        self._step: list[str] | None = None
        self._lock = threading.Lock()

    def came_to(self, phase: str) -> None:
        # Also in the writer's thread: what others come to while this one dies must not be noted after it.
        with self._lock:
            self._came_to(phase)

    def _came_to(self, phase: str) -> None:
        hit = self.armed and phase == self._phase
        self._left -= hit
        fatal = hit and self._left == 0
        # What is written to a file survives the process, if not the machine.
        os.write(self._log, f"{'killed at ' if fatal else ''}{phase}\n".encode())
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def observe(self, stage: str, _seconds: float) -> None:
        """What a worker reports: the time between a processor's end and the record of it."""
        if stage.startswith("ran:"):
            self.came_to("ran")

    def install(self) -> None:
        """Wrap the doors. Once in a process."""
        self._wrap_transactions()
        self._wrap_blobs()
        self._wrap_commands()
        for module, name, point in (
            (accounts, "ensure_account", "account"),
            (accounts, "set_state", "state"),
            (accounts, "mark_initialized", "initialized"),
            (messages, "apply_mailbox_list", "mailboxes"),
            (messages, "reset_mailbox", "generation"),
            (messages, "expunge_old_generation", "old_generation"),
            (messages, "park", "parked"),
            (requests, "add", "request"),
            (requests, "begin", "request_begun"),
            (requests, "copied", "request_copied"),
            (requests, "finish", "request_done"),
            (requests, "fail", "request_failed"),
            (requests, "defer", "request_deferred"),
            (requests, "relocate", "request_relocated"),
            (queue, "heartbeat", "heartbeat"),
            (queue, "release", "retired"),
            (queue, "retire", "retired"),
        ):
            self._wrap(module, name, lambda _arguments, _result, point=point: (point,))
        self._wrap(messages, "confirm_deleted", lambda _arguments, count: ("deleted",) if count else ("quiet",))
        self._wrap_step(queue_exchange, "claim_within", lambda claims: "claim" if claims else "quiet")
        self._wrap_step(queue_exchange, "finish_within", lambda report: "finish" if report.recorded else "quiet")
        self._wrap(mailmill.sync.context, "apply_batch", lambda arguments, outcome: of_batch(arguments[1], outcome))

    def _wrap(self, module: Any, name: str, points: Callable[[Any, Any], tuple[str, ...]]) -> None:
        real = getattr(module, name)

        async def wrapper(*arguments: Any, **options: Any) -> Any:
            result = await real(*arguments, **options)
            self._transaction += points(arguments, result)
            return result

        setattr(module, name, wrapper)

    def _wrap_step(self, module: Any, name: str, point: Callable[[Any], str]) -> None:
        """A function that is called in the writer's thread."""
        real = getattr(module, name)

        def wrapper(*arguments: Any) -> Any:
            result = real(*arguments)
            (self._transaction if self._step is None else self._step).append(point(result))
            return result

        setattr(module, name, wrapper)

    def _wrap_transactions(self) -> None:
        real, real_transact = SqliteDatabase.write, SqliteDatabase.transact
        killer = self

        @asynccontextmanager
        async def write(self: SqliteDatabase, **options: Any) -> AsyncIterator[Any]:
            points: list[str] = []
            async with real(self, **options) as connection:
                # There is one writer at a time, so what is noted until the block ends is of this transaction; but for
                # a step of before that still runs, which has a list of its own.
                killer._transaction = points
                yield connection
                if not points and killer._opened:
                    points.append("unknown")
                for point in points:
                    killer.came_to(f"{point}/uncommitted")
            for point in points:
                killer.came_to(f"{point}/committed")
            # The first transaction is the empty one with which a database opens.
            killer._opened = True

        async def transact(self: SqliteDatabase, step: Callable[[Any], Any]) -> Any:
            points: list[str] = []

            def whole(visitor: Any) -> Any:
                # In the writer's thread, where nothing of another transaction runs meanwhile.
                killer._step = points
                try:
                    result = step(visitor)
                finally:
                    killer._step = None
                if not points:
                    points.append("unknown")
                for point in points:
                    killer.came_to(f"{point}/uncommitted")
                return result

            result = await real_transact(self, whole)
            for point in points:
                killer.came_to(f"{point}/committed")
            return result

        SqliteDatabase.write = write  # type: ignore[method-assign]
        SqliteDatabase.transact = transact  # type: ignore[method-assign]

    def _wrap_blobs(self) -> None:
        real = BlobStore.put_batch
        killer = self

        async def put_batch(self: BlobStore, contents: Any) -> Any:
            killer.came_to("blobs/unwritten")
            refs = await real(self, contents)
            killer.came_to("blobs/synced")
            return refs

        BlobStore.put_batch = put_batch  # type: ignore[method-assign]

    def _wrap_commands(self) -> None:
        """When a command that changes mail is answered: the server has done it, and nobody here knows yet."""
        for name, command in (
            ("store_flags", "UID STORE"),
            ("move", "UID MOVE"),
            ("copy", "UID COPY"),
            ("append", "APPEND"),
            ("expunge", "UID EXPUNGE"),
        ):
            self._wrap_command(name, f"answered/{command}")

    def _wrap_command(self, name: str, phase: str) -> None:
        real = getattr(ImapConnection, name)

        async def wrapper(*arguments: Any, **options: Any) -> Any:
            reply = await real(*arguments, **options)
            self.came_to(phase)
            return reply

        setattr(ImapConnection, name, wrapper)


def of_batch(batch: Any, outcome: Any) -> tuple[str, ...]:
    """What a batch of a sync changed: the points of its commit."""
    points = []
    if outcome.new:
        points.append("new")
    if len(batch.arrivals) > outcome.new:
        points.append("added")
    if batch.flag_changes and outcome.updated:
        points.append("flags")
    if outcome.expunged:
        points.append("expunged")
    return tuple(points) or ("cursor",)
