"""Rows of the store in the words of the public contract: camelCase, ISO 8601 in UTC, ids as strings. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mailmill.alerts.rendering import addresses, attachment, threat
from mailmill.alerts.rendering import iso_time as iso
from mailmill.errors import MailmillError
from mailmill.message_parser import ParsedMessage
from mailmill.model import AccountState
from mailmill.store.mailboxes import MailboxRow
from mailmill.store.message_listing import ListedMessage
from mailmill.store.message_queries import MessageRow, MessageWorkRow, PlaceRow, ResultRow
from mailmill.store.queue_view import WorkRow
from mailmill.store.request_rows import RequestKind, RequestRow, RequestState
from mailmill.sync.report import PassReport

JsonObject = dict[str, Any]

__all__ = [
    "error",
    "iso",
    "listed_message",
    "mailbox",
    "message_detail",
    "pass_report",
    "request",
    "work_row",
]

TEXT_CHARACTERS = 100_000


def error(problem: MailmillError | None) -> JsonObject | None:
    if problem is None:
        return None
    return {"code": problem.code, "message": str(problem), "hint": problem.hint}


def pass_report(report: PassReport) -> JsonObject:
    """One account's line of ``mailmill sync --json``."""
    return {
        "account": report.account,
        "mailboxes": report.mailboxes,
        "new": report.new,
        "updated": report.updated,
        "expunged": report.expunged,
        "bytes": report.bytes_received,
        "seconds": round(report.seconds, 6),
        "round_trips": report.round_trips,
        "connections_opened": report.connections_opened,
        "error": error(report.error),
    }


def request(row: RequestRow, account: str, account_state: AccountState, made_message_id: int | None) -> JsonObject:
    """A change that was asked for. ``accountState`` says what an open one waits for."""
    upload, place = row.upload, row.place
    done = row.state is RequestState.DONE
    shown: JsonObject = {
        "id": str(row.id),
        "account": account,
        "accountState": str(account_state),
        "kind": str(row.kind),
        "state": str(row.state),
        "messageId": str(row.message_id or made_message_id) if row.message_id or made_message_id else None,
        "path": place.path if place else None,
        "uid": place.uid if place else None,
        "targetPath": row.target_path,
        "permanent": row.kind is RequestKind.DELETE and row.target_path is None,
        "add": sorted(upload.flags if upload else row.add),
        "remove": sorted(row.remove),
        "attempts": row.attempts,
        "outcome": None,
        "error": None,
        "createdAt": iso(row.created_at),
        "nextTryAt": None if row.finished else iso(row.run_at),
        "finishedAt": iso(row.finished_at),
    }
    if done:
        uid_validity = row.target_uid_validity if row.target_uid is not None else None
        shown["outcome"] = {
            "path": row.target_path,
            "uid": row.target_uid,
            "uidValidity": uid_validity,
            "note": row.note or None,
        }
    if row.error:
        shown["error"] = {"code": row.error_code, "message": row.error, "hint": row.error_hint}
    return shown


def mailbox(row: MailboxRow, messages: int, parked: Sequence[tuple[int, str, float]]) -> JsonObject:
    """A mailbox; ``parked`` are the messages that could not be fetched: (UID, reason, when tried again)."""
    cursor = row.cursor
    return {
        "path": row.path,
        "specialUse": row.special_use,
        "delimiter": row.delimiter,
        "selectable": row.selectable,
        "messages": messages,
        "uidValidity": cursor.uid_validity,
        "uidNext": cursor.uid_next,
        "highestModSeq": cursor.highest_mod_seq,
        "uncovered": len(cursor.uncovered),
        "parked": [{"uid": uid, "reason": reason, "retryAt": iso(retry_at)} for uid, reason, retry_at in parked],
        "lastSyncAt": iso(row.synced_at),
    }


