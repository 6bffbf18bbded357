"""``mailmill threat`` on small files of its own: what it prints, its exit codes, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mailmill.app.threat_evaluation.cases import PeerOpinion
from mailmill.app.threat_evaluation.peers import PeerError
from mailmill.cli.commands.threat import ManyFolders
from mailmill.cli.main import main

SERVER = "mx.harbour.example"
HONEST = (
    f"Authentication-Results: {SERVER}; spf=pass smtp.mailfrom=meadow.example; dkim=pass header.d=meadow.example;\r\n"
    " dmarc=pass header.from=meadow.example\r\n"
    "From: Ada <ada@meadow.example>\r\nSubject: Tea\r\n\r\nAt four?\r\n"
)
FORGED = (
    f"Authentication-Results: {SERVER}; spf=fail smtp.mailfrom=x.example; dkim=none;\r\n"
    " dmarc=fail header.from=paypal.com\r\n"
    "From: PayPal Service <service@paypal.com>\r\nReply-To: collect@gmail.com\r\n"
    "Subject: Your account\x1b]0;owned\x07 is limited\r\nContent-Type: text/html\r\n\r\n"
    '<p>Sign in: <a href="http://203.0.113.7/login">https://www.paypal.com/login</a></p>\r\n'
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    folder = tmp_path / "mail"
    folder.mkdir()
    (folder / "1-honest.eml").write_text(HONEST, newline="")
    (folder / "2-forged.eml").write_text(FORGED, newline="")
    (folder / "LICENSE").write_text("Permission is granted.\n")
    return folder


def lines(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


# -- scan -------------------------------------------------------------------------------------------------------------


def test_scan_shows_a_table_and_a_summary(run: Run, mail: Path) -> None:
    code, out, err = run("threat", "scan", mail, "--authserv-id", SERVER)
    assert code == 0
    title, honest, forged = out.splitlines()
    assert title.split() == ["VERDICT", "SCORE", "FROM", "SUBJECT", "MAIN", "REASON", "FILE"]
    assert honest.startswith("clean") and honest.endswith("1-honest.eml")
    assert forged.startswith("malicious") and "PayPal Service <service@paypal.com>" in forged
    assert err == "2 messages: 1 clean, 0 suspicious, 1 malicious · 1 without mail passed over\n"


def test_a_strangers_text_is_harmless_on_a_terminal(run: Run, mail: Path) -> None:
    for arguments in (
        ["threat", "scan", mail],
        ["threat", "scan", mail, "--json"],
        ["threat", "explain", mail / "2-forged.eml"],
        ["threat", "explain", mail / "2-forged.eml", "--json"],
    ):
        _, out, err = run(*arguments)
        assert "\x1b" not in out + err and "\x07" not in out + err
        assert "owned" in out


def test_scan_gives_a_line_of_json_for_each_message(run: Run, mail: Path) -> None:
    code, out, err = run("threat", "scan", mail, "--authserv-id", SERVER, "--json")
    assert (code, err) == (0, "")
    honest, forged = lines(out)
    assert (honest["file"], honest["number"], honest["verdict"]) == (str(mail / "1-honest.eml"), None, "clean")
    assert forged["verdict"] == "malicious" and forged["score"] >= 80
    assert {"id", "family", "severity", "score", "evidence"} == set(forged["findings"][0])
    assert forged["from"] == {"name": "PayPal Service", "address": "service@paypal.com"}


def test_only_shows_what_is_so_or_worse(run: Run, mail: Path) -> None:
    _, out, err = run("threat", "scan", mail, "--authserv-id", SERVER, "--only", "suspicious", "--json")
    assert [one["verdict"] for one in lines(out)] == ["malicious"]
    _, out, err = run("threat", "scan", mail / "1-honest.eml", "--only", "malicious", "--authserv-id", SERVER)
    assert out == "" and err.strip().endswith("1 message: 1 clean, 0 suspicious, 0 malicious")


@pytest.mark.parametrize(
    ("level", "file", "code"), [("malicious", "2", 1), ("suspicious", "2", 1), ("suspicious", "1", 0)]
)
def test_fail_on(run: Run, mail: Path, level: str, file: str, code: int) -> None:
    [path] = mail.glob(f"{file}-*")
    assert run("threat", "scan", path, "--authserv-id", SERVER, "--fail-on", level)[0] == code


def test_without_an_authserv_id_it_says_so_and_what_it_could_be(run: Run, mail: Path) -> None:
    _, _, err = run("threat", "scan", mail)
    assert "no --authserv-id" in err and f"--authserv-id {SERVER}" in err
    _, _, err = run("threat", "scan", mail, "--authserv-id", "mx.other.example")
    assert "no message has Authentication-Results of 'mx.other.example'" in err
    for known in (SERVER, "*.harbour.example", SERVER.upper()):
        _, _, err = run("threat", "scan", mail, "--authserv-id", known)
        assert "authserv" not in err


def test_the_big_providers_need_not_be_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.eml"
    file.write_text(HONEST.replace(SERVER, "mx.google.com"), newline="")
    assert "authserv" not in run("threat", "scan", file, "--own-address", "me@gmail.com")[2]


def test_several_processes_keep_the_order(run: Run, mail: Path, tmp_path: Path) -> None:
    box = tmp_path / "box"
    postmark = "From ada Mon May  4 11:37:00 2026\r\n"
    box.write_text("".join(postmark + (FORGED if n % 3 == 0 else HONEST) + "\r\n" for n in range(20)), newline="")
    code, out, _ = run("threat", "scan", box, mail, "--authserv-id", SERVER, "--jobs", "2", "--json")
    assert code == 0
    found = lines(out)
    assert [one["number"] for one in found] == [*range(1, 21), None, None]
    assert [one["verdict"] for one in found[:20]] == ["malicious" if n % 3 == 0 else "clean" for n in range(20)]


def test_what_cannot_be_read_is_told_and_counted(run: Run, mail: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.eml"
    empty.touch()
    code, out, err = run("threat", "scan", empty, mail / "1-honest.eml", "--authserv-id", SERVER)
    assert code == 1 and out.count("clean") == 1
    assert "empty.eml: it is empty" in err and "1 could not be scanned" in err
    _, out, _ = run("threat", "scan", empty, "--json")
    assert lines(out) == [
        {"file": str(empty), "number": None, "error": {"code": "unreadable", "message": "it is empty"}}
    ]


def test_a_fault_of_ours_costs_one_message(run: Run, mail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mailmill.app.threat_scanner import Scanner

    record = Scanner.record

    def broken(self: Scanner, raw: bytes) -> Any:
        if b"Tea" in raw:
            raise ValueError("boom")
        return record(self, raw)

    monkeypatch.setattr(Scanner, "record", broken)
    code, out, err = run("threat", "scan", mail, "--jobs", "1", "--authserv-id", SERVER)
    assert code == 1 and "malicious" in out and "1-honest.eml: ValueError: boom" in err


def test_what_is_no_mail_is_not_called_harmless_without_a_word(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(b"\x00\xff\x13 no mail")
    for command in ("scan", "explain"):
        _, _, err = run("threat", command, tmp_path / "a.dat")
        assert "a.dat does not look like mail" in err
    (tmp_path / "mail.txt").write_text(HONEST, newline="")
    assert "look like mail" not in run("threat", "scan", tmp_path / "mail.txt")[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--own-address", "dana"), "--own-address: 'dana' is no address"),
        (("--authserv-id", "foo bar"), "--authserv-id: 'foo bar' is no server's name"),
        (("--authserv-id", ""), "--authserv-id: '' is no server's name"),
        (("--authserv-id", "*.org"), "it is a name such as mx.example.org"),
        (("--only", "bad"), "invalid value for '--only': 'bad' is not one of 'suspicious', 'malicious'"),
    ],
)
def test_wrong_options_are_told(run: Run, mail: Path, options: tuple[str, str], said: str) -> None:
    code, out, err = run("threat", "scan", mail, *options)
    assert (code, out) == (2, "") and said in err


def test_nothing_there_is_a_wrong_command_line(run: Run, tmp_path: Path) -> None:
    code, out, err = run("threat", "scan", tmp_path / "gone")
    assert (code, out) == (2, "") and "there is no file or folder" in err


def test_the_configuration_counts_where_there_is_one(run: Run, mail: Path, tmp_path: Path) -> None:
    table = tmp_path / "scoring.toml"
    table.write_text("suspicious_from = 0.0\nmalicious_from = 100.0\n")
    config = tmp_path / "config.toml"
    config.write_text(f'[threat]\nscoring_file = "{table}"\n')
    config.chmod(0o600)
    _, out, _ = run("threat", "scan", mail / "1-honest.eml", "--config", config, "--json")
    assert [one["verdict"] for one in lines(out)] == ["suspicious"]
    table.write_text("points = 1\n")
    assert run("threat", "scan", mail, "--config", config)[0] == 2


@pytest.mark.parametrize(
    ("account", "believed"),
    [
        ('authserv_id = "mx.harbour.example"', True),
        ("", True),  # any host of the organisation that runs the account's server
        ('authserv_id = "mx.other.example"', False),
    ],
)
def test_the_only_accounts_server_is_believed(
    run: Run, mail: Path, tmp_path: Path, account: str, believed: bool
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[accounts.work]\nemail = "dana@harbour.example"\nusername = "dana"\npassword = "x"\n{account}\n'
        '[accounts.work.imap]\nhost = "harbour.example"\n'
    )
    config.chmod(0o600)
    _, out, err = run("threat", "explain", mail / "1-honest.eml", "--config", config)
    assert ("confirmed that it comes from meadow.example" in " ".join(out.split())) is believed
    assert ("Authentication-Results" not in err) is believed
    _, out, _ = run("threat", "explain", mail / "1-honest.eml", "--config", config, "--authserv-id", SERVER)
    assert "confirmed that it comes from meadow.example" in " ".join(out.split())
    _, out, _ = run("threat", "explain", mail / "1-honest.eml", "--config", config, "--own-address", "me@other.example")
    assert "Nothing is known of where it comes from" in out


@pytest.mark.parametrize("command", ["scan", "explain", "evaluate"])
def test_each_command_wants_the_name_of_a_server(run: Run, mail: Path, command: str) -> None:
    letter = mail / "1-honest.eml"
    paths = ("--phish", letter, "--ham", letter) if command == "evaluate" else (letter,)
    code, out, err = run("threat", command, *paths, "--authserv-id", "foo bar")
    assert (code, out) == (2, "") and "--authserv-id: 'foo bar' is no server's name" in err


def test_an_account_wants_the_name_of_a_server(run: Run, mail: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[accounts.work]\nemail = "dana@harbour.example"\nusername = "dana"\npassword = "x"\n'
        'authserv_id = "foo bar"\n[accounts.work.imap]\nhost = "harbour.example"\n'
    )
    config.chmod(0o600)
    code, _, err = run("threat", "explain", mail / "1-honest.eml", "--config", config)
    assert code == 2 and "'accounts.work.authserv_id' wants a name such as mx.example.org" in err


PROGRAM = [sys.executable, "-m", "mailmill"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_it_while_it_waits_for_more(jobs: str, tmp_path: Path) -> None:
    postmark = "From ada Mon May  4 11:37:00 2026\r\n"
    with subprocess.Popen(
        [*PROGRAM, "threat", "scan", "-", "--json", "--jobs", jobs],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "HOME": str(tmp_path)},
        # Tests that run in the background were started with the signal ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as program:
        assert program.stdin is not None and program.stdout is not None
        # The stream reads on while it has nothing: more than its buffers hold makes sure that the first are judged.
        box = (postmark + HONEST + "x" * 1_000 + "\r\n\r\n") * 200
        program.stdin.write(box.encode())
        program.stdin.flush()
        assert json.loads(program.stdout.readline())["verdict"] == "clean"
        program.send_signal(signal.SIGINT)
        out, err = program.stdout.read(), program.stderr.read() if program.stderr else b""
        assert program.wait(60) == 130
        assert b"Traceback" not in err and b"Fatal" not in err
        assert all(json.loads(line)["verdict"] == "clean" for line in out.splitlines())


# -- explain ----------------------------------------------------------------------------------------------------------


def test_explain_tells_it_in_words(run: Run, mail: Path) -> None:
    code, out, err = run("threat", "explain", mail / "2-forged.eml", "--authserv-id", SERVER)
    assert (code, err) == (0, "")
    assert out.startswith("● This message is very likely an attack.\n")
    for title in ("What speaks against it", "Where it comes from", "What to do"):
        assert f"\n{title}\n" in out
    assert f"The receiving server ({SERVER}) found no proof that it comes from paypal.com" in " ".join(out.split())
    assert "203.0.113.7" in out


def test_explain_tells_what_speaks_for_it(run: Run, mail: Path) -> None:
    _, out, _ = run("threat", "explain", mail / "1-honest.eml", "--authserv-id", SERVER)
    told = " ".join(out.split())
    assert told.startswith("● Nothing about this message speaks of a threat.")
    assert f"({SERVER}) confirmed that it comes from meadow.example (SPF, DKIM and DMARC passed)." in told
    assert "What speaks for it" in told and "What to do" not in told


def test_explain_believes_nobody_it_was_not_told_of(run: Run, mail: Path) -> None:
    _, out, err = run("threat", "explain", mail / "1-honest.eml")
    assert "Nothing is known of where it comes from" in out
    assert f"--authserv-id {SERVER}" in err


def test_explain_as_json(run: Run, mail: Path) -> None:
    _, out, _ = run("threat", "explain", mail / "2-forged.eml", "--authserv-id", SERVER, "--json")
    told = json.loads(out)["explanation"]
    assert set(told) == {"sentence", "against", "noted", "origin", "benign", "advice"}
    assert all(set(point) == {"id", "severity", "points", "words", "evidence"} for point in told["against"])


def test_explain_picks_a_message_of_an_mbox(run: Run, tmp_path: Path) -> None:
    box = tmp_path / "box"
    postmark = "From ada Mon May  4 11:37:00 2026\r\n"
    box.write_text(postmark + HONEST + "\r\n" + postmark + FORGED, newline="")
    assert "Tea" in run("threat", "explain", box)[1]
    assert "PayPal" in run("threat", "explain", box, "--message", "2")[1]
    code, _, err = run("threat", "explain", box, "--message", "3")
    assert code == 2 and "has no message 3" in err and "it has 2" in err


@pytest.mark.parametrize("files", [(), ("a.eml",), ("a.eml", "b.eml")])
def test_explain_wants_one_file(run: Run, tmp_path: Path, files: tuple[str, ...]) -> None:
    for file in files:
        (tmp_path / file).write_text(HONEST)
    code, _, err = run("threat", "explain", tmp_path)
    assert code == 2 and "is a folder" in err and "mailmill threat scan" in err


def test_explain_does_not_call_softened_what_is_not(run: Run, tmp_path: Path) -> None:
    """At a service where anybody gets an address, that the sender is proven makes nothing count less."""
    text = "Dear customer, your account will be suspended within 24 hours. Click here."
    told = {}
    for domain in ("gmail.com", "meadow.example"):
        letter = HONEST.replace("meadow.example", domain).replace("At four?", text)
        (tmp_path / "letter.eml").write_text(letter, newline="")
        told[domain] = run("threat", "explain", tmp_path / "letter.eml", "--authserv-id", SERVER)[1]
    assert "Its sender's address is genuine." in told["gmail.com"] and "count less" not in told["gmail.com"]
    assert "findings count less." in told["meadow.example"]


def test_explain_tells_apart_what_counts_nothing(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "mailmill.toml"
    config.write_text('[threat]\nallow = ["ada@meadow.example"]\n')
    (tmp_path / "letter.eml").write_text(HONEST, newline="")
    _, out, _ = run("--config", config, "threat", "explain", tmp_path / "letter.eml", "--authserv-id", SERVER)
    assert "What speaks against it" not in out
    assert "Its sender is on your allow list" in out.partition("What speaks for it")[2]
    assert "The sender is on your allow list, and proven." in out.partition("Counts nothing, but was found")[2]


# -- evaluate ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    for name, text in (("phish/1", FORGED), ("phish/2", HONEST), ("ham/tea-1", HONEST), ("ham/tea-2", HONEST)):
        file = tmp_path / "corpora" / f"{name}.eml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, newline="")
    return tmp_path / "corpora"


def test_evaluate_as_json(run: Run, corpora: Path) -> None:
    arguments = ("--phish", corpora / "phish", "--ham", corpora / "ham", "--authserv-id", SERVER, "--by-template")
    code, out, err = run("threat", "evaluate", *arguments, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["phish"]["suspicious"] == {
        "count": 1,
        "of": 2,
        "share": 0.5,
        "low": pytest.approx(0.0945, abs=1e-4),
        "high": pytest.approx(0.9055, abs=1e-4),
    }
    assert report["auc"] == 0.75
    assert report["folders"][1]["byTemplate"]["templates"] == 1
    assert report["without"][0]["left"] == "Authentication-Results"


def test_evaluate_as_tables(run: Run, corpora: Path) -> None:
    arguments = ("--phish", corpora / "phish", "--ham", corpora / "ham", "--authserv-id", SERVER)
    code, out, err = run("threat", "evaluate", *arguments, "--show-errors", "--by-template")
    assert (code, err) == (0, "")
    assert "50.0 % (9.45-90.5)" in out and "0.7500" in out
    assert "HAM BY TEMPLATE" in out and "honest mail that was flagged: 0" in out


def test_false_positives_are_listed_with_what_was_found(run: Run, corpora: Path) -> None:
    (corpora / "ham" / "odd.eml").write_text(FORGED, newline="")
    arguments = ("--phish", corpora / "phish", "--ham", corpora / "ham", "--authserv-id", SERVER)
    _, out, _ = run("threat", "evaluate", *arguments, "--show-errors")
    assert "honest mail that was flagged: 1" in out and "ham/odd.eml: malicious" in out
    assert "authentication.dmarc_failed" in out.partition("honest mail that was flagged")[2]


def test_evaluate_says_which_folder_holds_no_mail(run: Run, corpora: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _, _, err = run("threat", "evaluate", "--phish", tmp_path / "empty", "--ham", corpora / "ham")
    assert "empty holds no mail" in err and "ham holds no mail" not in err


def test_evaluate_wants_both_kinds(run: Run, corpora: Path) -> None:
    code, _, err = run("threat", "evaluate", "--phish", corpora / "phish")
    assert code == 2 and "both --phish and --ham" in err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--phish a b --ham c --json", "--phish a --phish b --ham c --json"),
        ("--ham a --ham b c", "--ham a --ham b --ham c"),
        ("--ham a --authserv-id x", "--ham a --authserv-id x"),
        ("--ham=a b", "--ham=a b"),
    ],
)
def test_many_folders_after_one_option(given: str, meant: str) -> None:
    assert list(ManyFolders("evaluate").spread(given.split())) == meant.split()


@contextmanager
def yes() -> Iterator[Any]:
    class Yes:
        name = "yes 1.0"

        def ask(self, raw: bytes) -> PeerOpinion:
            return PeerOpinion(9.0, suspicious=True, malicious=None, seconds=0.001)

    yield Yes()


@contextmanager
def absent() -> Iterator[Any]:
    raise PeerError("rspamd is not installed: there is no rspamd")
    yield


def test_compare_measures_those_that_are_there(run: Run, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailmill.app.threat_evaluation.peers.PEERS", {"spamassassin": yes, "rspamd": absent})
    arguments = ("--phish", corpora / "phish", "--ham", corpora / "ham", "--authserv-id", SERVER)
    code, out, err = run("threat", "evaluate", *arguments, "--compare", "spamassassin,rspamd")
    assert code == 0 and "YES 1.0" in out
    assert err == "not compared with rspamd: rspamd is not installed: there is no rspamd\n"
    code, _, err = run("threat", "evaluate", *arguments, "--compare", "other")
    assert code == 2 and "known are spamassassin, rspamd" in err


def test_a_pattern_that_is_none_is_told(run: Run, corpora: Path) -> None:
    arguments = ("--phish", corpora / "phish", "--ham", corpora / "ham")
    code, _, err = run("threat", "evaluate", *arguments, "--template-pattern", "(")
    assert code == 2 and "--template-pattern" in err
