"""One stream of log lines, and no secret in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
import structlog
from mailmill.app import logs
from mailmill.errors import ConnectionLostError

logs.configure(level="info", form=sys.argv[1], file=Path(sys.argv[2]))
log = structlog.get_logger("mailmill.test").bind(account="work")

def connect(password):
    raise ConnectionLostError("the connection was cut")

log.debug("not shown")
log.info("hello", count=3)
try:
    connect("top-secret-password")
except ConnectionLostError as error:
    log.error("it failed", exc_info=error)
try:
    connect("top-secret-password")
except ConnectionLostError:
    log.exception("and again")
import logging
logging.getLogger("another.library").warning("a library's %s", "word")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_stderr_and_file_carry_the_same_lines_without_locals(form: str, tmp_path: Path) -> None:
    file = tmp_path / "logs" / "mailmill.log"
    done = subprocess.run([sys.executable, "-c", PROGRAM, form, str(file)], capture_output=True, text=True, check=True)
    written = file.read_text()
    assert done.stderr == written
    assert "hello" in written
    assert "a library's word" in written
    assert "not shown" not in written
    assert written.count("ConnectionLostError: the connection was cut") == 2
    assert "top-secret-password" not in written
    if form == "json":
        lines = [json.loads(line) for line in written.splitlines()]
        assert lines[0] == {
            "account": "work",
            "count": 3,
            "event": "hello",
            "level": "info",
            "logger": "mailmill.test",
            "timestamp": lines[0]["timestamp"],
        }


def test_a_full_disk_costs_lines_of_the_file_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "json", "/dev/full"], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["hello", "it failed", "and again", "a library's word"]


def test_a_file_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    where = tmp_path / "file" / "mailmill.log"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "json", str(where)], capture_output=True, text=True, check=False
    )
    assert "ConfigurationError" in done.stderr
    assert "cannot write the log file" in done.stderr
