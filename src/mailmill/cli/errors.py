"""Errors on the way out: a line on stderr, its remedy below, and the exit code.

====  =====================================================================================================
Exit  When
====  =====================================================================================================
0     all went well
1     it failed, and trying again will not help by itself (a certificate, a damaged store, the master key)
2     the command line or the configuration is wrong; nothing was started
3     there is no such account, mailbox, message or processor
4     a server refused the credentials
5     a temporary failure: trying again may work (no connection, a full disk, a folder or port in use)
130   interrupted by Ctrl-C
141   the reader of our output went away
====  =====================================================================================================

The table from an error's ``code`` to its exit code stands here alone. It goes by ``code`` since an error may come from
the service, over HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mailmill.cli.safe_text import json_escaped, neutral
from mailmill.errors import ConfigurationError, MailmillError

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
AUTHENTICATION = 4
TEMPORARY = 5
INTERRUPTED = 130
BROKEN_PIPE = 141

EXIT_CODES: Mapping[str, int] = {
    "error": FAILED,
    "configuration": USAGE,
    "addressInUse": TEMPORARY,
    "invalidRequest": USAGE,
    "badRequest": USAGE,
    "usage": USAGE,
    "notFound": NOT_FOUND,
    "rawExpired": NOT_FOUND,
    "conflict": FAILED,
    "cursorAhead": FAILED,
    "cursorTooOld": FAILED,
    "refused": FAILED,
    "store": FAILED,
    "storeInUse": TEMPORARY,
    "leaseLost": TEMPORARY,
    "staleBatch": TEMPORARY,
    "masterKey": USAGE,
    "databaseUnavailable": TEMPORARY,
    "storageFull": TEMPORARY,
    "storageUnavailable": TEMPORARY,
    "storageRefused": FAILED,
    "imap": FAILED,
    "connect": TEMPORARY,
    "certificate": FAILED,
    "authentication": AUTHENTICATION,
    "insecure": FAILED,
    "connectionLost": TEMPORARY,
    "protocol": FAILED,
    "limit": FAILED,
    "command": FAILED,
    "argument": USAGE,
    "unsupported": FAILED,
    "poolTimeout": TEMPORARY,
    "messageTooLarge": FAILED,
    "processor": FAILED,
    "notStarted": TEMPORARY,
    "peer": FAILED,
    "delivery": FAILED,
    "noAnswer": TEMPORARY,
    "stopping": TEMPORARY,
    "internal": FAILED,
}


class ServiceError(MailmillError):
    """The service answered with an error: ``code``, ``message`` and ``hint`` are its own words."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class NoAnswerError(MailmillError):
    """The running service went away, or did not answer in time."""

    code = "noAnswer"


class UsageError(MailmillError):
    """The command line asks for what does not go together."""

    code = "usage"


class UnexpectedError(MailmillError):
    """A fault of ours. ``__cause__`` is what was raised."""

    code = "internal"


def exit_code(code: str) -> int:
    """The exit code for an error's ``code``; what is unknown is a plain failure."""
    return EXIT_CODES.get(code, FAILED)


def exit_code_of_accounts(codes: Iterable[str]) -> int:
    """One exit code for the errors of several accounts: refused credentials first, ``TEMPORARY`` only if all are."""
    found = {exit_code(code) for code in codes}
    if not found:
        return OK
    if AUTHENTICATION in found:
        return AUTHENTICATION
    return found.pop() if len(found) == 1 else FAILED


def error_of(value: Any) -> tuple[str, str, str]:
    """(code, message, hint) of an error inside an answer: the object of the contract, or a bare text."""
    if isinstance(value, dict):
        return str(value.get("code") or "error"), str(value.get("message") or ""), str(value.get("hint") or "")
    return "error", str(value), ""


def as_lines(error: MailmillError) -> list[str]:
    """What a person reads: ``error: …`` for each problem, then ``hint: …``. Safe for a terminal."""
    problems = error.problems if isinstance(error, ConfigurationError) else str(error).split("\n")
    lines = [f"error: {problem}" for problem in problems]
    lines += [f"hint: {line}" for line in error.hint.split("\n") if line]
    return [neutral(line).replace("\n", " ") for line in lines]


def as_json(error: MailmillError) -> str:
    """The one error object of the contract. A configuration's several problems are lines of ``message``."""
    body = {"error": {"code": error.code, "message": str(error), "hint": error.hint}}
    return json_escaped(json.dumps(body, ensure_ascii=False))
