"""The children that read the insides of files: real ones, whatever a file does to them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from threat_files import DOS, attachment, ooxml, tar_of, zip_of

from mailmill.message_parser import Attachment
from mailmill.processing.threat.evidence import inside_child, inside_process, inside_purse, inside_reader
from mailmill.processing.threat.evidence.inside import (
    MAX_MEMBERS,
    MAX_SEEN,
    MAX_TEXT_CHARS,
    NOTHING,
    Inside,
    Target,
    from_json,
    to_json,
)
from mailmill.processing.threat.evidence.inside_reader import InsideReader
from mailmill.processing.threat.evidence.readers import reader_for

# A reader in the place of one of ours, in a folder that the child finds as this process does; the file says what to do.
STAND_IN = """
import os, signal, sys, threading, time
from mailmill.processing.threat.evidence.inside import Inside

def read(name, content):
    job = content.partition(b"job:")[2].partition(b";")[0].decode()
    if job == "hang":
        time.sleep(1_000)
    if job == "spin":
        while True: pass
    if job == "compute":
        until = time.process_time() + 0.3
        while time.process_time() < until: pass
    if job == "wait":
        threading.Event().wait(0.5)
    if job == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "leave":
        os._exit(0)
    if job == "raise":
        raise RuntimeError("the file is odd")
    if job == "exit":
        sys.exit(3)
    if job == "memory":
        held = [b"x" * (16 << 20) for _ in range(200)]
    if job == "print":
        print("not a frame", flush=True); os.write(1, b"\\\\x00" * 100)
    if job == "last":
        threading.Timer(0.05, os._exit, (0,)).start()
    if job == "much":
        return Inside({str(n): "x" * 10_000 for n in range(9_000)}, ("m" * 9_000,) * 9_000, (), "\\U0001F600" * 10**6)
    return Inside({"pid": str(os.getpid()), "environment": ",".join(sorted(os.environ)), "cwd": os.getcwd()})
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sitecustomize`` is what an interpreter imports first: here it puts the stand-in into the readers' place."""
    (tmp_path / "stand_in_reader.py").write_text(STAND_IN)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, stand_in_reader\n"
        "sys.modules['mailmill.processing.threat.evidence.readers.archive'] = stand_in_reader\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def reader(stand_in: None) -> Iterator[InsideReader]:
    with InsideReader(file_wait_seconds=3.0, memory_bytes=256 << 20) as one:
        yield one


def read_one(reader: InsideReader, one: Attachment) -> Inside:
    [inside] = reader([one])
    return inside


def job(what: str, number: int = 0) -> Attachment:
    return attachment("a.zip", f"PK\x03\x04job:{what};{number}".encode())


def pid_of(reader: InsideReader, number: int) -> int:
    return int(read_one(reader, job("tell", number)).seen["pid"])


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_real_files_are_read_by_a_child() -> None:
    with InsideReader() as reader:
        packed = read_one(reader, attachment("a.zip", zip_of({"b.zip": zip_of({"setup.exe": DOS})})))
        assert "program" in packed.seen
        assert packed.members == ("b.zip", "setup.exe")
        linked = '<w:instrText>HYPERLINK "https://x.example/"</w:instrText>'
        document = read_one(reader, attachment("a.docx", ooxml({"word/document.xml": linked})))
        assert document.targets == (Target("office_link", "https://x.example/"),)
        assert "bomb" in read_one(reader, attachment("a.tgz", tar_of({"a": bytes(40 << 20)}, "w:gz"))).seen
        assert len(reader._all) == 1


def test_nothing_is_started_for_what_is_not_worth_opening() -> None:
    with InsideReader() as reader:
        assert read_one(reader, attachment("a.txt", b"hello")) is NOTHING
        assert read_one(reader, attachment("a.png", b"\x89PNG\r\n\x1a\n")) is NOTHING
        assert not reader._all


def test_a_child_is_kept_and_has_none_of_our_environment(reader: InsideReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILMILL_MASTER_KEY", "secret")
    first = read_one(reader, job("tell", 1))
    assert pid_of(reader, 2) == int(first.seen["pid"]) != os.getpid()
    assert set(first.seen["environment"].split(",")) <= {"PYTHONPATH", "LC_ALL", "LC_CTYPE"}
    assert first.seen["cwd"] == "/"


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ("hang", "too_slow"),
        ("spin", "too_slow"),
        ("die", "unreadable"),
        ("leave", "unreadable"),
        ("memory", "unreadable"),
    ],
)
def test_a_child_that_a_file_ends_is_replaced(reader: InsideReader, what: str, word: str) -> None:
    before = pid_of(reader, 1)
    assert list(read_one(reader, job(what)).seen) == [word]
    assert is_gone(before)
    assert pid_of(reader, 2) != before


@pytest.mark.parametrize("what", ["raise", "exit"])
def test_a_reader_that_gives_up_costs_no_child(reader: InsideReader, what: str) -> None:
    before = pid_of(reader, 1)
    assert list(read_one(reader, job(what)).seen) == ["unreadable"]
    assert pid_of(reader, 2) == before


