"""Log lines of the application inside a command."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from mailmill.cli import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def fail(token: str) -> None:
    held = {"token": token}
    try:
        raise KeyError("settle")
    except KeyError:
        structlog.get_logger("x").exception("request failed", said="a\x1b[2J", size=len(held))


@pytest.mark.parametrize("debug", [False, True])
def test_no_local_variable_and_no_escape_is_shown(debug: bool, capsys: pytest.CaptureFixture[str]) -> None:
    logs.quiet(debug=debug)
    fail("mm_" + "hunter2")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hunter2" not in captured.err and "\x1b" not in captured.err
    assert "request failed" in captured.err and "KeyError" in captured.err
    assert ("Traceback" in captured.err) is debug
    assert debug or captured.err.count("\n") == 1


def test_only_warnings_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    logs.quiet(debug=False)
    structlog.get_logger("x").info("hello")
    assert capsys.readouterr() == ("", "")
