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

import pytest
from threat_files import DOS, attachment, ooxml, tar_of, zip_of

from mailmill.message_parser import Attachment
from mailmill.processing.threat.evidence import inside_child, inside_reader
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
import os, signal, sys, time
from mailmill.processing.threat.evidence.inside import Inside

def read(name, content):
    job = content.partition(b"job:")[2].partition(b";")[0].decode()
    if job == "hang":
        time.sleep(1_000)
    if job == "spin":
        while True: pass
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
        import threading
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
    with InsideReader(file_seconds=3.0, memory_bytes=256 << 20) as one:
        yield one


def job(what: str, number: int = 0) -> Attachment:
    return attachment("a.zip", f"PK\x03\x04job:{what};{number}".encode())


def pid_of(reader: InsideReader, number: int) -> int:
    return int(reader(job("tell", number)).seen["pid"])


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_real_files_are_read_by_a_child() -> None:
    with InsideReader() as reader:
        packed = reader(attachment("a.zip", zip_of({"b.zip": zip_of({"setup.exe": DOS})})))
        assert "program" in packed.seen
        assert packed.members == ("b.zip", "setup.exe")
        linked = '<w:instrText>HYPERLINK "https://x.example/"</w:instrText>'
        document = reader(attachment("a.docx", ooxml({"word/document.xml": linked})))
        assert document.targets == (Target("office_link", "https://x.example/"),)
        assert "bomb" in reader(attachment("a.tgz", tar_of({"a": bytes(40 << 20)}, "w:gz"))).seen
        assert len(reader._all) == 1


def test_nothing_is_started_for_what_is_not_worth_opening() -> None:
    with InsideReader() as reader:
        assert reader(attachment("a.txt", b"hello")) is NOTHING
        assert reader(attachment("a.png", b"\x89PNG\r\n\x1a\n")) is NOTHING
        assert not reader._all


def test_a_child_is_kept_and_has_none_of_our_environment(reader: InsideReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILMILL_MASTER_KEY", "secret")
    first = reader(job("tell", 1))
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
    assert list(reader(job(what)).seen) == [word]
    assert is_gone(before)
    assert pid_of(reader, 2) != before


@pytest.mark.parametrize("what", ["raise", "exit"])
def test_a_reader_that_gives_up_costs_no_child(reader: InsideReader, what: str) -> None:
    before = pid_of(reader, 1)
    assert list(reader(job(what)).seen) == ["unreadable"]
    assert pid_of(reader, 2) == before


def test_what_a_library_prints_gets_into_no_frame(reader: InsideReader) -> None:
    assert "pid" in reader(job("print")).seen
    assert "pid" in reader(job("tell")).seen


def test_an_answer_is_bounded(reader: InsideReader) -> None:
    inside = reader(job("much"))
    assert len(inside.seen) == MAX_SEEN
    assert len(inside.members) == MAX_MEMBERS
    assert len(inside.text) == MAX_TEXT_CHARS


def test_the_same_content_is_read_once(reader: InsideReader) -> None:
    first = reader(job("tell"))
    os.kill(int(first.seen["pid"]), signal.SIGKILL)
    assert reader(job("tell")) is first
    assert list(reader(job("die")).seen) == ["unreadable"]
    again = pid_of(reader, 1)
    assert list(reader(job("die")).seen) == ["unreadable"]
    assert pid_of(reader, 2) == again


def test_what_is_kept_is_bounded(reader: InsideReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside_reader, "MAX_KEPT", 3)
    for number in range(10):
        reader(job("tell", number))
    assert len(reader._kept) == 3
    reader(job("much"))
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
    before = int(reader(job("last")).seen["pid"])
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    monkeypatch.setattr(inside_reader._Child, "alive", True)
    assert pid_of(reader, 2) != before


def test_an_idle_child_ends_and_the_next_file_gets_another(
    reader: InsideReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside_reader, "IDLE_SECONDS", 0.05)
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
print(read(attachment("a.zip", b"PK\\x03\\x04job:tell;1")).seen["pid"], flush=True)
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


def test_a_message_has_a_bound_of_its_own(stand_in: None) -> None:
    with InsideReader(file_seconds=2.0, message_seconds=1.0) as reader:
        reader(job("tell"))
        read = reader.for_message()
        assert list(read(job("hang", 1)).seen) == ["too_slow"]
        assert read(job("tell", 2)).seen["too_slow"] == "the message's other files took the time"
        assert "pid" in reader.for_message()(job("tell", 2)).seen


def test_children_are_bounded_for_any_number_of_threads(reader: InsideReader) -> None:
    pids: list[str] = []
    threads = [
        threading.Thread(target=lambda number=number: pids.append(reader(job("tell", number)).seen["pid"]))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 12
    assert 1 <= len(set(pids)) <= inside_reader.MAX_CHILDREN


def test_closing_ends_the_children_also_at_work(stand_in: None) -> None:
    reader = InsideReader(file_seconds=60.0, message_seconds=60.0)
    pids = {pid_of(reader, 1)}
    results: list[Inside] = []
    thread = threading.Thread(target=lambda: results.append(reader(job("hang"))))
    thread.start()
    while reader._free:
        pass
    reader.close()
    thread.join()
    assert list(results[0].seen) == ["unreadable"]
    assert all(is_gone(pid) for pid in pids)
    assert list(reader(job("tell")).seen) == ["unreadable"]


def test_no_interpreter_is_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with InsideReader() as reader:
        assert list(reader(job("tell")).seen) == ["unreadable"]


def test_a_file_too_large_is_not_sent(reader: InsideReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside_reader, "MAX_CONTENT_BYTES", 10)
    assert list(reader(job("tell")).seen) == ["too_large"]
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

    monkeypatch.setattr(inside_child, "readers", SimpleNamespace(read=fails))
    assert inside_child.read_file("a", b"") == {"failed": "KeyboardInterrupt"}


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
