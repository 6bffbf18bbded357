"""The table of ``mailmill threat scan``: what it says at 80 cells, at 120, and into a pipe."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

from mailmill.cli.output import Output, plain
from mailmill.cli.scan_table import Row, cut_end, cut_middle, cut_path, lines, sender, show

REASON = "The sender's name has nothing to do with the address, and neither have the places that all links lead to."
FOLDER = "/home/dana/Mail/Archive of the harbour 2026/spring/inbox/cur"
BAD = Row(
    "suspicious",
    62.5,
    "Your Parcel Service",
    "tracking-update@parcels.tide-tables.example",
    "Your parcel waits",
    REASON,
    f"{FOLDER}/letter-0017.eml",
)
GOOD = Row("clean", 8, "Ada", "ada@meadow.example", "Tea", "It says that a payment is due.", f"{FOLDER}/box#12")
WIDE = Row("malicious", 100, "港の時刻表", "a@tide.example", "潮汐表を確認してください" * 5, "Short.", "潮.eml")


def shown(rows: list[Row], width: int) -> list[str]:
    return ["".join(plain(part) for part in line).rstrip() for line in lines(rows, width)]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200, 400])
@pytest.mark.parametrize("rows", [[BAD], [GOOD], [WIDE], [BAD, GOOD, WIDE]])
def test_no_line_is_wider_than_the_terminal(rows: list[Row], width: int) -> None:
    assert max(map(cell_len, shown(rows, width))) <= width


@pytest.mark.parametrize("width", [40, 80, 120])
def test_what_is_not_clean_has_its_reason_in_full(width: int) -> None:
    title, bad, *reason, good = shown([BAD, GOOD], width)
    assert title.split() == ["Verdict", "Score", "From", "Subject", "File"]
    assert bad.startswith("suspicious   62.5  ") and good.startswith("clean           8  ")
    assert " ".join(" ".join(reason).split()) == REASON
    assert all(line.startswith(" " * 19) for line in reason)


def test_at_80_cells_one_sees_who_and_which_file() -> None:
    _, bad, *_, good = shown([BAD, GOOD], 80)
    assert bad.endswith("/letter-0017.eml") and good.endswith("/box#12")
    assert "trac" in bad and ".example" in bad
    assert "ada@meadow.example" in good


def test_columns_stand_below_one_another_whatever_the_script() -> None:
    title, good, wide, *_ = shown([GOOD, WIDE], 100)
    starts = [cell_len(line[: line.index(word)]) for line, word in ((title, "File"), (good, "/home"), (wide, "潮.eml"))]
    assert len(set(starts)) == 1


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (None, "Your Parcel Service <tracking-update@parcels.tide-tables.example>"),
        (60, "Your Parcel S… <tracking-update@parcels.tide-tables.example>"),
        (50, "tracking-update@parcels.tide-tables.example"),
        (19, "tracking-…s.example"),
    ],
)
def test_a_sender_is_shortened_from_the_name_on(cells: int | None, said: str) -> None:
    assert sender(BAD.name, BAD.address, cells) == said


def test_a_sender_without_name_or_address() -> None:
    assert sender("", "ada@meadow.example", 40) == "ada@meadow.example"
    assert sender("Ada of the Meadow", "", 10) == "Ada of th…"
    assert sender("", "", 10) == "-"
    assert sender("Ada\x1b[31m", "") == "Ada␛[31m"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (80, f"{FOLDER}/letter-0017.eml"),
        (40, "/home/dana/…ng/inbox/cur/letter-0017.eml"),
        (18, "…/letter-0017.eml"),
        (15, "letter-0017.eml"),
        (11, "lette…7.eml"),
    ],
)
def test_a_folder_is_shortened_in_the_middle_and_its_file_keeps_its_name(cells: int, said: str) -> None:
    assert cut_path(BAD.place, cells) == said


@pytest.mark.parametrize("cells", range(12))
def test_what_is_cut_fits(cells: int) -> None:
    for cut in (cut_end, cut_middle, cut_path):
        assert cell_len(cut("潮汐表を/確認してください", cells)) <= cells
    assert cut_end("tide", 4) == cut_middle("tide", 4) == "tide"


def test_into_a_pipe_each_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show(Output(), [BAD, GOOD, WIDE])
    title, bad, good, _ = capsys.readouterr().out.splitlines()
    assert title.split("  ")[0] == "VERDICT" and title.endswith("FILE")
    assert REASON in bad and bad.endswith(BAD.place)
    assert "It says that a payment is due." in good


def test_without_rows_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show(Output(), [])
    assert capsys.readouterr() == ("", "")


FORGED = (
    "From: PayPal Service <service@paypal.com>\r\nReply-To: collect@gmail.com\r\nSubject: Your account is limited\r\n"
    "Content-Type: text/html\r\n\r\n"
    '<p>Sign in: <a href="http://203.0.113.7/login">https://www.paypal.com/login</a></p>\r\n'
)


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_real_terminal(width: int, tmp_path: Path) -> None:
    folder = tmp_path / "a folder with a very long name indeed" / "and another below it"
    folder.mkdir(parents=True)
    (folder / "forged.eml").write_text(FORGED, newline="")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "mailmill", "threat", "scan", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**environment, "HOME": str(tmp_path), "TERM": "xterm-256color"},
    ) as program:
        os.close(theirs)
        pieces: list[bytes] = []
        try:
            while piece := os.read(ours, 4_096):
                pieces.append(piece)
        except OSError:  # Linux says EIO where the other end was closed
            pass
        finally:
            os.close(ours)
        program.communicate()
    told = re.sub(r"\x1b\[[0-9;]*m", "", b"".join(pieces).decode()).split("\r\n")
    title, forged, reason, *_ = told
    assert title.split() == ["Verdict", "Score", "From", "Subject", "File"]
    assert forged.rstrip().endswith("/forged.eml") and "service@paypal.com" in forged
    assert reason.startswith(" " * 15) and reason.strip()
    assert max(map(cell_len, told)) <= width
