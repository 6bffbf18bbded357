"""The threat engine on one message that no account holds. What a child process imports: no store, no IMAP.

A file knows no history, so nothing is said of first-time senders. Which server's Authentication-Results are believed
must be told (:attr:`Scope.authserv_id`): anybody can write such a field, and a file does not say who received it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from mailmill.app.threat_explanation import explain
from mailmill.message_parser import ParsedMessage, parse_message
from mailmill.model import Finding, Verdict
from mailmill.processing.registry import Context, JsonValue
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.engine import ThreatEngine
from mailmill.processing.threat.evidence.authentication_results import parse_authentication_results
from mailmill.processing.threat.options import DEFAULT_OPTIONS, ThreatOptions

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a scan goes by; it can be sent to a child. ``own_address``: whose mail it is; ``account``: the configured
    account of that address, or ""; ``authserv_id``: whose Authentication-Results are believed (None: nobody's)."""

    own_address: str = ""
    authserv_id: str | None = None
    account: str = ""
    options: ThreatOptions = DEFAULT_OPTIONS


class Scanner:
    """The engine made ready once, for the messages of one scope. ``close()`` it, or use it in a ``with``.

    Raises ConfigurationError for options that make no sense.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.engine = ThreatEngine(scope.options)

    def __enter__(self) -> Scanner:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.engine.close()

    def prepare(self, message: ParsedMessage) -> ThreatContext:
        """The message, prepared for the detectors."""
        scope = self.scope
        return self.engine.prepare(
            message, own_address=scope.own_address, authserv_id=scope.authserv_id, account=scope.account
        )

    def find(self, context: ThreatContext) -> tuple[Finding, ...]:
        """All that the detectors report, before it is weighed."""
        return self.engine.find(context, account=self.scope.account)

    def judge(self, context: ThreatContext, findings: Sequence[Finding]) -> Verdict:
        """The verdict that these findings make."""
        return self.engine.weigh(context, findings)

    def read(self, raw: bytes) -> ParsedMessage:
        """The message, parsed as the engine wants it."""
        return parse_message(raw, keep_raw=self.engine.wants_raw)

    def record(self, raw: bytes) -> JsonObject:
        """What :func:`scan_each` gives of one message, without its place."""
        context = self.prepare(self.read(raw))
        return self._record(context, self.judge(context, self.find(context)))

    def explained(self, raw: bytes) -> JsonObject:
        """The record with ``explanation``: see :class:`~mailmill.app.threat_explanation.Explanation`."""
        context = self.prepare(self.read(raw))
        verdict = self.judge(context, self.find(context))
        explanation = explain(context, verdict, self.engine.table, self.scope.authserv_id)
        return {**self._record(context, verdict), "explanation": explanation.as_json()}

    def _record(self, context: ThreatContext, verdict: Verdict) -> JsonObject:
        message, summary = context.message, context.message.summary
        return {
            **self.engine.as_json(verdict),
            "from": {"name": context.sender.name, "address": context.sender.address},
            "subject": summary.subject,
            "dateHeader": _iso(summary.date),
            "messageIdHeader": summary.message_id_header,
            "authserv": topmost_server(message),
        }


def topmost_server(message: ParsedMessage) -> str:
    """The authserv-id of the topmost Authentication-Results: very often the receiving server's; "" without one."""
    field = message.header("Authentication-Results")
    return parse_authentication_results(field)[0][:255] if field else ""


def _iso(moment: float | None) -> str | None:
    """``2026-05-04T11:37:00Z``; None for a Date field that is none, or lies beyond the year 9999 in UTC."""
    try:
        return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Order:
    """One message for a child."""

    raw: bytes
    scope: Scope


@lru_cache(maxsize=1)
def _scanner(scope: Scope) -> Scanner:
    return Scanner(scope)


def scan_in_child(order: Order, _context: Context) -> JsonValue:
    """The record of one message; what a child process is asked to call."""
    return _scanner(order.scope).record(order.raw)
