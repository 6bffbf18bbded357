"""The commit points of a node: each is written down as it is come to, and at one of them the node dies.

They are found from outside, as in `killing`: by wrapping the doors that all writes go through, and the functions that
say what a transaction is about; ``src`` knows nothing of it. On PostgreSQL several transactions are open at once, so
what is noted belongs to a connection; on SQLite one may still run in the writer's thread when the next one begins, so
what is noted in a step of that thread belongs to the step.

A transaction is named after what it does (`CommitPoints.install`) and comes to two phases: ``…/uncommitted``, when all
is written and COMMIT not yet said, and ``…/committed``, before anybody in the process has learnt of it. Beside these
are the phases between an effect on the outside and its record: ``blobs/…``, ``ran``, ``webhook/…``, ``answered/…``.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import mailmill.sync.context
from chaos.journal import Journal
from chaos.killing import of_batch
from chaos.orders import KILL, Orders
from mailmill.alerts.pump import Pump
from mailmill.alerts.webhook import WebhookSender
from mailmill.app import application, housekeeping, wiring
from mailmill.app.metrics import Metrics
from mailmill.errors import LeaseLostError, StorageFullError
from mailmill.imap.connection import ImapConnection
from mailmill.imap.spool import SpoolFile
from mailmill.store import (
    accounts,
    errands,
    leases,
    messages,
    outbox,
    queue,
    queue_exchange,
    requests,
    retention,
    sequencer,
)
from mailmill.store.blobs import BlobStore
from mailmill.store.owned_database import OwnedDatabase
from mailmill.store.postgres_database import PostgresDatabase
from mailmill.store.sqlite_database import SqliteDatabase

UNNAMED: Final = "unnamed"
QUIET: Final = "quiet"

Points = tuple[str, ...]
Namer = Callable[[Sequence[Any], Any], Points]

# Which transaction is meant where no function says so: the innermost of the doors that were gone through.
_inside: ContextVar[str] = ContextVar("inside", default=UNNAMED)


@dataclass(slots=True)
class _Noted:
    """What is known of an open transaction."""

    points: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, facts: Iterable[Any]) -> None:
        self.facts[name] = [*self.facts.get(name, ()), *facts]


class CommitPoints:
    """Writes phases into ``journal``, and obeys ``orders``."""

    def __init__(self, journal: Journal, orders: Orders) -> None:
        self._journal = journal
        self._orders = orders
        self._open: dict[Any, _Noted] = {}
        self._step = threading.local()
        self._numbers = itertools.count(1)
        self._working = False
        self._seen: set[str] = set()

    def come_to(self, phase: str) -> None:
        if phase not in self._seen:
            self._seen.add(phase)
            self._journal.write("came", phase=phase)
        if order := self._orders.at(phase):
            number, word = (signal.SIGKILL, "killed") if order == KILL else (signal.SIGSTOP, "stopped")
            self._journal.write("end", phase=phase, how=word)
            os.kill(os.getpid(), number)

    # -- wrapping -----------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Wrap the doors. Once in a process."""
        self._wrap_transactions()
        self._wrap_owners()
        for module, name, point in (
            (accounts, "ensure_account", "accounts"),
            (accounts, "pause_missing", "pause missing"),
            (accounts, "set_state", "state"),
            (accounts, "mark_initialized", "initialized"),
            (retention, "set_retention", "retention"),
            (messages, "apply_mailbox_list", "mailboxes"),
            (messages, "reset_mailbox", "generation"),
            (messages, "expunge_old_generation", "old generation"),
            (messages, "park", "parked"),
            (requests, "add", "request"),
            (requests, "begin", "request begun"),
            (requests, "copied", "request copied"),
            (requests, "finish", "request done"),
            (requests, "fail", "request failed"),
            (requests, "defer", "request deferred"),
            (requests, "relocate", "request relocated"),
            (errands, "add", "errand"),
            (errands, "answer", "errand answered"),
            (errands, "remove", "errand removed"),
            (leases, "renew", "renew"),
            (leases, "release", "hand over"),
            (leases, "retire", "leave"),
            (leases, "forget_dead", QUIET),
            (queue, "heartbeat", "heartbeat"),
            (queue, "release", "give back"),
            (queue, "retire", "retire"),
        ):
            self._name(module, name, lambda _arguments, _result, point=point: (point,))
        for module, name, point in (
            (messages, "confirm_deleted", "deleted"),
            (queue, "reap", "reap"),
            (queue, "drop_unconfigured", "drop"),
            (queue, "release_unknown", "give back"),
            (outbox, "plan_deliveries", "plan"),
            (outbox, "claim", "delivery claim"),
            (outbox, "release", "delivery give back"),
            (outbox, "recover", "recover"),
        ):
            self._name(module, name, lambda _arguments, result, point=point: (point,) if result else (QUIET,))
        self._name(queue, "promote_due", lambda _arguments, result: ("promote",) if result[0] else (QUIET,))
        self._name(sequencer, "number", lambda _arguments, result: ("number",) if result.events else (QUIET,))
        self._name(mailmill.sync.context, "apply_batch", lambda arguments, outcome: of_batch(arguments[1], outcome))
        self._wrap_leases()
        self._wrap_claims()
        self._wrap_finishes()
        self._wrap_effects()
        self._label(application, "open_key_ring", "key")
        self._label(wiring, "prove_place", "blob place")
        self._label(housekeeping, "one_round", "housekeeping")
        # Told to stop while it waited for its turn to write, it claims nothing.
        self._label(Pump, "_turn", QUIET)

    def _name(self, module: Any, name: str, points: Namer) -> None:
        real = getattr(module, name)

        async def wrapper(*arguments: Any, **options: Any) -> Any:
            result = await real(*arguments, **options)
            self._noted(arguments[0]).points += points(arguments, result)
            return result

        setattr(module, name, wrapper)

    def _label(self, module: Any, name: str, label: str) -> None:
        real = getattr(module, name)

        async def wrapper(*arguments: Any, **options: Any) -> Any:
            token = _inside.set(label)
            try:
                return await real(*arguments, **options)
            finally:
                _inside.reset(token)

        setattr(module, name, wrapper)

    def _noted(self, connection: Any) -> _Noted:
        # Reads go through other doors, and nothing is noted of them.
        return getattr(self._step, "noted", None) or self._open.get(connection) or _Noted()

    def _wrap_transactions(self) -> None:
        for name in ("write", "write_urgent"):
            setattr(PostgresDatabase, name, self._wrapped(getattr(PostgresDatabase, name)))
        SqliteDatabase.write = self._wrapped(SqliteDatabase.write)  # type: ignore[method-assign]
        SqliteDatabase.transact = self._wrapped_step(SqliteDatabase.transact)  # type: ignore[method-assign]

    def _wrapped(self, real: Any) -> Any:
        chaos = self

        @asynccontextmanager
        async def write(self: Any, **options: Any) -> AsyncIterator[Any]:
            noted = _Noted()
            with chaos._told_if_full("database", noted.points):
                async with real(self, **options) as connection:
                    ways = _ways(connection)
                    for each in ways:
                        chaos._open[each] = noted
                    try:
                        yield connection
                    finally:
                        for each in ways:
                            del chaos._open[each]
                    number = chaos._committing(noted, _inside.get())
            chaos._committed(noted, number)

        return write

    def _wrapped_step(self, real: Any) -> Any:
        chaos = self

        async def transact(self: SqliteDatabase, step: Callable[[Any], Any]) -> Any:
            noted, label, number = _Noted(), _inside.get(), 0

            def whole(visitor: Any) -> Any:
                nonlocal number
                chaos._step.noted = noted
                try:
                    result = step(visitor)
                finally:
                    del chaos._step.noted
                number = chaos._committing(noted, label)
                return result

            with chaos._told_if_full("database", noted.points):
                result = await real(self, whole)
            chaos._committed(noted, number)
            return result

        return transact

    @contextmanager
    def _told_if_full(self, door: str, points: Sequence[str] = ()) -> Iterator[None]:
        try:
            yield
        except StorageFullError:
            self._journal.write("full", door=door, points=list(points))
            raise

    def _committing(self, noted: _Noted, label: str) -> int:
        noted.points[:] = dict.fromkeys(noted.points or [label])
        if len(noted.points) > 1 and QUIET in noted.points:
            noted.points.remove(QUIET)
        number = next(self._numbers)
        if UNNAMED in noted.points:
            # For whoever is to name it.
            frames = traceback.extract_stack()
            noted.facts["by"] = [
                f"{frame.filename}:{frame.lineno}" for frame in frames if "/mailmill/" in frame.filename
            ]
        self._journal.write("committing", number=number, points=noted.points, **noted.facts)
        for point in noted.points:
            self.come_to(f"{point}/uncommitted")
        return number

    def _committed(self, noted: _Noted, number: int) -> None:
        self._journal.write("committed", number=number)
        for point in noted.points:
            self.come_to(f"{point}/committed")

    def _wrap_owners(self) -> None:
        real_write, real_hold = OwnedDatabase.write, leases.hold
        chaos = self

        @asynccontextmanager
        async def write(self: OwnedDatabase, **options: Any) -> AsyncIterator[Any]:
            try:
                async with real_write(self, **options) as connection:
                    yield connection
            except LeaseLostError:
                chaos._journal.write("refused", what="owner")
                raise

        async def hold(connection: Any, node_id: str, shard: int, epoch: int) -> bool:
            # The clock says that the lease holds, and the database has not been asked.
            chaos.come_to("hold/unasked")
            held = await real_hold(connection, node_id, shard, epoch)
            if held:
                chaos._noted(connection).facts["owner"] = (shard, epoch)
            return held

        OwnedDatabase.write = write  # type: ignore[method-assign]
        leases.hold = hold

    def _wrap_leases(self) -> None:
        real = leases.take

        async def take(connection: Any, *arguments: Any) -> Any:
            epochs = await real(connection, *arguments)
            noted = self._noted(connection)
            noted.facts["took"] = epochs
            noted.points.append("take" if epochs else QUIET)
            return epochs

        leases.take = take

    def _wrap_claims(self) -> None:
        real, real_limited = queue_exchange.claim_within, queue.claim_limited
        real_exchange = queue_exchange.Exchange.__call__

        def claim(connection: Any, *arguments: Any) -> Any:
            self._begin_to_work()
            claims = real(connection, *arguments)
            self._note_claims(connection, claims)
            return claims

        async def claim_limited(connection: Any, **options: Any) -> Any:
            self._begin_to_work()
            claims, more = await real_limited(connection, **options)
            self._note_claims(connection, claims)
            return claims, more

        def exchange(asked: queue_exchange.Exchange, connection: Any) -> Any:
            exchanged = real_exchange(asked, connection)
            if not exchanged.looked:
                # It waited so long that it had to prove its life first.
                self._noted(connection).points.append(QUIET)
            return exchanged

        queue_exchange.claim_within, queue.claim_limited = claim, claim_limited
        queue_exchange.Exchange.__call__ = exchange  # type: ignore[method-assign]

    def _begin_to_work(self) -> None:
        if not self._working:
            self._working = True
            self._journal.write("working")

    def _note_claims(self, connection: Any, claims: Sequence[Any]) -> None:
        noted = self._noted(connection)
        noted.points.append("claim" if claims else QUIET)
        noted.add("claimed", map(_key, claims))

    def _wrap_finishes(self) -> None:
        real, real_delivery = queue_exchange.finish_within, outbox.finish

        def finish(connection: Any, worker_id: str, finished: Any, failed: Any, now: float) -> Any:
            self.come_to("finish/unasked")
            report = real(connection, worker_id, finished, failed, now)
            noted = self._noted(connection)
            noted.points.append("finish" if report.recorded else QUIET)
            if report.stale:
                self._journal.write("refused", what="finish")
            else:
                noted.add("recorded", (_key(done.claim) for done in finished))
            return report

        async def finish_delivery(connection: Any, worker_id: str, outcomes: Any, now: Any) -> int:
            written = await real_delivery(connection, worker_id, outcomes, now)
            self._noted(connection).points.append("delivery finish" if written else QUIET)
            if written < len(outcomes):
                self._journal.write("refused", what="delivery")
            return written

        queue_exchange.finish_within, outbox.finish = finish, finish_delivery

    def _wrap_effects(self) -> None:
        observe = Metrics.observe

        def observed(metrics: Metrics, stage: str, seconds: float) -> None:
            observe(metrics, stage, seconds)
            if stage.startswith("ran:"):
                self.come_to("ran")

        Metrics.observe = observed  # type: ignore[method-assign]
        self._around(BlobStore, "put_batch", "blobs/unwritten", "blobs/synced", door="segments")
        self._around(SpoolFile, "ready", None, None, door="spool")
        self._around(WebhookSender, "send", "webhook/unsent", "webhook/answered")
        self._around(ImapConnection, "store_flags", None, "answered/UID STORE")
        self._around(ImapConnection, "move", None, "answered/UID MOVE")

    def _around(self, owner: Any, name: str, before: str | None, after: str | None, door: str = "") -> None:
        real = getattr(owner, name)

        async def wrapper(*arguments: Any, **options: Any) -> Any:
            if before is not None:
                self.come_to(before)
            with self._told_if_full(door):
                result = await real(*arguments, **options)
            if after is not None:
                self.come_to(after)
            return result

        setattr(owner, name, wrapper)


def _ways(connection: Any) -> list[Any]:
    """What functions of the store are given for it: either of SQLAlchemy's two connections; on SQLite, in the writer's
    thread, that thread's own."""
    driver = getattr(connection, "driver", None)
    return [connection, connection.sync_connection, *([driver._visitor] if driver is not None else [])]


def _key(claim: Any) -> tuple[int, str, int]:
    return claim.message_id, claim.processor, claim.fence