def test_what_a_library_prints_gets_into_no_frame(reader: InsideReader) -> None:
    assert "pid" in read_one(reader, job("print")).seen
    assert "pid" in read_one(reader, job("tell")).seen


def test_an_answer_is_bounded(reader: InsideReader) -> None:
    inside = read_one(reader, job("much"))
    assert len(inside.seen) == MAX_SEEN
    assert len(inside.members) == MAX_MEMBERS
    assert len(inside.text) == MAX_TEXT_CHARS


def test_the_same_content_is_read_once(reader: InsideReader) -> None:
    first = read_one(reader, job("tell"))
    os.kill(int(first.seen["pid"]), signal.SIGKILL)
    assert read_one(reader, job("tell")) is first
    assert list(read_one(reader, job("die")).seen) == ["unreadable"]
    again = pid_of(reader, 1)
    assert list(read_one(reader, job("die")).seen) == ["unreadable"]
    assert pid_of(reader, 2) == again


def test_what_is_kept_is_bounded(reader: InsideReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside_reader, "MAX_KEPT", 3)
    for number in range(10):
        read_one(reader, job("tell", number))
    assert len(reader._kept) == 3
    read_one(reader, job("much"))
    assert all("pid" in each.seen for each in reader._kept.values())


def test_a_child_that_ended_between_two_files_costs_none(reader: InsideReader) -> None:
    before = pid_of(reader, 1)
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    assert pid_of(reader, 2) != before


