"""The processors that come with mailmill: ``threat``, ``summary``, ``category``.

They are functions of the message and run in threads: a message costs them milliseconds, an odd one up to a second, and
neither is time to take from the loop.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from mailmill.message_parser import ParsedMessage
from mailmill.model import EventName, VerdictName
from mailmill.processing.ai.summary import summarize
from mailmill.processing.category import categorize
from mailmill.processing.registry import Context, JsonValue, Processor
from mailmill.processing.threat.options import DEFAULT_OPTIONS, ThreatOptions

if TYPE_CHECKING:
    from mailmill.processing.threat.engine import ThreatEngine

TIMEOUT_SECONDS = 30.0
CONCURRENCY = 4


class Threat:
    """The processor ``threat``, as configured. Pickled, it is its options: another process builds an engine of its own.

    The engine is built when it is first needed: nodes and commands that judge no mail need not hold it in memory.
    """

    def __init__(self, options: ThreatOptions = DEFAULT_OPTIONS) -> None:
        self.options = options
        self._building = Lock()
        self._engine: ThreatEngine | None = None

    def __call__(self, message: ParsedMessage, context: Context) -> JsonValue:
        """``{"verdict","score","findings":[{id,family,severity,score,evidence}],"reasons":[words],"promptInjection"}``."""
        engine = self.engine
        verdict = engine.scan(
            message,
            own_address=context.account_email,
            authserv_id=context.authserv_id,
            history=context.history,
            account=context.account,
        )
        return engine.as_json(verdict)

    @property
    def engine(self) -> ThreatEngine:
        """Raises ConfigurationError for options that make no sense."""
        with self._building:
            if self._engine is None:
                from mailmill.processing.threat.engine import engine_of

                self._engine = engine_of(self.options)
            return self._engine

    def __reduce__(self) -> tuple[type[Threat], tuple[ThreatOptions]]:
        return Threat, (self.options,)


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


def builtin_processors(options: ThreatOptions = DEFAULT_OPTIONS) -> tuple[Processor, ...]:
    """``threat`` as configured, ``summary`` and ``category``. Raises ConfigurationError for options that make no
    sense."""
    threat = Threat(options)
    if options.has_own:
        _ = threat.engine  # what makes no sense in it is told now
    return (
        Processor(
            "threat",
            2,
            threat,
            "thread",
            TIMEOUT_SECONDS,
            CONCURRENCY,
            announce=announce_threat,
            keep_raw=options.wants_raw,
            wants_history=True,
        ),
        Processor("summary", 2, summary, "thread", TIMEOUT_SECONDS, CONCURRENCY),
        Processor("category", 1, category, "thread", TIMEOUT_SECONDS, CONCURRENCY),
    )
