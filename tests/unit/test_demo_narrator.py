"""What the demo says, on terminals of several widths."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.cells import cell_len

from mailmill.app.demo.narrator import JsonNarrator, Opening, TerminalNarrator

OPENING = Opening("http://127.0.0.1:8025/login?code=" + "x" * 43, "/tmp/demo/config.toml", ".venv/bin/mailmill", 4.0)


def message(**changes: Any) -> dict[str, Any]:
    return {
        "date": "2026-11-21T10:00:00.000Z",
        "subject": "Invoice NW-20418 for November",
        "summary": "Your invoice is attached.",
        "category": "notification",
        "threat": {"verdict": "suspicious", "score": 55},
    } | changes


def alert(**changes: Any) -> dict[str, Any]:
    reasons = [f"Reason {number}." for number in range(9)]
    data = {"subject": "Verify your account", "threat": {"reasons": reasons}}
    return {"event": "threatFound", "date": "2026-11-21T10:00:00.000Z", "data": data | changes}


ODD = [
    message(),
    message(subject="s" * 300, summary="t" * 300),
    message(subject="録音データについて" * 20, summary="先週の録音データを受け取りました。" * 20),
    message(subject="", summary="", category=None, date=None, threat=None),
    message(subject="a\x1b[2Jb\r\nc\u202ed", summary="e\x00f"),
]


@pytest.mark.parametrize("width", [40, 80, 100, 140, 220])
def test_every_line_fits(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    narrator = TerminalNarrator(width)
    for each in ODD:
        narrator.processed(each)
    narrator.alerted(alert())
    narrator.alerted(alert(subject="録音" * 90))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ODD) + 2
    assert max(map(cell_len, lines)) <= width


def test_nothing_of_a_message_reaches_the_terminal_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    TerminalNarrator(140).processed(message(subject="a\x1b[2Jb\r\nc\u202ed", summary="\x9b31m"))
    said = capsys.readouterr().out
    assert said.removesuffix("\n").isprintable()
    assert "a [2Jb c d" in said


def test_the_summary_is_shown_where_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    for width in (80, 140):
        TerminalNarrator(width).processed(message())
    narrow, wide = capsys.readouterr().out.splitlines()
    assert "suspicious notification Invoice NW-20418 for November" in narrow
    assert "is attached" not in narrow
    assert "is attached" in wide


def test_an_alert_says_why_where_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    for width in (80, 140):
        TerminalNarrator(width).alerted(alert())
    narrow, wide = capsys.readouterr().out.splitlines()
    assert "threatFound  Verify your account" in narrow
    assert "Reason" not in narrow
    assert "Verify your account" in wide
    assert "Reason 0. Reason 1." in wide


def test_the_link_stands_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """A link that is broken or has words around it cannot be clicked."""
    TerminalNarrator(80).opened(OPENING)
    lines = capsys.readouterr().out.splitlines()
    assert OPENING.link in lines
    assert max(map(len, lines)) <= 80


def test_json_is_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = JsonNarrator()
    narrator.starting()
    narrator.opened(OPENING)
    narrator.processed(message())
    narrator.alerted(alert())
    narrator.ended(processed=1, alerted=1)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [next(iter(each)) for each in said] == ["page", "processed", "alerted", "ended"]
