"""Tables on terminals of several widths: what is cut, what is left out, and that it is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_service import MESSAGE, CannedUseCases, account, running_service
from rich.cells import cell_len

from mailmill.cli.fitting import Room, fitted, shown
from mailmill.cli.main import main
from mailmill.cli.output import Column, rich_table

SUBJECT = "Your account has been limited, verify within a day"
MORE = "more columns fit in a wider terminal: "

Show = Callable[..., tuple[list[str], str]]


def message(number: int, **changes: Any) -> dict[str, Any]:
    known = {"category": "receipt" if number % 2 else "promotion", "subject": SUBJECT}
    known["date"] = f"2026-05-04T{number:02}:37:00Z"
    sender = {"name": "Northwind Accounts Receivable", "address": "billing@northwind.example"}
    return {**MESSAGE, "id": str(number), "from": sender, **known, **changes}


@pytest.fixture
def service(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CannedUseCases]:
    monkeypatch.setenv("MAILMILL_SERVICE__DATA_DIR", str(data_dir))
    use_cases = CannedUseCases()
    use_cases.pages = [[message(number) for number in range(8, 14)]]
    with running_service(data_dir / "mailmill.sock", use_cases):
        yield use_cases


@pytest.fixture
def show(service: CannedUseCases, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Show:
    def call(width: int, *arguments: str) -> tuple[list[str], str]:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr("mailmill.cli.output.Output.on_terminal", True)
        assert main(arguments) == 0
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        assert max(map(cell_len, lines)) <= width
        told = [line.removeprefix(MORE) for line in captured.err.splitlines() if line.startswith(MORE)]
        return lines, told[0] if told else ""

    return call


def cells_of(lines: list[str], column: str, following: str) -> int:
    """How wide a left-aligned column is, by where the next one's title stands."""
    return lines[0].index(following) - lines[0].index(column) - 2


@pytest.mark.parametrize(
    ("width", "titles", "left_out"),
    [
        (140, "Id Date From Subject Mailbox Category Verdict Status", ""),
        (100, "Id Date From Subject Mailbox Category Verdict", "Status (completed)"),
        (80, "Id Date From Subject Verdict", "Mailbox (INBOX), Category, Status (completed)"),
        (60, "Id From Subject Verdict", "Date, Mailbox (INBOX), Category, Status (completed)"),
    ],
)
def test_envelopes_can_be_read_at_any_width(show: Show, width: int, titles: str, left_out: str) -> None:
    lines, told = show(width, "envelope", "list")
    assert lines[0].split() == titles.split() and told == left_out
    after = titles.split()[titles.split().index("Subject") + 1]
    assert cells_of(lines, "Subject", after) >= 24 and cells_of(lines, "From", "Subject") >= 12
    assert SUBJECT[:20] in lines[1] and "Northwind" in lines[1] and "malicious" in lines[1]


def test_what_differs_from_row_to_row_stays_longer(show: Show, service: CannedUseCases) -> None:
    service.pages = [[message(8, status="failed"), message(9), message(10, path="Archive")]]
    lines, told = show(90, "envelope", "list")
    assert "Status" in lines[0] and told == "Mailbox, Category"
    service.pages = [[message(8), message(9), message(10, path="Archive")]]
    assert show(90, "envelope", "list")[1] == "Category, Status (completed)"


def test_below_all_minimums_every_column_that_stays_has_a_share(show: Show) -> None:
    lines, _ = show(40, "envelope", "list")
    assert lines[0].split() == ["Id", "From", "Subject", "Verdict"]
    assert abs(cells_of(lines, "Subject", "Verdict") - cells_of(lines, "From", "Subject")) <= 1


def test_pipes_and_json_have_all_columns(
    service: CannedUseCases, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["envelope", "list"]) == 0
    piped = capsys.readouterr()
    assert piped.out.startswith("ID  DATE") and "SUBJECT" in piped.out and "CATEGORY   VERDICT    STATUS\n" in piped.out
    assert SUBJECT in piped.out and piped.err == ""
    assert main(["envelope", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["messages"][0]["status"] == "completed"


def test_why_an_account_is_down_is_told_before_how_news_comes(show: Show, service: CannedUseCases) -> None:
    reason = "the server refused the credentials: invalid"
    service.account_list = [account("home"), account("work", state="authenticationError", stateReason=reason)]
    for arguments in (["account", "list"], ["status"]):
        lines, _ = show(80, *arguments)
        assert any("authenticationError" in line and reason[:28] in line for line in lines), arguments
    assert any(re.search(f"^{MORE}.*Push", line) for line in show(80, "status")[0]), "--watch shows stdout alone"


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("command", ["status", "sync", "queue list", "account list", "mailbox list"])
def test_no_table_is_wider_than_the_terminal(show: Show, command: str, width: int) -> None:
    lines, _ = show(width, *command.split())
    assert any(line.lstrip().startswith(("Account", "Message", "Mailbox")) for line in lines)


def test_a_column_that_says_nothing_in_any_row_is_told_as_such() -> None:
    columns = [Column("Mailbox", shrinks=True, least=20), Column("Use", leaves=1)]
    assert rich_table(columns, [("x" * 30, ""), ("y" * 30, "")], 22)[1] == f"{MORE}Use (-)"
    assert rich_table(columns, [("x" * 30, ""), ("y" * 30, "")], 25)[1] == ""


def test_an_error_in_the_queue_has_room(show: Show) -> None:
    lines, told = show(60, "queue", "list")
    assert "Error" in lines[0] and "boom" in lines[1] and told


@pytest.mark.parametrize("width", range(10, 120, 7))
def test_all_room_is_used_and_no_more(width: int) -> None:
    rooms = [Room(8), Room(50, least=12), Room(30, least=24, leaves=1), Room(10, leaves=2, all_same=True)]
    kept = [rooms[index] for index in shown(rooms, width)]
    widths = fitted(kept, width)
    used = sum(widths) + 2 * (len(widths) - 1)
    if width >= 8 + 2 + 12:
        assert all(cells >= room.needed for cells, room in zip(widths, kept, strict=True))
        assert used == min(width, sum(room.natural for room in kept) + 2 * (len(kept) - 1))
