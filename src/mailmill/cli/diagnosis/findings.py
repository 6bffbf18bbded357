"""What a look yields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from mailmill.cli.errors import exit_code_of_accounts
from mailmill.errors import MailmillError

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: how it is, in words, and what to do about it. ``code`` is an error's, where it failed."""

    level: Level
    subject: str
    text: str
    remedy: str = ""
    code: str = ""

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def ok(subject: str, text: str) -> Check:
    return Check("ok", subject, text)


def warn(subject: str, text: str, remedy: str = "") -> Check:
    return Check("warn", subject, text, remedy)


def fail(subject: str, text: str, remedy: str = "", code: str = "error") -> Check:
    return Check("fail", subject, text, remedy, code)


def from_error(subject: str, error: MailmillError) -> Check:
    return fail(subject, error.message, error.hint, error.code)


def exit_code_of(checks: Iterable[Check]) -> int:
    """0 unless something failed; else the code of what failed, as with errors of several accounts."""
    return exit_code_of_accounts(check.code for check in checks if check.level == "fail")
