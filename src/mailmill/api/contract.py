"""What the API needs of the application. ``mailmill.app`` satisfies it; tests do with a small fake.

Every method returns JSON-ready values: keys in camelCase, times as ISO 8601 in UTC, ids as strings. They raise
subclasses of ``MailmillError`` only; ``NotFoundError`` for an account, mailbox or message that is not there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Protocol

JsonObject = dict[str, Any]


class Changes(Protocol):
    """What is asked to be changed on the server. Each answers with the request, done or still to be done, after
    ``wait_seconds`` at most; one that failed raises.
    """

    async def flags(
        self,
        account: str,
        message_id: int,
        *,
        add: Collection[str],
        remove: Collection[str],
        path: str | None,
        uid: int | None,
        idempotency_key: str | None,
        wait_seconds: float,
    ) -> JsonObject: ...

    async def move(
        self,
        account: str,
        message_id: int,
        target_path: str,
        *,
        path: str | None,
        uid: int | None,
        copy: bool,
        idempotency_key: str | None,
        wait_seconds: float,
    ) -> JsonObject: ...

    async def delete(
        self,
        account: str,
        message_id: int,
        *,
        path: str | None,
        uid: int | None,
        permanent: bool,
        idempotency_key: str | None,
        wait_seconds: float,
    ) -> JsonObject: ...

    async def append(
        self,
        account: str,
        target_path: str,
        raw: bytes,
        *,
        flags: Collection[str],
        internal_date: float | None,
        idempotency_key: str | None,
        wait_seconds: float,
    ) -> JsonObject: ...

    async def requests(self, account: str, *, state: str | None, limit: int) -> list[JsonObject]: ...

    async def request(self, account: str, request_id: int) -> JsonObject: ...


class Reprocessing(Protocol):
    """A processor run again over messages that are there."""

    async def start(
        self,
        *,
        processor: str,
        accounts: Sequence[str],
        mailboxes: Sequence[str],
        since: datetime | None,
        until: datetime | None,
        failed: bool,
        version_below: int | None,
        everything: bool,
        dry_run: bool,
        wait: bool,
    ) -> JsonObject:
        """Answers when it is noted, with ``wait`` when all has been processed; may be cancelled, and then goes on.

        The same, not over yet, is joined.
        """
        ...

    async def show(self, reprocess_id: int) -> JsonObject: ...

    async def cancel(self, reprocess_id: int) -> JsonObject:
        """Answers when it is taken back, or ``cancelling`` still; may be cancelled, and then goes on.

        ConflictError where all is done.
        """
        ...

    async def cancel_all(self, processor: str) -> JsonObject:
        """As ``cancel``, all of a processor that are not over."""
        ...

    async def list(self) -> list[JsonObject]: ...


class Maintenance(Protocol):
    """The store as a whole; one task at a time, ConflictError for a second. Each may be cancelled."""

    def state(self) -> JsonObject:
        """``{"running": {"task", "phase", "done", "total"} | None}``."""
        ...

    async def check(self, *, full: bool) -> JsonObject: ...

    async def backup(self, folder: str) -> JsonObject: ...


class Removals(Protocol):
    """Deleting accounts for good."""

    async def remove(self, name: str, *, purge: bool) -> JsonObject:
        """Answers when all is gone; may be cancelled, and then goes on by itself."""
        ...

    async def running(self) -> list[JsonObject]: ...


class Work(Protocol):
    """What is left to do for messages."""

    async def rows(self, *, state: str | None, processor: str | None, limit: int) -> list[JsonObject]: ...

    async def show(self, message_id: str) -> list[JsonObject]:
        """What is left to do for one message, with every error; empty where all is done."""
        ...

    async def retry(self, *, message_ids: list[str] | None, processor: str | None) -> JsonObject:
        """Puts failed work back in the queue: ``{"retried": rows, "unknown", "unaffected"}``, the last two of the
        messages that were named. May be cancelled: what is done stays done.
        """
        ...

    async def drop(
        self, *, message_ids: list[str] | None, processor: str | None, everything: bool, any_state: bool
    ) -> JsonObject:
        """Gives failed work up (``any_state``: all of it): ``{"dropped": rows, …}``, as a retry. May be cancelled."""
        ...

    def operation(self) -> JsonObject:
        """How far a retry or a drop is: ``{"running": {"task", "phase", "done", "total"} | None}``."""
        ...

    async def pause(self, processor: str) -> JsonObject: ...

    async def resume(self, processor: str) -> JsonObject: ...


class UseCases(Protocol):
    """The only door into the application. The shapes of the answers are in ``schemas``."""

    @property
    def changes(self) -> Changes: ...

    @property
    def maintenance(self) -> Maintenance: ...

    @property
    def removals(self) -> Removals: ...

    @property
    def work(self) -> Work: ...

    @property
    def reprocessing(self) -> Reprocessing: ...

    async def health(self) -> JsonObject:
        """``{"status", "version", "uptimeSeconds"}``; answers as long as the loop turns, without the database."""
        ...

    async def ready(self) -> tuple[bool, JsonObject]:
        """Whether the service can do its work, and why not: ``{"ready", "database", "accounts"}``."""
        ...

    async def status(self) -> JsonObject:
        """Figures over all accounts.

        ``cursor``, where given, is the newest event's: read before the other figures, so that following ``events`` from
        there misses nothing.
        """
        ...

    async def accounts(self) -> list[JsonObject]: ...

    async def account(self, name: str) -> JsonObject: ...

    async def check_account(self, name: str) -> JsonObject:
        """Connects and logs in now. What fails is told in ``error``; it does not raise."""
        ...

    async def mailboxes(self, account: str) -> list[JsonObject]: ...

    async def messages(
        self,
        *,
        account: str | None,
        path: str | None,
        page_size: int,
        cursor: str | None,
        status: str | None = None,
        verdict: str | None = None,
    ) -> JsonObject:
        """One page of places, newest first: ``{"messages": […], "nextCursor": str | None}``."""
        ...

    async def message(self, account: str, message_id: str) -> JsonObject: ...

    async def processing(self, account: str, message_id: str) -> JsonObject:
        """The message's ledger: every result and error, and the work that is open."""
        ...

    async def message_source(self, account: str, message_id: str) -> bytes:
        """The message as the server gave it (RFC 5322)."""
        ...

    async def events(self, after: int, limit: int, wait_seconds: float) -> JsonObject:
        """``{"events": […], "cursor": str}``. Waits up to ``wait_seconds`` for the first event; may be cancelled."""
        ...

    async def sync(self, accounts: list[str] | None, *, process: bool) -> JsonObject:
        """One pass over the accounts (all, if None); returns when it is over."""
        ...

    async def verify(self, accounts: list[str] | None, *, full: bool, repair: bool, seed: int | None) -> JsonObject:
        """Compares the store with the servers (of all accounts, if None); returns when it is over."""
        ...

    async def verify_state(self) -> JsonObject:
        """``{"accounts": [{"account", "running", "last"}]}``: how far looks are, and how the last ones ended."""
        ...

    async def metrics(self) -> bytes:
        """Prometheus text format, version 0.0.4."""
        ...
