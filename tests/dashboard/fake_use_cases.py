"""A small application behind the API: some accounts, some mail, an event log that can be added to."""

from __future__ import annotations

import asyncio
from typing import Any

from dashboard.fake_processing import LEDGER, FakeReprocessing
from dashboard.fake_rows import ACCOUNTS, FINDINGS, HOSTILE, MESSAGES, TEXT, ago, node
from mailmill.api.contract import JsonObject
from mailmill.errors import CursorTooOldError, InvalidRequestError, NotFoundError


class FakeWork:
    """What ``FakeUseCases.work`` answers; what was asked goes to ``calls``."""

    def __init__(self, calls: list[tuple[Any, ...]], figures: dict[str, Any]) -> None:
        self.calls = calls
        self.figures = figures

    async def rows(self, *, state: str | None, processor: str | None, limit: int) -> list[JsonObject]:
        self.calls.append(("queue", state, processor, limit))
        return [
            {
                "messageId": "908",
                "account": "support",
                "processor": "invoice",
                "version": 1,
                "state": "failed",
                "priority": 0,
                "attempt": 5,
                "crashes": 0,
                "runAt": None,
                "enqueuedAt": ago(hours=3),
                "error": "TimeoutError: took over 30 s",
                "worker": None,
                "errors": [
                    {"at": ago(hours=2), "kind": "crash", "error": "the worker died while running it"},
                    {"at": ago(hours=1), "kind": "attempt", "error": "TimeoutError: took over 30 s"},
                ],
                "subject": "Zapytanie o fakturę",
            }
        ]

    async def show(self, message_id: str) -> list[JsonObject]:
        self.calls.append(("show", message_id))
        if message_id == "404":
            raise NotFoundError("no message 404")
        return await self.rows(state=None, processor=None, limit=1)

    async def retry(self, *, message_ids: list[str] | None, processor: str | None) -> JsonObject:
        self.calls.append(("retry", message_ids, processor))
        self.figures["failed"] = 0
        return {"retried": 2, "unknown": [], "unaffected": []}

    def operation(self) -> dict[str, Any]:
        return {"running": {"task": "retry", "phase": "retry", "done": 3, "total": 9}}

    async def drop(
        self, *, message_ids: list[str] | None, processor: str | None, everything: bool, any_state: bool
    ) -> JsonObject:
        self.calls.append(("drop", message_ids, processor, everything, any_state))
        return {"dropped": 3, "unknown": [], "unaffected": []}

    async def pause(self, processor: str) -> JsonObject:
        self.calls.append(("pause", processor))
        return {"processor": processor, "paused": True, "changed": True}

    async def resume(self, processor: str) -> JsonObject:
        self.calls.append(("resume", processor))
        return {"processor": processor, "paused": False, "changed": False}


