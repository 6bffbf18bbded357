"""``mailmill reprocess`` and ``message read --processing`` against a service on a unix socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_service import CannedUseCases, running_service

from mailmill.cli.commands import reprocess
from mailmill.cli.errors import UsageError
from mailmill.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def service(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CannedUseCases]:
    monkeypatch.setenv("MAILMILL_SERVICE__DATA_DIR", str(data_dir))
    use_cases = CannedUseCases()
    with running_service(data_dir / "mailmill.sock", use_cases):
        yield use_cases


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], service: CannedUseCases, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("mailmill.cli.bars.PROGRESS_SECONDS", 0.001)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_it_follows_until_all_is_queued(run: Run, service: CannedUseCases) -> None:
    code, out, err = run("reprocess", "-p", "threat", "-a", "work", "--mailbox", "INBOX")
    assert code == 0
    assert out == "5 messages queued again for threat version 2, 4 left to process\n"
    assert "it goes on by itself" in err
    assert "1 failed for good" in err
    [asked] = service.reprocessing.asked
    assert (asked["accounts"], asked["mailboxes"], asked["wait"]) == (["work"], ["INBOX"], False)


def test_with_wait_until_all_is_processed(run: Run, service: CannedUseCases) -> None:
    code, out, _ = run("reprocess", "--processor", "threat", "--all", "--wait")
    assert (code, out) == (0, "5 messages processed again by threat version 2\n")
    assert service.reprocessing.asked[0]["everything"]


def test_that_the_processor_is_paused_is_said_at_once(run: Run, service: CannedUseCases) -> None:
    """To who waits before anything comes of it; to who does not, instead of that it goes on."""
    pause(service, 1, 2)
    code, out, err = run("reprocess", "-p", "threat", "--wait")
    assert (code, out) == (0, "5 messages processed again by threat version 2\n")
    assert err.splitlines()[0] == "threat is paused: mailmill queue resume threat"
    assert err.count("is paused") == 1
    assert json.loads(run("reprocess", "-p", "threat", "--wait", "--json")[1])["state"] == "done"


def test_of_one_that_is_paused_it_is_not_said_that_it_goes_on(run: Run, service: CannedUseCases) -> None:
    pause(service, 0, 1, 2)
    code, out, err = run("reprocess", "-p", "threat")
    assert (code, out) == (0, "5 messages queued again for threat version 2, 4 left to process\n")
    assert "threat is paused: mailmill queue resume threat" in err
    assert "goes on" not in err


def test_json_says_on_stderr_what_a_wait_is_for(run: Run, service: CannedUseCases) -> None:
    pause(service, 0, 1)
    code, out, err = run("reprocess", "-p", "threat", "--wait", "--json")
    assert (code, json.loads(out)["state"]) == (0, "done")
    assert err == "threat is paused: mailmill queue resume threat\n"


def test_that_the_same_was_asked_for_before_is_said(run: Run, service: CannedUseCases) -> None:
    service.reprocessing.joined = True
    service.reprocessing.steps[-1] |= {"total": 8, "queued": 3}
    code, out, err = run("reprocess", "-p", "threat", "--wait")
    assert (code, out) == (0, "8 messages processed again by threat version 2\n"), (
        "what it waited for, not what it queued"
    )
    assert "the same was asked for at 2026-05-04T11:39:00.000Z and is not over: nothing is queued twice" in err


def test_who_waits_for_one_that_is_cancelled_is_told_and_fails(run: Run, service: CannedUseCases) -> None:
    cancelled = {"state": "cancelled", "total": 2, "queued": 2, "left": 1, "queuedAt": "2026-05-04T11:40:00.000Z"}
    service.reprocessing.steps.insert(1, cancelled)
    code, out, err = run("reprocess", "-p", "threat", "--wait")
    assert (code, out) == (1, "cancelled: 2 messages were or are processed again by threat version 2\n")
    assert "it was cancelled before all was processed" in err


def test_a_dry_run_only_counts(run: Run, service: CannedUseCases) -> None:
    code, out, _ = run("reprocess", "--processor", "threat", "--failed", "--version-below", "2", "--dry-run")
    assert (code, out) == (0, "5 messages would be processed again by threat version 2\n")
    [asked] = service.reprocessing.asked
    assert (asked["dry_run"], asked["failed"], asked["version_below"]) == (True, True, 2)


def test_json_is_the_answer_of_the_api(run: Run) -> None:
    code, out, err = run("reprocess", "--processor", "threat", "--wait", "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert (answer["id"], answer["state"], answer["left"]) == ("1", "done", 0)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--processor", "none"), 3, "no processor 'none' is configured"),
        (("--processor", "threat", "--all", "--failed"), 2, "do not go together|goes neither"),
        (("--processor", "threat", "--dry-run", "--wait"), 2, "do not go together"),
        (("--processor", "threat", "--since", "yesterday"), 2, "is no date"),
        ((), 2, "--processor"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    got, out, err = run("reprocess", *arguments)
    assert (got, out) == (code, "")
    assert any(part in err for part in told.split("|"))


def test_dates_are_local_unless_they_say() -> None:
    local = datetime(2026, 5, 4).astimezone(UTC).isoformat()
    assert reprocess.moment_of("--since", "2026-05-04") == local
    assert reprocess.moment_of("--since", "2026-05-04T13:30:00+02:00") == "2026-05-04T11:30:00+00:00"
    assert reprocess.moment_of("--since", None) is None
    with pytest.raises(UsageError):
        reprocess.moment_of("--until", "soon")


def test_the_ledger_of_a_message(run: Run) -> None:
    code, out, _ = run("message", "read", "7", "--processing")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["PROCESSOR", "VERSION", "STATE", "RUNS", "CRASHES", "TIME", "AT"]
    assert [line.split()[:5] for line in lines[1:4]] == [
        ["threat", "2", "completed", "3", "1"],
        ["threat", "1", "older", "1", "0"],
        ["invoice", "1", "failed", "5", "0"],
    ]
    assert "attempt: TimeoutError: took over 30 s" in lines[4]
    assert "crash: the worker died while running it" in lines[5]
    assert "invoice 1  attempt: ValueError: no total" in lines[6]
    assert "\x1b" not in out
    code, out, _ = run("message", "read", "7", "--processing", "--json")
    assert json.loads(out)["status"] == "failed"
    assert run("message", "read", "7", "--processing", "--raw")[0] == 2


def test_what_runs_for_a_processor_is_cancelled(run: Run) -> None:
    code, out, _ = run("reprocess", "--processor", "threat", "--cancel")
    assert code == 0
    assert out == "cancelled: 3 messages are not processed again by threat version 2, 2 were or are\n"
    code, out, err = run("reprocess", "--processor", "threat", "--cancel")
    assert (code, out) == (0, "")
    assert "nothing is being processed again by threat" in err
    assert run("reprocess", "--processor", "summary", "--cancel")[:2] == (0, "")


def test_a_cancelled_one_as_json(run: Run) -> None:
    code, out, _ = run("reprocess", "--processor", "threat", "--cancel", "--json")
    assert (code, [each["dropped"] for each in json.loads(out)["cancelled"]]) == (0, [3])


def pause(service: CannedUseCases, *steps: int) -> None:
    for step in steps:
        service.reprocessing.steps[step]["paused"] = True


def test_it_goes_with_nothing_else(run: Run) -> None:
    code, _, err = run("reprocess", "--processor", "threat", "--cancel", "--all")
    assert (code, "--cancel goes with --processor alone" in err) == (2, True)
