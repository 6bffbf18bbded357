"""Logs of the application while it runs inside a command: short, on stderr, and without secrets.

The service sets up its own logs (``mailmill.app.logs``). structlog's defaults will not do here: they print to stdout,
and their tracebacks show local variables, tokens and passwords among them.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger

from mailmill.cli.safe_text import neutral


def quiet(*, debug: bool) -> None:
    """Warnings and worse, a line each; with ``debug`` everything, tracebacks included."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            *([] if debug else [_name_the_exception]),
            _neutral_values,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.WARNING),
        # Looked up at each line: who redirects stderr later is obeyed.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _name_the_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The exception's name and words in place of its traceback."""
    info = event.pop("exc_info", None)
    error = info if isinstance(info, BaseException) else sys.exc_info()[1] if info else None
    if error is not None:
        event["error"] = f"{type(error).__name__}: {error}"
    return event


def _neutral_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What a server said may be among the values."""
    return {name: neutral(value) if isinstance(value, str) else value for name, value in event.items()}
