"""One stream of log lines: to stderr, and to a file where one is named; JSON or for the eye.

Lines are written by a thread of their own: a full pipe or a slow disk must not hold up the event loop.
"""

from __future__ import annotations

import atexit
import logging
import logging.handlers
import queue
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import structlog

from mailmill.errors import ConfigurationError

_NAMES: list[structlog.types.Processor] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name]


def configure(*, level: str, form: Literal["json", "console"], file: Path | None) -> None:
    """Send all logging (ours and the libraries') to stderr and ``file``. Called once per process.

    Raises ConfigurationError when the file cannot be opened.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_File(file, encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(
                f"cannot write the log file {file}: {error.strerror}",
                hint="name a writable path in service.log_file, or leave it out",
                key="service.log_file",
            ) from error
    for handler in handlers:
        colours = form == "console" and isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
        handler.setFormatter(_formatter(form, colours=colours and sys.stderr.isatty()))
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(lines, *handlers)
    listener.start()
    atexit.register(listener.stop)
    root = logging.getLogger()
    root.handlers[:] = [_Hand(lines)]
    root.setLevel(level.upper())
    for noisy in ("httpx2", "httpcore2", "alembic", "aiosqlite", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *_NAMES,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exception_in_hand,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _exception_in_hand(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """``exc_info=True`` means the exception that is being handled: the listener's thread, which formats, has none."""
    if event.get("exc_info") is True:
        event["exc_info"] = sys.exc_info()
    return event


class _File(logging.handlers.WatchedFileHandler):
    """Watched: logrotate may move the file away under us. What it cannot take (a full disk) stderr has all the same."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging calls it so
        """Nothing: logging would print a traceback for each line, and bury what the lines say."""


class _Hand(logging.handlers.QueueHandler):
    """Hands a record over as it is; formatting, tracebacks included, is the listener's."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


def _formatter(form: Literal["json", "console"], *, colours: bool) -> logging.Formatter:
    renderer: structlog.types.Processor
    if form == "json":
        tail: list[structlog.types.Processor] = [structlog.processors.format_exc_info]
        renderer = structlog.processors.JSONRenderer()
    else:
        tail = []
        renderer = structlog.dev.ConsoleRenderer(
            colors=colours, exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
        )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_NAMES, _stamp],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail, renderer],
    )


def _stamp(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """A library's record carries when it was made; formatting comes later, and once for each handler."""
    moment = datetime.fromtimestamp(event["_record"].created, UTC)
    event["timestamp"] = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return event
