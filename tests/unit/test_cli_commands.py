"""The commands against a service on a unix socket."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import pytest
from cli_service import DETAIL, ESCAPE, MESSAGE, SOURCE, CannedUseCases, account, running_service

from dashboard.fake_rows import node
from mailmill.cli.commands import status, verify
from mailmill.cli.main import main
from mailmill.cli.output import Output, plain
from mailmill.errors import NotFoundError


@pytest.fixture
def service(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CannedUseCases]:
    monkeypatch.setenv("MAILMILL_SERVICE__DATA_DIR", str(data_dir))
    use_cases = CannedUseCases()
    with running_service(data_dir / "mailmill.sock", use_cases):
        yield use_cases


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], service: CannedUseCases) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def as_json(result: tuple[int, str, str]) -> Any:
    code, out, err = result
    assert (code, err) == (0, "")
    return json.loads(out)


def test_sync_asks_and_prints_exactly_the_contracts_object(run: Run, service: CannedUseCases) -> None:
    report = as_json(run("sync", "--json"))
    assert set(report) == {"seconds", "accounts"}
    assert [each["account"] for each in report["accounts"]] == ["home", "work"]
    as_json(run("sync", "-a", "work", "--account", "home", "--no-process", "--json"))
    assert [call for call in service.calls if call[0] == "sync"] == [
        ("sync", (None, True)),
        ("sync", (["work", "home"], False)),
    ]


@pytest.mark.parametrize(
    ("codes", "exit_code"),
    [
        ({}, 0),
        ({"home": "authentication"}, 4),
        ({"home": "authentication", "work": "connect"}, 4),
        ({"home": "connect", "work": "poolTimeout"}, 5),
        ({"home": "connect", "work": "certificate"}, 1),
        ({"home": "protocol"}, 1),
    ],
)
def test_sync_exits_by_what_failed(run: Run, service: CannedUseCases, codes: dict[str, str], exit_code: int) -> None:
    service.sync_errors = {name: {"code": c, "message": f"no{ESCAPE}", "hint": "do so"} for name, c in codes.items()}
    code, out, err = run("sync")
    assert code == exit_code
    for name, each in codes.items():
        assert each in out and f"account '{name}': no" in err and "hint: do so" in err
    assert "\x1b" not in out + err
    assert run("sync", "--json")[0] == exit_code


def test_sync_draws_bars_for_a_first_sync(run: Run, service: CannedUseCases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailmill.cli.output.Output.shows_progress", True)
    service.account_list = [account("home", progress={"stored": 250, "total": 1000}), account("work")]
    service.sync_may_end.clear()
    accounts = service.accounts

    async def asked_twice() -> list[dict[str, Any]]:
        service.calls.append(("accounts", None))
        if service.calls.count(("accounts", None)) == 2:
            service.sync_may_end.set()
        return await accounts()

    monkeypatch.setattr(service, "accounts", asked_twice)
    drawn: list[tuple[str, float, float | None]] = []
    from rich.progress import Progress

    update = Progress.update

    def watched(progress: Progress, task: Any, **changes: Any) -> None:
        update(progress, task, **changes)
        drawn.extend((each.description, each.completed, each.total) for each in progress.tasks)

    monkeypatch.setattr(Progress, "update", watched)
    code, out, _ = run("sync")
    assert code == 0 and "RESULT" in out
    assert set(drawn) == {("home", 250, 1000)}


def test_run_tells_its_link_in_one_write(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Recorder(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    @asynccontextmanager
    async def serve(application: Any, *, announce: Callable[[str], None]) -> AsyncIterator[None]:
        with redirect_stderr(Recorder()):
            announce("http://127.0.0.1:1/login?code=x")
        yield

    async def run_service(settings: Any, *, serve: Any) -> None:
        async with serve(None):
            pass

    monkeypatch.setattr("mailmill.app.logs.configure", lambda **_: None)
    monkeypatch.setattr("mailmill.cli.serving.serve", serve)
    monkeypatch.setattr("mailmill.app.supervisor.run_service", run_service)
    assert run("run")[0] == 0
    assert written == ["mailmill is running. Its page (the link works once): http://127.0.0.1:1/login?code=x\n"]


def test_status(run: Run) -> None:
    figures = as_json(run("status", "--json"))
    assert figures["queue"]["pending"] == 3
    code, out, err = run("status")
    assert code == 0
    assert "running" in out and "3 pending · 1 processing · 1,200 completed · 2 failed" in out and "connected" in out
    assert "/login?code=" in err and "127.0.0.1:8025" in err


def test_status_says_what_to_do_where_no_account_is_configured(run: Run, service: CannedUseCases) -> None:
    assert "no account" not in run("status")[2]
    service.account_list = []
    code, out, err = run("status")
    assert code == 0 and "ACCOUNT" not in out
    assert "no account is configured\nhint: set IMAP_SERVER, IMAP_USERNAME and IMAP_PASSWORD, or add " in err
    assert run("status", "--json")[2] == ""


def test_status_of_a_fleet_says_who_owns_what(run: Run, service: CannedUseCases) -> None:
    assert "alive" not in run("status")[1]
    service.nodes = [
        node("n", shards=40, accounts=2),
        node("m", shards=24, accounts=1, state="silent"),
    ]
    service.account_list[0]["node"] = "n"
    service.account_list[1]["node"] = "m"
    shown = run("status")[1]
    for words in ("alive", "silent", "40", "24"):
        assert words in shown
    ours, dead = (next(line for line in shown.splitlines() if line.startswith(f"{name} ")).split() for name in "nm")
    assert dead[2:4] == ["1.5", "s"] and dead[7] == "-", "it is not up; when it was last heard is told"
    assert ours[7:9] == ["7", "h"]
    here, there = (
        next(line for line in shown.splitlines() if line.startswith(name)).split() for name in ("home", "work")
    )
    assert "n" in here and here.count("-") < 3
    assert there[-1] == "m" and there[-4:-1] == ["-"] * 3, "how it goes there only the other node knows"
    assert run("account", "show", "home")[1].count("Last full pass") == 1
    elsewhere = run("account", "show", "work")[1]
    assert "Node" in elsewhere and "Last full pass" not in elsewhere and "Push" not in elsewhere
    assert [each["shards"] for each in as_json(run("status", "--json"))["nodes"]] == [40, 24]


@pytest.mark.parametrize(
    ("service_runs", "others", "state", "counted"),
    [
        (False, [], "no service", "1 connectError · 2 without a service"),
        (True, [], "disconnected", "1 connectError · 2 disconnected"),
        (False, [node("m")], "disconnected", "1 connectError · 2 disconnected"),
    ],
    ids=["a command alone", "a service", "a command beside other nodes"],
)
async def test_no_account_is_called_disconnected_where_no_service_could_connect_it(
    service_runs: bool, others: list[Any], state: str, counted: str
) -> None:
    figures = await CannedUseCases().status()
    figures |= {"nodes": [node("n"), *others], "accounts": {"connectError": 1, "disconnected": 2}}
    left, refused = status.account_rows(
        [account("home", state="disconnected"), account("work", state="connectError")],
        figures,
        service_runs=service_runs,
    )
    assert [plain(row[1]) for row in (left, refused)] == [state, "connectError"]
    assert dict(status.fields(figures, service_runs=service_runs))["Accounts"] == counted


def test_accounts(run: Run, service: CannedUseCases) -> None:
    assert [each["account"] for each in as_json(run("account", "list", "--json"))["accounts"]] == ["home", "work"]
    assert "home" in run("account", "list")[1]
    assert as_json(run("account", "show", "work", "--json"))["messages"] == 1234
    assert "1,234" in run("account", "show", "work")[1]
    assert as_json(run("account", "check", "work", "--json"))["tier"] == "qresync"
    assert len(as_json(run("account", "check", "--json"))["checks"]) == 2
    service.check_error = {"code": "certificate", "message": "not trusted", "hint": "name its root in imap.ca_file"}
    code, _, err = run("account", "check", "work")
    assert code == 1 and "error: not trusted" in err and "imap.ca_file" in err


@pytest.mark.parametrize("command", [("account", "show", "x"), ("message", "read", "9"), ("sync", "-a", "x")])
def test_what_is_not_there_is_exit_3(run: Run, command: tuple[str, ...]) -> None:
    code, out, err = run(*command)
    assert (code, out) == (3, "") and err.startswith("error: no ")
    code, out, err = run(*command, "--json")
    assert (code, err) == (3, "") and json.loads(out)["error"]["code"] == "notFound"


def test_mailboxes(run: Run) -> None:
    assert len(as_json(run("mailbox", "list", "--json"))["mailboxes"]) == 2
    assert as_json(run("mailbox", "list", "--account", "work", "--json"))["mailboxes"][0]["account"] == "work"
    assert "INBOX" in run("mailbox", "list")[1]


def test_envelopes_are_listed_over_pages_up_to_the_limit(run: Run, service: CannedUseCases) -> None:
    service.pages = [[MESSAGE] * 500, [MESSAGE] * 100, [MESSAGE]]
    answer = as_json(
        run("envelope", "list", "-n", "600", "-a", "work", "-m", "INBOX", "--verdict", "malicious", "--json")
    )
    assert len(answer["messages"]) == 600 and answer["nextCursor"] == "2"
    queries = [query for name, query in service.calls if name == "messages"]
    assert [query["page_size"] for query in queries] == [500, 100]
    assert {(query["account"], query["path"], query["verdict"]) for query in queries} == {
        ("work", "INBOX", "malicious")
    }


def test_envelopes_on_paper(run: Run) -> None:
    code, out, _ = run("envelope", "list")
    assert code == 0 and "malicious" in out and "[bold]2026[/bold]" in out
    code, _, err = run("envelope", "list", "--mailbox", "INBOX")
    assert code == 2 and "error: --mailbox needs --account" in err


def test_message(run: Run) -> None:
    assert as_json(run("message", "read", "7", "--json"))["subject"] == MESSAGE["subject"]
    code, out, _ = run("message", "read", "7")
    assert code == 0
    for shown in ("bill@example.org", "malicious", "attachments.double_extension", "Pay now.", "summary failed: boom"):
        assert shown in out
    assert run("message", "read", "7", "--html", "--account", "work")[1] == "<p>Hello <b>there</b></p>\n"
    assert run("message", "read", "7", "--raw", "--json")[0] == 2


@pytest.mark.parametrize("options", [(), ("--json",), ("--html",)])
def test_text_addressed_to_an_assistant_is_warned_of(
    run: Run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    assert "assistant" not in run("message", "read", "7", *options)[2]
    reasons = ["It gives instructions \x1b[31m."]
    monkeypatch.setitem(DETAIL, "threat", DETAIL["threat"] | {"reasons": reasons, "promptInjection": True})
    code, out, err = run("message", "read", "7", *options)
    assert code == 0 and "warning: this message holds text addressed to an assistant" in err
    if options == ("--json",):
        assert json.loads(out)["threat"]["promptInjection"] is True
    if not options:
        assert "  It gives instructions ␛[31m.\n" in out


def test_a_message_with_html_alone_is_read_all_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DETAIL, "text", {"plain": "", "html": "<p>Hello <b>there</b></p>", "hasMore": False})
    code, out, err = run("message", "read", "7")
    assert code == 0 and out.endswith("Hello there\n") and "--html" in err


def test_nothing_a_stranger_wrote_reaches_the_terminal_as_a_command(run: Run) -> None:
    for command in (
        ("message", "read", "7"),
        ("envelope", "list"),
        ("queue", "list"),
        ("message", "read", "7", "--json"),
    ):
        _, out, err = run(*command)
        assert not set("\x1b\x07\u202e\r") & set(out + err), command


def test_raw_is_byte_for_byte_in_a_pipe_and_harmless_on_a_terminal(
    capfdbinary: pytest.CaptureFixture[bytes], service: CannedUseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["message", "read", "7", "--raw"]) == 0
    assert capfdbinary.readouterr() == (SOURCE, b"")
    monkeypatch.setitem(DETAIL, "threat", {"promptInjection": True})
    assert main(["message", "read", "7", "--raw"]) == 0
    piped = capfdbinary.readouterr()
    assert piped.out == SOURCE and b"addressed to an assistant" in piped.err
    monkeypatch.setattr("mailmill.cli.output.Output.on_terminal", True)
    assert main(["message", "read", "7", "--raw"]) == 0
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == "Subject: Invoice\n\nHello ␛[31m\ufffd\n".encode()


def test_queue(run: Run, service: CannedUseCases) -> None:
    assert as_json(run("queue", "list", "--state", "failed", "-p", "summary", "--json"))["queue"][0]["attempt"] == 5
    assert "boom ␛[2J" in run("queue", "list")[1]
    assert run("queue", "retry", "7", "8")[1] == "4 queued again\n"
    retried = as_json(run("queue", "retry", "--all", "--processor", "summary", "--json"))
    assert retried == {"retried": 4, "unknown": [], "unaffected": []}
    assert [call for call in service.calls if call[0] in ("queue", "retry")] == [
        ("queue", {"state": "failed", "processor": "summary", "limit": 50}),
        ("queue", {"state": None, "processor": None, "limit": 50}),
        ("retry", (["7", "8"], None)),
        ("retry", (None, "summary")),
    ]
    assert run("queue", "retry")[0] == 2
    assert run("queue", "retry", "7", "--all")[0] == 2


@pytest.mark.parametrize(
    ("unknown", "unaffected", "command", "exit_code", "said"),
    [
        (["999"], [], "retry", 3, "error: there is no message 999\n"),
        (["998", "999"], [], "drop", 3, "error: there are no messages 998, 999\n"),
        ([], ["14"], "retry", 1, "error: no work of message 14 has failed\n"),
        (["999"], ["14"], "retry -p summary", 3, "error: no work for summary of message 14 has failed\n"),
        ([], ["12"], "drop", 1, "hint: with --unfinished what waits or runs is given up, too\n"),
        ([], ["12"], "drop --unfinished", 1, "error: no work of message 12 is left\n"),
        ([], [str(each) for each in range(1, 13)], "retry", 1, "of messages 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more "),
    ],
)  # fmt: skip
def test_queue_names_the_messages_of_which_it_could_change_nothing(
    run: Run,
    service: CannedUseCases,
    unknown: list[str],
    unaffected: list[str],
    command: str,
    exit_code: int,
    said: str,
) -> None:
    service.work.left_out = {"unknown": unknown, "unaffected": unaffected}
    code, out, err = run("queue", *command.split(), "7", *unknown, *unaffected)
    assert code == exit_code and said in err
    assert out in ("4 queued again\n", "2 given up\n"), "what could be done is done and said"
    code, out, err = run("queue", *command.split(), "7", *unknown, *unaffected, "--json")
    assert (code, err, json.loads(out)["unknown"]) == (exit_code, "", unknown)


def test_queue_show_has_every_error(run: Run) -> None:
    code, shown, _ = run("queue", "show", "7")
    assert code == 0
    assert "summary, version 1" in shown
    assert "a worker died" in shown and "boom ␛[2J" in shown
    assert as_json(run("queue", "show", "7", "--json"))["queue"][0]["errors"][0]["kind"] == "crash"
    assert run("queue", "show", "8")[1] == ""
    assert run("queue", "show", "404")[0] == 3


def test_queue_drop_gives_work_up(run: Run, service: CannedUseCases) -> None:
    assert run("queue", "drop", "7")[1] == "2 given up\n"
    assert as_json(run("queue", "drop", "-p", "summary", "--unfinished", "--json"))["dropped"] == 2
    run("queue", "drop", "--all", "--yes")
    asked = [call[1] for call in service.calls if call[0] == "drop"]
    assert asked == [
        {"message_ids": ["7"], "processor": None, "everything": False, "any_state": False},
        {"message_ids": None, "processor": "summary", "everything": False, "any_state": True},
        {"message_ids": None, "processor": None, "everything": True, "any_state": False},
    ]
    assert run("queue", "drop")[0] == 2
    assert run("queue", "drop", "7", "--all")[0] == 2


@pytest.mark.parametrize(("answer", "dropped"), [("y\n", 1), ("n\n", 0), ("", 0)])
def test_queue_drop_asks_whoever_sits_at_a_terminal(
    run: Run, service: CannedUseCases, monkeypatch: pytest.MonkeyPatch, answer: str, dropped: int
) -> None:
    typed = io.StringIO(answer)
    monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", typed)
    code, _, said = run("queue", "drop", "7", "-p", "summary")
    assert (code == 0) == bool(dropped)
    assert "Give up the failed work of 1 message for summary?" in said
    assert len([call for call in service.calls if call[0] == "drop"]) == dropped


def test_queue_pause_and_resume(run: Run) -> None:
    assert run("queue", "pause", "summary")[1] == "summary is paused\n"
    assert run("queue", "resume", "summary")[1] == "summary is running already\n"
    assert as_json(run("queue", "pause", "summary", "--json"))["paused"] is True
    assert run("queue", "pause", "nobody")[0] == 3
    assert "paused: summary" in run("status")[1]


def test_terminal_pictures_hold_all_columns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("mailmill.cli.output.Output.on_terminal", True)
    for command in (("status",), ("sync",), ("envelope", "list"), ("queue", "list"), ("account", "list")):
        code, out, _ = run(*command)
        assert code == 0 and max(len(line) for line in out.splitlines()) <= 100, command
    assert "authenticationError" not in out and "connected" in out


def verified(name: str, error: str = "", **counts: int) -> dict[str, Any]:
    told = {"code": error, "message": "said", "hint": ""} if error else None
    report: dict[str, Any] = {"account": name, "full": True, "mailboxes": 1, "messages": 1, "contents": 1}
    lists: dict[str, Any] = {"gaps": [], "repaired": [], "settled": [], "unverified": []}
    return report | lists | {"counts": counts, "seconds": 0.1, "error": told}


def test_of_several_nodes_each_verifies_its_own_accounts(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs, left = verified("ours"), verified("theirs", "conflict"), frozenset({"theirs"})
    assert verify.exit_code({"accounts": [ours, theirs]}, left) == 0
    assert verify.exit_code({"accounts": [ours, theirs]}) == 1
    assert verify.exit_code({"accounts": [theirs]}, left) == 1, "nothing was looked at"
    assert verify.exit_code({"accounts": [verified("ours", missing=2), theirs]}, left) == 1
    assert verify.exit_code({"accounts": [ours, verified("away", "connect"), theirs]}, left) == 5
    verify.show_report(Output(), {"accounts": [ours, theirs]}, left)
    shown = capsys.readouterr()
    assert "ours" in shown.out and "theirs" not in shown.out
    assert "1 account is kept in sync by other nodes" in shown.err


@pytest.mark.parametrize(
    ("keeper", "nodes", "asked", "code"),
    [
        ("b", [node("n"), node("b")], (), 0),
        ("b", [node("n"), node("b")], ("--account", "other", "--account", "ours"), 1),
        (None, [node("n"), node("b")], (), 1),
        ("n", [node("n"), node("b")], (), 1),
        ("b", [node("n"), node("b", state="silent")], (), 1),
        ("b", [node("n"), {**node("b"), "roles": []}], (), 1),
        ("b", [node("n")], (), 1),
    ],
    ids=["another keeps it", "named", "paused or unowned", "hangs here", "silent", "a command's", "gone"],
)
def test_verify_leaves_out_only_what_another_node_keeps(
    run: Run,
    service: CannedUseCases,
    monkeypatch: pytest.MonkeyPatch,
    keeper: str | None,
    nodes: list[dict[str, Any]],
    asked: tuple[str, ...],
    code: int,
) -> None:
    async def look(_accounts: list[str] | None, **_options: object) -> dict[str, Any]:
        return {"seconds": 0.1, "clean": False, "accounts": [verified("ours"), verified("other", "conflict")]}

    monkeypatch.setattr(service, "verify", look, raising=False)
    service.account_list = [account("ours", node="n"), account("other", node=keeper)]
    service.nodes = nodes
    ended, out, err = run("verify", *asked)
    assert ended == code
    assert ("other" in out, "account 'other': said" in err) == (bool(code), bool(code))
    assert ("1 account is kept in sync by other nodes" in err) == (not code)
    assert run("verify", "--json", *asked)[0] == code


def test_verify_keeps_its_findings_where_nobody_says_who_keeps_the_rest(
    run: Run, service: CannedUseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(_accounts: list[str] | None, **_options: object) -> dict[str, Any]:
        return {"seconds": 0.1, "clean": False, "accounts": [verified("ours"), verified("other", "conflict")]}

    async def fails() -> list[dict[str, Any]]:
        raise NotFoundError("the store is away")

    monkeypatch.setattr(service, "verify", look, raising=False)
    monkeypatch.setattr(service, "accounts", fails)
    code, out, err = run("verify")
    assert code == 1 and "ours" in out and "account 'other': said" in err