def listed_message(line: ListedMessage) -> JsonObject:
    """A line of a listing."""
    message, place, results = line.message, line.place, line.results
    category = results.get("category")
    summary = results.get("summary")
    return {
        "id": str(message.id),
        "account": message.account,
        "uid": place.uid if place else None,
        "path": place.path if place else None,
        "flags": list(place.flags) if place else [],
        "subject": message.subject,
        "from": {"name": message.from_name, "address": message.from_address},
        "date": iso(message.internal_date),
        "size": message.size_bytes,
        "status": message.status,
        "threat": _threat_short(results.get("threat")),
        "category": _field(category, "category"),
        "priority": _field(category, "priority"),
        "summary": _field(summary, "text"),
        "historical": message.historical,
    }


def message_detail(
    message: MessageRow,
    places: Sequence[PlaceRow],
    results: Sequence[ResultRow],
    work: Sequence[MessageWorkRow],
    parsed: ParsedMessage,
    html: str,
    *,
    html_cut: bool,
) -> JsonObject:
    """Everything about one message. ``html`` is sanitised already, and ``html_cut``: not all of it."""
    newest: dict[str, ResultRow] = {}
    for each in results:
        newest.setdefault(each.processor, each)
    values: Mapping[str, Any] = {name: row.value for name, row in newest.items()}
    first = places[0] if places else None
    summary = parsed.summary
    detail = listed_message(ListedMessage(message, first, values))
    return detail | {
        "messageId": message.message_id_header,
        "inReplyTo": message.in_reply_to,
        "emailId": message.email_id or message.x_gm_msgid,
        "threadId": message.thread_id,
        "dateHeader": iso(message.date_header),
        "storedAt": iso(message.stored_at),
        "processedAt": iso(message.processed_at),
        "deletedAt": iso(message.deleted_at),
        "rawExpiredAt": iso(message.raw_expired_at),
        "to": addresses(summary.to),
        "cc": addresses(summary.cc),
        "replyTo": addresses(summary.reply_to),
        "headers": [{"name": name, "value": value} for name, value in parsed.headers],
        "text": {
            "plain": parsed.text_plain[:TEXT_CHARACTERS],
            "html": html[:TEXT_CHARACTERS],
            "hasMore": html_cut or len(parsed.text_plain) > TEXT_CHARACTERS or len(html) > TEXT_CHARACTERS,
        },
        "attachments": [attachment(each) | {"size": each.size_bytes} for each in parsed.attachments],
        "defects": list(parsed.defects),
        "places": [{"path": place.path, "uid": place.uid, "flags": list(place.flags)} for place in places],
        "results": {
            row.processor: {
                "version": row.version,
                "value": row.value,
                "seconds": row.seconds,
                "finishedAt": iso(row.finished_at),
                "attempts": row.attempts,
            }
            for row in newest.values()
        },
        "work": [
            {
                "processor": row.processor,
                "version": row.version,
                "state": "pending" if row.state in ("waiting", "throttled") else row.state,
                "attempt": row.attempt,
                "runAt": iso(row.run_at),
                "error": row.error,
            }
            for row in work
        ],
        "threat": threat(values.get("threat")),
    }


def work_row(row: WorkRow) -> JsonObject:
    return {
        "messageId": str(row.message_id),
        "account": row.account,
        "subject": row.subject,
        "processor": row.processor,
        "version": row.version,
        "state": row.state,
        "priority": row.priority,
        "attempt": row.attempt,
        "crashes": row.crashes,
        "runAt": iso(row.run_at),
        "enqueuedAt": iso(row.enqueued_at),
        "error": row.error,
        "worker": row.worker_id or None,
        "errors": [{"at": iso(each.at), "kind": each.kind, "error": each.error} for each in row.errors],
    }


def _threat_short(value: Any) -> JsonObject | None:
    """Without the findings, whose evidence is a stranger's text, and a page has up to 500 of them."""
    shown = threat(value)
    return {name: each for name, each in shown.items() if name != "findings"} if shown else None


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None