class FakeUseCases:
    """Satisfies ``contract.UseCases``. ``calls`` records what was asked; ``arrive`` makes a message arrive;
    ``threats`` are other threat results than those of ``FINDINGS``, by message id."""

    def __init__(self, *, empty: bool = False) -> None:
        self.account_rows: list[JsonObject] = [] if empty else [dict(row) for row in ACCOUNTS]
        self.message_rows: list[JsonObject] = [] if empty else [dict(row) for row in MESSAGES]
        self.event_rows: list[JsonObject] = []
        self.threats: dict[str, JsonObject | None] = {}
        self.nodes: list[JsonObject] = [node("mill-1", accounts=len(self.account_rows))]
        self.calls: list[tuple[Any, ...]] = []
        self.is_ready = True
        self.reprocessing = FakeReprocessing()
        self.failure: Exception | None = None
        self.waiting_for_events = asyncio.Event()
        self.events_cancelled = asyncio.Event()
        self.removed = 0
        self._news = asyncio.Event()
        self.figures: dict[str, Any] = (
            {"pending": 0, "processing": 0, "completed": 0, "failed": 0, "oldestSeconds": None, "paused": []}
            if empty
            else {"pending": 38, "processing": 4, "completed": 129_266, "failed": 2, "oldestSeconds": 3.2, "paused": []}
        )
        self.work = FakeWork(self.calls, self.figures)

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def arrive(self, message: JsonObject) -> None:
        self.message_rows.insert(0, message)
        self.figures["completed"] += 1
        self.raise_event("messageNew", message)

    def raise_event(self, name: str, message: JsonObject) -> None:
        number = str(len(self.event_rows) + 1)
        self.event_rows.append(
            {
                "id": number,
                "event": name,
                "account": message["account"],
                "path": message["path"],
                "specialUse": None,
                "date": message["date"],
                "data": {"id": message["id"], "subject": message["subject"]},
            }
        )
        self._news.set()

    async def health(self) -> JsonObject:
        return {"status": "ok", "version": "0.1.0", "uptimeSeconds": 3.5}

    async def ready(self) -> tuple[bool, JsonObject]:
        return self.is_ready, {"ready": self.is_ready, "database": "ok", "accounts": {"connected": 2}}

    async def status(self) -> JsonObject:
        self._fail()
        states: dict[str, int] = {}
        for row in self.account_rows:
            states[row["state"]] = states.get(row["state"], 0) + 1
        empty = not self.account_rows
        return {
            "accounts": states,
            "queue": dict(self.figures),
            "deliveries": {"pending": 1, "sending": 1, "delivered": 0 if empty else 12_408, "failed": 0},
            "node": {
                "id": "mill-1",
                "version": "0.1.0",
                "startedAt": ago(hours=7, minutes=12),
                "roles": ["sync", "process", "alert", "api"],
            },
            "nodes": self.nodes,
            "messages": sum(row["messages"] for row in self.account_rows),
            "threats": {} if empty else {"clean": 128_811, "suspicious": 402, "malicious": 57},
            "cursor": str(len(self.event_rows)),
        }

    async def accounts(self) -> list[JsonObject]:
        self._fail()
        return self.account_rows

    async def account(self, name: str) -> JsonObject:
        self._fail()
        for row in self.account_rows:
            if row["account"] == name:
                return row
        raise NotFoundError(f"there is no account {name!r}", hint="`mailmill account list` shows them")

    async def check_account(self, name: str) -> JsonObject:
        self.calls.append(("check_account", name))
        await self.account(name)
        return {
            "account": name,
            "ok": name != "security",
            "host": "imap.northwind.example:993",
            "tls": "implicit",
            "login": name != "security",
            "capabilities": ["IMAP4REV1", "IDLE", "QRESYNC"],
            "tier": "qresync",
            "push": "idle",
            "mailboxes": 12,
            "error": None
            if name != "security"
            else {
                "code": "authentication",
                "message": "the server refused the credentials",
                "hint": "set a new password",
            },
        }

    async def mailboxes(self, account: str) -> list[JsonObject]:
        await self.account(account)
        return [
            {
                "path": "INBOX",
                "specialUse": None,
                "delimiter": "/",
                "messages": 812,
                "uidValidity": 1_700_000_000,
                "uidNext": 4_915,
                "highestModSeq": 88_120,
                "uncovered": 0,
                "parked": [],
                "lastSyncAt": ago(seconds=40),
            }
        ]

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
        self._fail()
        self.calls.append(("messages", account, path, page_size, cursor, status, verdict))
        if account is not None:
            await self.account(account)
        if cursor is not None and not cursor.isdecimal():
            raise InvalidRequestError("that is not a cursor of ours", hint="start again without one")
        rows = [
            row
            for row in self.message_rows
            if (account is None or row["account"] == account)
            and (path is None or row["path"] == path)
            and (status is None or row["status"] == status)
            and (verdict is None or (row["threat"] or {}).get("verdict") == verdict)
        ]
        start = int(cursor or 0)
        page = rows[start : start + page_size]
        return {"messages": page, "nextCursor": str(start + page_size) if start + page_size < len(rows) else None}

    async def message(self, account: str, message_id: str) -> JsonObject:
        self._fail()
        await self.account(account)
        for row in self.message_rows:
            if row["account"] == account and row["id"] == message_id:
                return self._detail(row)
        raise NotFoundError(f"there is no message {message_id!r}", account=account)

    def _detail(self, row: JsonObject) -> JsonObject:
        threat = row["threat"]
        failed = row["status"] == "failed"
        detail = None
        if threat:
            detail = {**threat, "findings": FINDINGS[threat["verdict"]] if threat["score"] else []}
        results = {
            "threat": {"version": 1, "value": threat, "seconds": 0.0021, "finishedAt": row["date"], "attempts": 1},
            "category": {
                "version": 1,
                "value": {"category": row["category"], "evidence": ["List-Unsubscribe is missing", "From: no-reply"]},
                "seconds": 0.0003,
                "finishedAt": row["date"],
                "attempts": 1,
            },
            "summary": {
                "version": 1,
                "value": {"summary": row["summary"], "sentences": 1},
                "seconds": 0.0011,
                "finishedAt": row["date"],
                "attempts": 2,
            },
        }
        return {
            **row,
            "to": [{"name": "", "address": "invoices@northwind.example"}],
            "cc": [{"name": "Accounts", "address": "accounts@northwind.example"}],
            "replyTo": [],
            "headers": [
                ["Received", "from mail.example by mx.northwind.example; Sat, 21 Nov 2026 22:20:11 +0000"],
                ["Subject", row["subject"]],
                ["X-Hostile", HOSTILE],
            ],
            "text": {"plain": TEXT + HOSTILE, "html": "<p>Dear colleague</p>", "hasMore": False},
            "attachments": [
                {
                    "id": "2",
                    "filename": "quota-report.pdf.html",
                    "contentType": "text/html",
                    "sizeBytes": 48_211,
                    "inline": False,
                }
            ],
            "places": [{"path": row["path"], "uid": row["uid"], "flags": row["flags"]}],
            "results": results if row["status"] == "completed" else {},
            "work": [{"processor": "invoice", "state": "failed", "attempt": 5, "error": "TimeoutError: took over 30 s"}]
            if failed
            else [],
            "threat": self.threats.get(row["id"], detail),
        }

    async def processing(self, account: str, message_id: str) -> JsonObject:
        await self.message(account, message_id)
        return LEDGER | {"messageId": message_id}

    async def message_source(self, account: str, message_id: str) -> bytes:
        await self.message(account, message_id)
        return b"Subject: hello\r\n\r\n<script>alert(1)</script>\r\n"

    def remove_events(self) -> None:
        """As retention does, of all that was raised so far; who polls is woken, and is told at the next poll."""
        self.removed = len(self.event_rows)
        self._news.set()

    async def events(self, after: int, limit: int, wait_seconds: float) -> JsonObject:
        self._fail()
        try:
            if wait_seconds and len(self.event_rows) <= after:
                self.waiting_for_events.set()
                self._news.clear()
                try:
                    async with asyncio.timeout(wait_seconds):
                        await self._news.wait()
                except TimeoutError:
                    pass
        except asyncio.CancelledError:
            self.events_cancelled.set()
            raise
        if 0 < after < self.removed:
            raise CursorTooOldError(after, oldest=self.removed)
        rows = self.event_rows[after : after + limit]
        return {"events": rows, "cursor": rows[-1]["id"] if rows else str(after)}

    async def sync(self, accounts: list[str] | None, *, process: bool) -> JsonObject:
        self.calls.append(("sync", accounts, process))
        for name in accounts or []:
            await self.account(name)
        row = {
            "mailboxes": 12,
            "new": 1,
            "updated": 0,
            "expunged": 0,
            "bytes": 2_048,
            "seconds": 0.011,
            "round_trips": 1,
        }
        return {
            "seconds": 0.02,
            "accounts": [
                {"account": account["account"], **row, "connections_opened": 0, "error": None}
                for account in self.account_rows
            ],
        }

    async def metrics(self) -> bytes:
        return b"# TYPE mailmill_up gauge\nmailmill_up 1\n"
