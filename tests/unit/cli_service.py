"""A service for the command-line tests: the real API over a real unix socket, with canned answers behind it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from dashboard.fake_processing import LEDGER, FakeReprocessing
from mailmill.api.access import Access
from mailmill.api.application import create_app
from mailmill.api.server import ListenSettings, listening
from mailmill.errors import NotFoundError

JsonObject = dict[str, Any]

ESCAPE = "\x1b]0;owned\x07\x1b[31m"

MESSAGE: JsonObject = {
    "id": "7",
    "account": "work",
    "uid": 12,
    "path": "INBOX",
    "flags": [],
    "subject": f"Invoice {ESCAPE}[bold]2026[/bold]",
    "from": {"name": "Bill\u202egnihsihp", "address": "bill@example.org"},
    "date": "2026-05-04T11:37:00Z",
    "size": 2048,
    "status": "completed",
    "threat": {"verdict": "malicious", "score": 87.0},
    "category": "receipt",
    "summary": "Pay now.",
    "historical": False,
}

DETAIL: JsonObject = {
    **MESSAGE,
    "to": [{"name": "", "address": "me@example.org"}],
    "cc": [],
    "replyTo": [],
    "headers": [],
    "text": {"plain": f"Hello\r\nplease {ESCAPE}pay\n", "html": "<p>Hello <b>there</b></p>", "hasMore": False},
    "attachments": [{"id": "2", "filename": "invoice.pdf.exe", "contentType": "application/pdf", "encodedSize": 4096}],
    "places": [{"path": "INBOX", "uid": 12, "flags": []}],
    "results": {},
    "work": [{"processor": "summary", "state": "failed", "attempt": 5, "error": "boom"}],
    "threat": {
        "verdict": "malicious",
        "score": 87.0,
        "findings": [
            {
                "id": "attachments.double_extension",
                "family": "a",
                "severity": "high",
                "score": 40,
                "evidence": "x.pdf.exe",
            }
        ],
    },
}

SOURCE = b"Subject: Invoice\r\n\r\nHello \x1b[31m\xff\r\n"


def account(name: str, **changes: Any) -> JsonObject:
    return {
        "account": name,
        "email": f"{name}@example.org",
        "state": "connected",
        "stateReason": "",
        "stateChangedAt": "2026-05-04T11:00:00Z",
        "backlog": "process",
        "mailboxes": 3,
        "messages": 1234,
        "lastSyncAt": None,
        "secondsSinceLastRoundTrip": 2.5,
        "connections": 1,
        "push": "idle",
        "pushedMailbox": "INBOX",
        "sweepSeconds": 60.0,
        "progress": None,
        **changes,
    }


def account_pass(name: str, error: JsonObject | None = None) -> JsonObject:
    return {
        "account": name,
        "mailboxes": 3,
        "new": 5,
        "updated": 0,
        "expunged": 1,
        "bytes": 20480,
        "seconds": 0.5,
        "round_trips": 4,
        "connections_opened": 1,
        "error": error,
    }


class CannedWork:
    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls
        self.left_out: dict[str, list[str]] = {"unknown": [], "unaffected": []}

    async def rows(self, **query: Any) -> list[JsonObject]:
        self.calls.append(("queue", query))
        return [
            {
                "messageId": "7",
                "account": "work",
                "processor": "summary",
                "version": 1,
                "state": "failed",
                "priority": 0,
                "attempt": 5,
                "crashes": 0,
                "runAt": None,
                "enqueuedAt": "2026-05-04T11:00:00Z",
                "error": "boom \x1b[2J",
                "worker": None,
                "errors": [
                    {"at": "2026-05-04T11:00:01Z", "kind": "crash", "error": "the worker died while running it"},
                    {"at": "2026-05-04T11:00:02Z", "kind": "attempt", "error": "boom \x1b[2J"},
                ],
                "subject": "Invoice",
            }
        ]

    async def show(self, message_id: str) -> list[JsonObject]:
        if message_id == "404":
            raise NotFoundError("no message 404")
        return [] if message_id == "8" else await self.rows()

    async def retry(self, *, message_ids: list[str] | None, processor: str | None) -> JsonObject:
        self.calls.append(("retry", (message_ids, processor)))
        return {"retried": 4, **self.left_out}

    async def drop(self, **asked: Any) -> JsonObject:
        self.calls.append(("drop", asked))
        return {"dropped": 2, **self.left_out}

    def operation(self) -> JsonObject:
        return {"running": {"task": "retry", "phase": "retry", "done": 3, "total": 9}}

    async def pause(self, processor: str) -> JsonObject:
        if processor == "nobody":
            raise NotFoundError("no processor is called 'nobody'", hint="configured: summary")
        return {"processor": processor, "paused": True, "changed": True}

    async def resume(self, processor: str) -> JsonObject:
        return {"processor": processor, "paused": False, "changed": False}


class CannedUseCases:
    """Answers what the test puts into it and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.account_list = [account("home"), account("work")]
        self.sync_errors: dict[str, JsonObject] = {}
        self.check_error: JsonObject | None = None
        self.pages = [[MESSAGE]]
        self.work = CannedWork(self.calls)
        self.reprocessing = FakeReprocessing()
        self.nodes: list[JsonObject] = []
        self.sync_asked = threading.Event()
        self.sync_may_end = threading.Event()
        self.sync_may_end.set()

    async def health(self) -> JsonObject:
        return {"status": "ok", "version": "0", "uptimeSeconds": 1.0}

    async def ready(self) -> tuple[bool, JsonObject]:
        return True, {"ready": True, "database": "ok", "accounts": {}}

    async def status(self) -> JsonObject:
        return {
            "accounts": {"connected": 2, "authenticationError": 0},
            "queue": {
                "pending": 3,
                "processing": 1,
                "completed": 1200,
                "failed": 2,
                "oldestSeconds": 4.2,
                "paused": ["summary"],
            },
            "deliveries": {"pending": 0, "sending": 0, "delivered": 9, "failed": 0},
            "node": {"id": "n", "version": "0.1.0", "startedAt": "2026-05-04T11:00:00Z", "roles": ["sync", "api"]},
            "nodes": self.nodes,
            "messages": 2468,
            "threats": {"clean": 2460, "suspicious": 0, "malicious": 8},
        }

    async def accounts(self) -> list[JsonObject]:
        return self.account_list

    async def account(self, name: str) -> JsonObject:
        for each in self.account_list:
            if each["account"] == name:
                return each
        raise NotFoundError(f"no account {name!r}", hint="the names: mailmill account list")

    async def check_account(self, name: str) -> JsonObject:
        await self.account(name)
        self.calls.append(("check", name))
        return {
            "account": name,
            "ok": self.check_error is None,
            "host": "imap.example.org:993",
            "tls": "implicit",
            "login": self.check_error is None,
            "capabilities": ["IDLE", "QRESYNC"],
            "tier": "qresync",
            "push": "idle",
            "mailboxes": 3,
            "error": self.check_error,
        }

    async def mailboxes(self, name: str) -> list[JsonObject]:
        await self.account(name)
        return [
            {
                "path": "INBOX",
                "specialUse": None,
                "delimiter": "/",
                "messages": 12,
                "uidValidity": 1,
                "uidNext": 13,
                "highestModSeq": 5,
                "uncovered": 0,
                "lastSyncAt": None,
            }
        ]

    async def messages(self, **query: Any) -> JsonObject:
        self.calls.append(("messages", query))
        page = int(query["cursor"] or 0)
        more = page + 1 < len(self.pages)
        return {"messages": self.pages[page], "nextCursor": str(page + 1) if more else None}

    async def message(self, name: str, message_id: str) -> JsonObject:
        if (name, message_id) != ("work", "7"):
            raise NotFoundError(f"no message {message_id!r}")
        return DETAIL

    async def processing(self, name: str, message_id: str) -> JsonObject:
        await self.message(name, message_id)
        return LEDGER

    async def message_source(self, name: str, message_id: str) -> bytes:
        await self.message(name, message_id)
        return SOURCE

    async def events(self, after: int, limit: int, wait_seconds: float) -> JsonObject:
        return {"events": [], "cursor": "0"}

    async def sync(self, accounts: list[str] | None, *, process: bool) -> JsonObject:
        self.calls.append(("sync", (accounts, process)))
        self.sync_asked.set()
        for name in accounts or ():
            await self.account(name)
        await asyncio.to_thread(self.sync_may_end.wait, 20)
        names = accounts or [each["account"] for each in self.account_list]
        return {"seconds": 0.6, "accounts": [account_pass(name, self.sync_errors.get(name)) for name in names]}

    async def metrics(self) -> bytes:
        return b""


@contextlib.contextmanager
def running_service(socket_path: Path, use_cases: CannedUseCases) -> Iterator[None]:
    """The API on ``socket_path``, in a thread with a loop of its own, for the length of the block."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # its log is not the command's output
    loop = asyncio.new_event_loop()
    listens = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        settings = ListenSettings(host=None, port=None, socket_path=socket_path, grace_seconds=0.2)
        async with listening(create_app(use_cases, Access("t" * 40)), settings):
            listens.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert listens.wait(20), "the service did not start"
        yield
    finally:
        use_cases.sync_may_end.set()
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        structlog.reset_defaults()
