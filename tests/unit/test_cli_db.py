"""``mailmill db`` and ``account remove`` against a service on a unix socket."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_service import CannedUseCases, running_service
from rich.console import Console
from rich.progress import Progress

from mailmill.cli.main import main
from mailmill.errors import ConflictError

Run = Callable[..., tuple[int, str, str]]

FINDING = {"check": "segments", "count": 2, "detail": "ab/1.seg is missing\x1b[31m", "hint": "fetch it again"}


class CannedMaintenance:
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.findings: list[dict[str, Any]] = []
        self.missing = 0
        self.states: list[dict[str, Any] | None] = []
        self.told = asyncio.Event()
        self.told.set()

    def state(self) -> dict[str, Any]:
        """What is in ``states``, one after the other; then the check may end."""
        running = self.states.pop(0) if self.states else None
        if not self.states:
            self.told.set()
        return {"running": running}

    async def check(self, *, full: bool) -> dict[str, Any]:
        self.calls.append(("check", full))
        await self.told.wait()
        return {
            "ok": not self.findings, "full": full, "checks": ["schema", "segments"], "segments": 7, "blobsRead": 9,
            "findings": self.findings, "seconds": 0.5,
        }  # fmt: skip

    async def backup(self, folder: str) -> dict[str, Any]:
        self.calls.append(("backup", folder))
        return {
            "folder": folder, "createdAt": "2026-05-04T11:00:00Z", "revision": "0003", "segments": 7,
            "segmentsAt": None, "missingSegments": self.missing, "messagesWithoutRaw": 30 * self.missing,
            "bytes": 12_345, "seconds": 0.5,
        }  # fmt: skip


class CannedRemovals:
    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []

    async def remove(self, name: str, *, purge: bool) -> dict[str, Any]:
        self.calls.append((name, purge))
        if name == "home":
            raise ConflictError("account 'home' is in the configuration", hint="take it out first")
        return {"account": name, "purged": purge, "messages": 1234 if purge else 0, "seconds": 0.5}

    async def running(self) -> list[dict[str, Any]]:
        return []


class Service(CannedUseCases):
    def __init__(self) -> None:
        super().__init__()
        self.maintenance = CannedMaintenance()
        self.removals = CannedRemovals()


@pytest.fixture
def service(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("MAILMILL_SERVICE__DATA_DIR", str(data_dir))
    use_cases = Service()
    with running_service(data_dir / "mailmill.sock", use_cases):
        yield use_cases


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], service: Service) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_sound_store_is_told_in_one_line(run: Run, service: Service) -> None:
    code, out, err = run("db", "check")
    assert (code, out.splitlines()) == (0, ["ok  2 checks, 7 segments, in 500 ms"])
    assert "--full" in err
    code, out, _err = run("db", "check", "--full", "--json")
    assert (code, json.loads(out)["blobsRead"]) == (0, 9)
    assert service.maintenance.calls == [("check", False), ("check", True)]


def test_what_is_broken_is_listed_and_fails(run: Run, service: Service) -> None:
    service.maintenance.findings = [FINDING]
    code, out, err = run("db", "check")
    assert code == 1
    assert "ab/1.seg is missing" in out
    assert "\x1b" not in out
    assert "hint: fetch it again" in err
    code, out, _err = run("db", "check", "--json")
    assert (code, json.loads(out)["findings"]) == (1, [FINDING])


def test_a_bar_says_what_is_done_and_counts_when_it_knows_of_how_many(
    run: Run, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailmill.cli.output.Output.shows_progress", True)
    monkeypatch.setattr("mailmill.cli.bars.PROGRESS_SECONDS", 0.001)
    begun = {"task": "check", "phase": "", "done": 0, "total": 0}
    service.maintenance.states = [None, begun, {**begun, "phase": "contents", "done": 3, "total": 9}, None]
    service.maintenance.told.clear()
    drawn: list[str] = []

    def watch(name: str) -> None:
        method = getattr(Progress, name)

        def watched(progress: Progress, *given: Any, **changes: Any) -> Any:
            answer = method(progress, *given, **changes)
            paper = io.StringIO()
            Console(file=paper, width=80).print(progress.get_renderable())
            drawn.append(re.sub(r"[^\w/?…]+", " ", paper.getvalue()).strip())
            return answer

        monkeypatch.setattr(Progress, name, watched)

    watch("add_task")
    watch("update")
    assert run("db", "check")[0] == 0
    assert drawn == ["checking", "checking", "contents 3/9"]


def test_a_backup_is_made_where_the_caller_stands(
    run: Run, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("db", "backup", "copy")
    assert code == 0
    assert service.maintenance.calls == [("backup", str(tmp_path / "copy"))]
    assert "7 segments" in out
    assert "master key is not in it" in err


def test_a_backup_that_is_not_whole_is_told_and_fails(run: Run, service: Service, tmp_path: Path) -> None:
    service.maintenance.missing = 40
    code, out, err = run("db", "backup", str(tmp_path / "copy"))
    assert (code, "7 segments" in out) == (1, True)
    assert "40 segments of raw mail are gone, with the raw bytes of 1,200 messages" in err
    assert "hint: mailmill verify --full --repair" in err
    code, out, _err = run("db", "backup", str(tmp_path / "copy"), "--json")
    assert (code, json.loads(out)["missingSegments"]) == (1, 40)


@pytest.mark.parametrize("command", [("check",), ("backup", "copy")])
def test_a_store_is_not_made_to_be_checked_or_copied(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MAILMILL_SERVICE__DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    assert main(["db", *command]) != 0
    assert "there is no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("answer", "deleted"), [("n\n", []), ("y\n", [("work", True)])])
def test_whoever_sits_at_a_terminal_is_asked_before_an_account_is_deleted(
    run: Run, service: Service, monkeypatch: pytest.MonkeyPatch, answer: str, deleted: list[tuple[str, bool]]
) -> None:
    typed = io.StringIO(answer)
    monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", typed)
    _code, _out, said = run("account", "remove", "work", "--purge")
    assert "Delete all that is stored of account work?" in said
    assert service.removals.calls == deleted
    assert run("account", "remove", "work", "--purge", "--yes")[0] == 0


def test_deleting_an_account_says_what_it_did(run: Run, service: Service) -> None:
    code, out, _err = run("account", "remove", "work", "--purge")
    assert (code, out) == (0, "deleted account 'work' and its 1,234 messages in 500 ms\n")
    code, out, err = run("account", "remove", "work")
    assert (code, out) == (0, "account 'work' is paused, and nothing of it was deleted\n")
    assert "--purge" in err
    assert service.removals.calls == [("work", True), ("work", False)]
    code, _out, err = run("account", "remove", "home", "--purge")
    assert (code, "take it out first" in err) == (1, True)
    assert run("account", "remove", "nobody", "--purge")[0] == 3