def test_a_child_that_ends_by_itself_as_a_file_is_sent_costs_none(
    reader: InsideReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its last file, or when idle for long; its parent still thinks it alive."""
    before = int(read_one(reader, job("last")).seen["pid"])
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    monkeypatch.setattr(inside_process.ChildProcess, "alive", True)
    assert pid_of(reader, 2) != before


def test_an_idle_child_ends_and_the_next_file_gets_another(
    reader: InsideReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside_process, "IDLE_SECONDS", 0.05)
    before = pid_of(reader, 1)
    ended = os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)
    assert pid_of(reader, 2) != before


PARENT = """
import sys
from threat_files import attachment
from mailmill.processing.threat.evidence.inside_reader import InsideReader
read = InsideReader()
print(read([attachment("a.zip", b"PK\\x03\\x04job:tell;1")])[0].seen["pid"], flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the end of another's process is waited for by Linux's pidfd")
def test_a_child_ends_with_its_parent(stand_in: None, tmp_path: Path) -> None:
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        descriptor = os.pidfd_open(child)
        parent.kill()
    try:
        ended, _, _ = select.select([descriptor], [], [], 30)
        assert ended
    finally:
        os.close(descriptor)


def words(insides: list[Inside]) -> list[str]:
    """The first word of each: ``pid`` for a file that was read."""
    return [next(iter(inside.seen)) for inside in insides]


def test_equal_files_of_a_message_are_read_once(reader: InsideReader, monkeypatch: pytest.MonkeyPatch) -> None:
    contents: list[bytes] = []
    exchange = inside_process.ChildProcess.exchange

    def counted(self: inside_process.ChildProcess, name: str, content: bytes, *seconds: float) -> dict[str, Any]:
        contents.append(content)
        return exchange(self, name, content, *seconds)

    monkeypatch.setattr(inside_process.ChildProcess, "exchange", counted)
    first, other, again, text = reader([job("much", 1), job("much", 2), job("much", 1), attachment("a.txt", b"hello")])
    assert first is again and len(contents) == 2
    assert other == first and text is NOTHING


def test_a_slow_file_keeps_none_of_the_others_from_being_read(stand_in: None) -> None:
    with InsideReader(message_seconds=2.0, file_seconds=1.0) as reader:
        insides = reader([job("spin"), *(job("tell", number) for number in range(1_000, 1_003))])
        assert words(insides) == ["too_slow", "pid", "pid", "pid"]


def test_a_file_that_needs_more_than_its_share_is_read_when_the_others_were(
    reader: InsideReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside_purse, "SHARE_SECONDS", 0.1)
    shares: list[float] = []
    exchange = inside_process.ChildProcess.exchange

    def noted(
        self: inside_process.ChildProcess, name: str, content: bytes, share: float, seconds: float
    ) -> dict[str, Any]:
        if b"compute" in content:
            shares.append(share)
        return exchange(self, name, content, share, seconds)

    monkeypatch.setattr(inside_process.ChildProcess, "exchange", noted)
    insides = reader([job("compute"), *(job("tell", number) for number in range(1_000_000, 1_000_020))])
    assert words(insides) == ["pid"] * 21
    first, second = shares
    assert first < 0.3 < second


def test_the_files_of_a_message_have_a_bound_together(stand_in: None) -> None:
    with InsideReader(message_seconds=0.6, file_seconds=0.4) as reader:
        heap = reader([job("spin", number) for number in range(10, 20)])
        assert words(heap) == ["too_slow"] + ["not_reached"] * 9
        assert heap[-1].seen["not_reached"] == "the message's other files took the time"
        assert words(reader([job("tell", 5)])) == ["pid"]


def test_bytes_of_a_message_have_a_bound(reader: InsideReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside_purse, "MESSAGE_BYTES", 40)
    insides = reader([job("tell", 1), job("tell", 2), job("tell", 10_000_000)])
    assert words(insides) == ["pid", "pid", "not_reached"]
    assert insides[2].seen["not_reached"] == "the message's other files were too much"


def test_the_most_dangerous_files_are_read_first(reader: InsideReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a hundred decoys, or before them, whatever the order in the message."""
    monkeypatch.setattr(inside_purse, "MESSAGE_BYTES", 4_000)
    decoys = [attachment(f"{number}.zip", b"PK\x03\x04job:tell;" + b"%d" % number * 400) for number in range(100, 120)]
    for message in ([*decoys, job("tell", 1)], [job("tell", 1), *decoys]):
        read = dict(zip((one.filename for one in message), words(reader(message)), strict=True))
        assert read["a.zip"] == "pid" and "not_reached" in read.values()


def test_a_machine_that_is_busy_costs_no_file(stand_in: None) -> None:
    """What counts is the computing of the child, not the clock: this one waits for longer than it may compute."""
    with InsideReader(message_seconds=0.2, file_seconds=0.2) as reader:
        assert words(reader([job("wait", 1), job("tell", 2)])) == ["pid", "pid"]


def test_a_hanging_file_costs_its_own_time(reader: InsideReader) -> None:
    assert words(reader([job("hang", 1), job("tell", 2)])) == ["too_slow", "pid"]


def test_children_are_bounded_for_any_number_of_threads(reader: InsideReader) -> None:
    pids: list[str] = []
    threads = [
        threading.Thread(target=lambda number=number: pids.append(read_one(reader, job("tell", number)).seen["pid"]))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 12
    assert 1 <= len(set(pids)) <= inside_reader.MAX_CHILDREN


def test_closing_ends_the_children_also_at_work(stand_in: None) -> None:
    reader = InsideReader(file_wait_seconds=60.0, wait_seconds=60.0)
    pids = {pid_of(reader, 1)}
    results: list[Inside] = []
    thread = threading.Thread(target=lambda: results.append(read_one(reader, job("hang"))))
    thread.start()
    while reader._free:
        pass
    reader.close()
    thread.join()
    assert list(results[0].seen) == ["unreadable"]
    assert all(is_gone(pid) for pid in pids)
    assert list(read_one(reader, job("tell")).seen) == ["unreadable"]


def test_no_interpreter_is_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with InsideReader() as reader:
        assert list(read_one(reader, job("tell")).seen) == ["unreadable"]


def test_a_file_too_large_is_not_sent(reader: InsideReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside_reader, "MAX_CONTENT_BYTES", 10)
    assert list(read_one(reader, job("tell")).seen) == ["too_large"]
    assert not reader._all


def test_what_comes_over_the_way_is_what_was_sent() -> None:
    inside = Inside({"dde": "cmd"}, ("a", "b"), (Target("qr", "https://x.example", "page 1"),), "words")
    assert from_json(json.loads(json.dumps(to_json(inside)))) == inside


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"seen": [], "members": [], "targets": [], "text": ""},
        {"seen": {"a": 1}, "members": [], "targets": [], "text": ""},
        {"seen": {}, "members": [1], "targets": [], "text": ""},
        {"seen": {}, "members": [], "targets": [["a", "b"]], "text": ""},
    ],
)
def test_an_answer_of_another_form_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="not"):
        from_json(data)


def test_the_child_answers_whatever_a_reader_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str, content: bytes) -> Inside:
        raise KeyboardInterrupt

    monkeypatch.setattr(inside_child, "readers", SimpleNamespace(load=lambda name, content: None, read=fails))
    assert inside_child.read_file("a", b"", 60.0)["failed"] == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("reader_name", "name", "content"),
    [
        ("archive", "a.zip", zip_of({"a": "x"})),
        ("archive", "a.dat", b"Rar!\x1a\x07\x00"),
        ("archive", "a", b"\x1f\x8b\x08"),
        ("archive", "a.iso", b"\x00" * 32_769 + b"CD001"),
        ("archive", "a.tar", tar_of({"a": b"x"})),
        ("archive", "a.zip", b"prefix" + zip_of({"a": "x"})),
        ("office", "a.dat", ooxml({"word/document.xml": "x"})),
        ("office", "a.docx", zip_of({"x": "x"})),
        ("office", "a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("office", "a.doc", b"{\\rtf1"),
        ("office", "a.csv", b"a,b"),
        ("pdf", "a", b"\n%PDF-1.7"),
        ("picture", "a.bin", b"\x89PNG\r\n\x1a\n" + b"x" * 500),
        ("", "a.png", b"\x89PNG\r\n\x1a\n" + b"x" * 50),
        ("", "a.txt", b"hello"),
        ("", "a.html", b"<html>"),
        ("", "a.docx", b""),
    ],
)
def test_which_reader_a_file_is_worth(reader_name: str, name: str, content: bytes) -> None:
    assert reader_for(name, content) == reader_name
