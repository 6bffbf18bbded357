"""The command line as a whole: what is told where something is wrong, and with which exit code."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_service import CannedUseCases, running_service
from typer.core import TyperGroup

from mailmill import errors as mailmill_errors
from mailmill.cli import errors
from mailmill.cli.main import app, hoist, main
from mailmill.cli.switches import put_together
from mailmill.errors import AuthenticationError, ConfigurationError, MailmillError


def promised_exit_codes() -> dict[str, int]:
    """Class name → exit code, as the tree in ``mailmill.errors`` tells it; 1 where it tells none."""
    lines = (mailmill_errors.__doc__ or "").splitlines()
    found = (re.search(r"(\w+Error)\b(?:.*exit (\d+))?", line) for line in lines if "──" in line)
    return {match[1]: int(match[2] or 1) for match in found if match}


def all_errors(kind: type[MailmillError] = MailmillError) -> list[type[MailmillError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in all_errors(below))]


def test_every_error_has_an_exit_code() -> None:
    promised = promised_exit_codes()
    assert promised["ConfigurationError"] == 2 and promised["ProtocolError"] == 1
    for kind in all_errors():
        if kind.__module__ == mailmill_errors.__name__ and kind is not MailmillError:
            assert kind.code in errors.EXIT_CODES, kind
            assert errors.exit_code(kind.code) == promised[kind.__name__], kind


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def call(*_: Any) -> None:
        raise error

    monkeypatch.setattr("mailmill.cli.invocation.Invocation.call", call)


def test_an_error_is_a_line_and_its_remedy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error = AuthenticationError("the server said\x1b[2J no", hint="use an app password")
    error.account = "work"
    raising(monkeypatch, error)
    assert main(["status"]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: account 'work': the server said␛[2J no\nhint: use an app password\n"
    assert main(["status", "--json"]) == 4
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out) == {
        "error": {
            "code": "authentication",
            "message": "account 'work': the server said\x1b[2J no",
            "hint": "use an app password",
        }
    }


def test_an_error_inside_a_task_group_is_told_as_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, ExceptionGroup("group", [ExceptionGroup("inner", [ConfigurationError("taken")])]))
    assert main(["status"]) == 2
    assert capsys.readouterr().err == "error: taken\n"


def test_what_nobody_foresaw_shows_its_traceback_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, KeyError("x"))
    assert main(["status"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: unexpected: KeyError: 'x'\nhint: ") and "Traceback" not in shown
    assert main(["status", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert main(["status"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "no such command 'nonsense'"),
        (["sync", "--nonsense"], "no such option: --nonsense"),
        (["message", "read"], "missing argument"),
        (["envelope", "list", "--verdict", "good"], "'good' is not one of"),
        (["envelope", "list", "-n", "0"], "wants at least 1"),
        (["account"], "missing command"),
        (["db"], "missing command"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err.lower()
    assert shown.startswith("error: ") and said in shown and "hint: try: mailmill" in shown


def test_a_wrong_command_line_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync", "--json", "--nonsense"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "" and json.loads(captured.out)["error"]["code"] == "usage"


def test_bare_call_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "doctor" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mailmill ")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["sync", "--config", "x", "-a", "b"], ["--config", "x", "sync", "-a", "b"]),
        (["sync", "--config=x", "--debug"], ["--config=x", "--debug", "sync"]),
        (["message", "read", "--", "--debug"], ["message", "read", "--", "--debug"]),
        (["sync", "--config"], ["--config", "sync"]),
        (["--json", "queue", "list"], ["queue", "list", "--json"]),
        (["--json", "--config", "x", "read", "--", "-1"], ["--config", "x", "read", "--json", "--", "-1"]),
        (["queue", "list", "--json", "-n", "1"], ["queue", "list", "--json", "-n", "1"]),
        (["--json"], ["--json"]),
    ],
)
def test_global_options_may_stand_anywhere(given: list[str], meant: list[str]) -> None:
    assert hoist(given) == meant


@pytest.mark.parametrize("command", [[], ["sync"], ["queue"], ["queue", "drop"]])
def test_help_gives_no_type_to_what_takes_no_value(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "-h"]) == 0
    said = capsys.readouterr().out
    assert "--help" in said
    assert "<bool>" not in said


def all_commands(group: TyperGroup, *above: str) -> list[list[str]]:
    found: list[list[str]] = []
    for name, command in group.commands.items():
        found += all_commands(command, *above, name) if isinstance(command, TyperGroup) else [[*above, name]]
    return found


@pytest.mark.parametrize("command", all_commands(put_together(app)), ids=" ".join)
def test_help_shows_what_is_typed(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*command, "--help"]) == 0
    said = capsys.readouterr().out
    usage = next(line for line in said.splitlines() if "Usage:" in line)
    assert not set("{}") & set(usage) and "]..." not in usage
    assert not re.search(r"<(str|path|int|list)", said)
    assert len(re.findall(r"<(?!=)", said)) == len(re.findall(r"<[\w|]+>", said)), "a choice is broken in two"


def test_help_says_which_arguments_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    for command, usage in (
        ("queue retry", "[OPTIONS] [ID...]"),
        ("queue show", "[OPTIONS] ID"),
        ("message move", "[OPTIONS] ID... MAILBOX"),
        ("db backup", "[OPTIONS] FOLDER"),
    ):
        assert main([*command.split(), "--help"]) == 0
        [line] = [line for line in capsys.readouterr().out.splitlines() if "Usage:" in line]
        assert line.strip() == f"Usage: mailmill {command} {usage}"


def test_a_state_that_does_not_exist_is_answered_with_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", "list", "--state", "done"]) == 2
    assert "throttled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("queue list --limit 0", "invalid value for '--limit' / '-n': wants at least 1 (found '0')"),
        ("queue list -n 2000", "invalid value for '--limit' / '-n': wants at most 1000 (found '2000')"),
        ("envelope list --limit x", "invalid value for '--limit' / '-n': wants a whole number (found 'x')"),
        ("queue list --state odd", "invalid value for '--state': 'odd' is not one of 'pending', "),
    ],
)
def test_a_value_that_an_option_does_not_take_is_told_in_our_words(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    assert f"error: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["run"], ["sync"], ["doctor"], ["account", "list"]])
def test_a_broken_configuration_stops_every_command(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[service]\nlisen = "x"\nlog_level = "loud"\n')
    assert main([*command, "--config", str(config)]) == 2
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert sum(f"{config}: " in line for line in lines) == 2
    assert any("did you mean 'service.listen'?" in line for line in lines)
    assert list(tmp_path.iterdir()) == [config]


def test_warnings_of_the_configuration_go_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    monkeypatch.setenv("MAILMILL_SERVICE__DATA_DIR", str(data_dir))
    monkeypatch.setenv("IMAP_USERNAME", "me")
    with running_service(data_dir / "mailmill.sock", CannedUseCases()):
        assert main(["account", "list", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)
    assert captured.err == "warning: IMAP_USERNAME in the environment has no effect without IMAP_SERVER\n"


# -- as a program -----------------------------------------------------------------------------------------------------

PROGRAM = [sys.executable, "-c", "import sys; from mailmill.cli.main import main; sys.exit(main())"]


def environ(data_dir: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(data_dir), "MAILMILL_SERVICE__DATA_DIR": str(data_dir)}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from mailmill.cli.main import main; main(['--help']);"
        "print(sorted({'pydantic', 'httpx2', 'sqlalchemy', 'fastapi', 'uvloop'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n" and "doctor" in done.stdout


def test_a_reader_that_goes_away_is_no_error(data_dir: Path) -> None:
    use_cases = CannedUseCases()
    use_cases.pages = [use_cases.pages[0] * 500 for _ in range(20)]
    with running_service(data_dir / "mailmill.sock", use_cases):
        program = subprocess.Popen(
            [*PROGRAM, "envelope", "list", "-n", "10000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ(data_dir),
        )
        assert program.stdout is not None and program.stderr is not None
        program.stdout.readline()
        program.stdout.close()
        complaint = program.stderr.read()
        assert program.wait(60) == 141
        program.stderr.close()
    assert complaint == b""


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["envelope", "list"], ["account", "list", "--json"]])
def test_output_that_cannot_be_written_is_a_line(data_dir: Path, arguments: list[str]) -> None:
    with running_service(data_dir / "mailmill.sock", CannedUseCases()), Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, env=environ(data_dir), text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (1, "error: cannot write the output: No space left on device\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("non_blocking", [False, True])
def test_output_is_whole_however_slow_its_reader_is(data_dir: Path, unbuffered: str, non_blocking: bool) -> None:
    """Into a pipe of a page, which another program that has it open may have made non-blocking."""
    use_cases = CannedUseCases()
    use_cases.pages = [use_cases.pages[0] * 500]
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, not non_blocking)
    with running_service(data_dir / "mailmill.sock", use_cases), os.fdopen(reader, "rb") as pipe:
        program = subprocess.Popen(
            [*PROGRAM, "envelope", "list", "-n", "500", "--json"],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**environ(data_dir), "PYTHONUNBUFFERED": unbuffered},
        )
        os.close(writer)
        out = pipe.read()
        _, complaint = program.communicate(timeout=60)
    assert (program.returncode, complaint) == (0, b"")
    assert len(json.loads(out)["messages"]) == 500


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_terminal_gets_all_and_each_line_at_once(data_dir: Path, unbuffered: str) -> None:
    """``mailmill`` on a terminal that is non-blocking, as it is where another program on it has made it so."""
    leader, terminal = os.openpty()
    os.set_blocking(terminal, False)
    code = (
        "import sys; from mailmill.cli.main import main; main(['--version']); print('x' * 200_000);"
        "print('y'); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=terminal,
        env={**environ(data_dir), "PYTHONUNBUFFERED": unbuffered},
    ) as program:
        os.close(terminal)
        seen = b""
        while not seen.endswith(b"y\r\n"):  # it is not over yet: nothing is left for the exit to flush
            seen += os.read(leader, 65536)
        program.communicate(b"\n", timeout=60)
    os.close(leader)
    assert (program.returncode, seen.count(b"x")) == (0, 200_000)


def test_an_error_that_cannot_be_told_keeps_its_exit_code(data_dir: Path) -> None:
    command = [*PROGRAM, "status", "--config", str(data_dir / "missing")]
    with Path("/dev/full").open("w") as full:
        for arguments, stdout, code in (([], subprocess.PIPE, 2), (["--debug"], full, 2), (["--json"], full, 1)):
            done = subprocess.run([*command, *arguments], stdout=stdout, stderr=full, env=environ(data_dir), timeout=60)
            assert done.returncode == code, arguments


def test_closed_descriptors_are_not_given_to_files(data_dir: Path) -> None:
    told = data_dir / "told"
    code = (
        "import os, sys; from mailmill.cli.main import main; code = main(['--version']);"
        f"file = open({str(told)!r}, 'w');"
        "file.write(' '.join([*(os.readlink(f'/proc/self/fd/{n}') for n in range(3)), str(file.fileno() > 2)]));"
        "sys.exit(code)"
    )
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(closed, env=environ(data_dir), timeout=60).returncode == 0
    assert told.read_text() == "/dev/null /dev/null /dev/null True"


def test_ctrl_c_during_a_sync(data_dir: Path) -> None:
    use_cases = CannedUseCases()
    use_cases.sync_may_end.clear()
    with running_service(data_dir / "mailmill.sock", use_cases):
        with subprocess.Popen(
            [*PROGRAM, "sync"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ(data_dir),
            # Tests that run in the background were started with the signal ignored, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as program:
            assert use_cases.sync_asked.wait(60)
            program.send_signal(signal.SIGINT)
            out, err = program.communicate(timeout=60)
        assert (program.returncode, out, err) == (130, b"", b"")


def test_commands_say_what_they_do() -> None:
    from mailmill.cli.commands import account, demo, doctor, envelope, mailbox, message, queue, run, status, sync

    for module in (account, demo, doctor, envelope, mailbox, message, queue, run, status, sync):
        assert inspect.getdoc(module)
