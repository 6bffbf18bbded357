"""The processors that come with mailmill: ``threat``, ``summary``, ``category``.

They are pure functions of the message and run in threads: a message costs them milliseconds, an odd one up to a second,
and neither is time to take from the loop.
"""

from __future__ import annotations

from mailmill.message_parser import ParsedMessage
from mailmill.model import EventName, VerdictName
from mailmill.processing.ai.summary import summarize
from mailmill.processing.category import categorize
from mailmill.processing.registry import Context, JsonValue, Processor
from mailmill.processing.threat.engine import as_json, scan

TIMEOUT_SECONDS = 30.0
CONCURRENCY = 4


def threat(message: ParsedMessage, context: Context) -> JsonValue:
    """``{"verdict","score","findings":[{id,family,severity,score,evidence}],"reasons":[words]}``."""
    return as_json(scan(message, own_address=context.account_email, authserv_id=context.authserv_id))


def summary(message: ParsedMessage, context: Context) -> JsonValue:
    """``{"text","method"}``."""
    return dict(summarize(message))


def category(message: ParsedMessage, context: Context) -> JsonValue:
    """``{"category","priority","evidence":[words]}``."""
    return categorize(message)


def announce_threat(value: JsonValue) -> tuple[str, ...]:
    """``threatFound``, unless the verdict is clean."""
    clean = isinstance(value, dict) and value.get("verdict") == VerdictName.CLEAN.value
    return () if clean else (EventName.THREAT_FOUND.value,)


BUILTIN: tuple[Processor, ...] = (
    Processor("threat", 1, threat, "thread", TIMEOUT_SECONDS, CONCURRENCY, announce=announce_threat),
    Processor("summary", 1, summary, "thread", TIMEOUT_SECONDS, CONCURRENCY),
    Processor("category", 1, category, "thread", TIMEOUT_SECONDS, CONCURRENCY),
)
