"""The processing ledger in the words of the public contract. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mailmill.app.views import iso

if TYPE_CHECKING:
    from mailmill.store.ledger import Ledger, OpenWork, RecordedResult
    from mailmill.store.work_errors import WorkError

JsonObject = dict[str, Any]


def ledger(message_id: int, status: str, held: Ledger) -> JsonObject:
    """``{"messageId", "status", "results": […], "work": […]}``; ``status`` is the message's (``email_status``)."""
    return {
        "messageId": str(message_id),
        "status": status,
        "results": [_result(each) for each in held.results],
        "work": [_work(each) for each in held.work],
    }


def _result(row: RecordedResult) -> JsonObject:
    return {
        "processor": row.processor,
        "version": row.version,
        "served": row.served,
        "value": row.value,
        "attempts": row.attempts,
        "seconds": row.seconds,
        "finishedAt": iso(row.finished_at),
        "errors": _errors(row.errors),
    }


def _work(row: OpenWork) -> JsonObject:
    return {
        "processor": row.processor,
        "version": row.version,
        "state": row.state,
        "priority": row.priority,
        "attempt": row.attempt,
        "crashes": row.crashes,
        "runAt": iso(row.run_at),
        "enqueuedAt": iso(row.enqueued_at),
        "errors": _errors(row.errors),
    }


def _errors(errors: Sequence[WorkError]) -> list[JsonObject]:
    return [{"at": iso(each.at), "kind": each.kind, "error": each.error} for each in errors]
