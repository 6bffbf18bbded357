"""Mail from files: what is mail, where an mbox is cut, and that a large one is never held whole."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailmill.app import mail_files
from mailmill.app.mail_files import (
    Mail,
    MailFile,
    NoMail,
    find_files,
    looks_like_mail,
    read_file,
    read_stream,
    total_bytes,
)

LETTER = b"From: ada@example.com\r\nSubject: Tea\r\n\r\nAt four?\r\n"
POSTMARK = b"From ada@example.com Mon May  4 11:37:00 2026\n"


def messages(raw: bytes) -> list[bytes]:
    found = list(read_stream("box", io.BytesIO(raw), certain=True))
    assert all(isinstance(one, Mail) for one in found)
    numbers = [one.number for one in found if isinstance(one, Mail)]
    assert numbers in ([None], list(range(1, len(found) + 1)))
    return [one.raw for one in found if isinstance(one, Mail)]


# -- mbox -------------------------------------------------------------------------------------------------------------


def test_an_mbox_is_cut_at_its_postmarks() -> None:
    assert messages(POSTMARK + b"A: 1\n\none\n\n" + POSTMARK + b"A: 2\n\ntwo\n\n") == [
        b"A: 1\n\none\n",
        b"A: 2\n\ntwo\n",
    ]


@pytest.mark.parametrize(
    "postmark",
    [
        b"From - Mon May 04 11:37:00 2026\n",
        b"From 1786@xxx Mon May 04 11:37:00 +0000 2026\n",
        b"From ada at example.com  Mon May  4 11:37:00 2026\n",
        b"From MAILER-DAEMON Mon May  4 11:37 2026\r\n",
    ],
)
def test_postmarks_of_several_programs(postmark: bytes) -> None:
    assert len(messages(postmark + b"A: 1\n\none\n\n" + postmark + b"A: 2\n\ntwo\n")) == 2


@pytest.mark.parametrize(
    "text",
    [
        b"one\n\nFrom Monday on we open early.\n\nBye\n",  # a paragraph that nobody quoted
        b"one\nFrom ada@example.com Mon May  4 11:37:00 2026\ntwo\n",  # no empty line before
        b"one\n\n From ada@example.com Mon May  4 11:37:00 2026\n",
        b"x" * 200_000 + b"From ada 11:37 2026\n",  # within a line that comes in pieces
    ],
)
def test_other_lines_that_begin_so_are_text(text: bytes) -> None:
    assert messages(POSTMARK + b"A: 1\n\n" + text) == [b"A: 1\n\n" + text]


def test_one_mark_is_taken_from_quoted_lines() -> None:
    [raw] = messages(POSTMARK + b"A: 1\n\n>From here\n>>From there\n> From\nx >From\n>Fromage\n")
    assert raw == b"A: 1\n\nFrom here\n>From there\n> From\nx >From\n>Fromage\n"


def test_without_a_final_newline() -> None:
    assert messages(POSTMARK + b"A: 1\n\none") == [b"A: 1\n\none"]


def test_with_crlf_and_empty_lines_ahead() -> None:
    box = (b"\n\n" + POSTMARK + b"A: 1\n\none\n\n" + POSTMARK + b"A: 2\n\ntwo\n").replace(b"\n", b"\r\n")
    assert messages(box) == [b"A: 1\r\n\r\none\r\n", b"A: 2\r\n\r\ntwo\r\n"]


def test_a_postmark_without_a_time_begins_a_file() -> None:
    assert messages(b"From nobody\nA: 1\n\none\n") == [b"A: 1\n\none\n"]


def test_a_message_that_is_too_large_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_files, "MAX_MESSAGE_BYTES", 20_000)
    large = b"A: 1\n\n" + b"x" * 70 + b"\n" + b"yyyyyyy\n" * 100_000
    first, second = messages(POSTMARK + large + b"\n" + POSTMARK + b"A: 2\n\ntwo\n")
    assert (len(first), second) == (20_000, b"A: 2\n\ntwo\n")
    assert [len(raw) for raw in messages(large)] == [20_000]


class Endless(io.RawIOBase):
    """A gigabyte of mbox that nobody has on disk; ``given`` counts how much of it was taken."""

    def __init__(self, size_bytes: int) -> None:
        self._block = POSTMARK + b"Subject: x\n\n" + (b"y" * 39_999 + b"\n") * 100 + b"\n"
        self._size = size_bytes
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        at = self.given % len(self._block)
        piece = self._block[at : at + min(len(buffer), self._size - self.given)]
        buffer[: len(piece)] = piece
        self.given += len(piece)
        return len(piece)


def test_a_gigabyte_is_never_held_as_a_whole() -> None:
    source = Endless(1 << 30)
    taken = 0
    for one in read_stream("box", io.BufferedReader(source), certain=True):  # type: ignore[type-var]
        assert isinstance(one, Mail)
        taken += len(one.raw) + len(POSTMARK) + 1
        # What is ahead of the last message is no more than a few buffers.
        assert source.given - taken < 1 << 20
    assert source.given == 1 << 30
    assert one.number == (1 << 30) // len(source._block) + 1


# -- what is mail -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        LETTER,
        b"\r\n\n" + LETTER,
        b"\xef\xbb\xbf" + LETTER,
        LETTER.replace(b"\r\n", b"\r"),
        b"X-Odd: 1\nReceived : from a\n\n",
    ],
)
def test_mail_is_known_by_its_fields(head: bytes) -> None:
    assert looks_like_mail(head)


@pytest.mark.parametrize(
    "head",
    [
        b"MIT License\n\nPermission is granted.\n",
        b'{"from": "ada@example.com"}',
        b"name: value\nother: value\n",
        b"# Notes\nSubject: not yet\n",
        b"note: x\n\nSubject: below\n",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"",
    ],
)
def test_other_files_are_not(head: bytes) -> None:
    assert not looks_like_mail(head)


def test_an_empty_file_holds_no_mail() -> None:
    assert list(read_stream("x", io.BytesIO(b" \n"), certain=True)) == [NoMail("x", "it is empty", failed=True)]


# -- folders ----------------------------------------------------------------------------------------------------------


def names(path: Path) -> list[str]:
    return [str(Path(one.path).relative_to(path)) for one in find_files([str(path)]) if isinstance(one, MailFile)]


def write(root: Path, *files: str) -> None:
    for name in files:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(LETTER)


def test_a_folder_is_read_in_order_and_recursively(tmp_path: Path) -> None:
    write(tmp_path, "b.eml", "a/2.eml", "a/1.eml", ".hidden/x.eml", ".DS_Store", "c")
    assert names(tmp_path) == ["a/1.eml", "a/2.eml", "b.eml", "c"]


def test_a_maildir_with_its_subfolders(tmp_path: Path) -> None:
    write(
        tmp_path,
        "cur/1:2,S",
        "new/2",
        "tmp/3",
        ".Sent/cur/4:2,S",
        ".Sent/new/5",
        "dovecot.index",
        ".Sent/maildirfolder",
    )
    assert names(tmp_path) == [".Sent/cur/4:2,S", ".Sent/new/5", "cur/1:2,S", "new/2"]
    assert all(one.certain for one in find_files([str(tmp_path)]) if isinstance(one, MailFile))


def test_a_subfolder_that_cannot_be_looked_into_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".Closed/cur", "cur", "new"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "cur" / "1").write_bytes(LETTER)

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(mail_files.Path, "is_dir", refuse)
    closed, letter = find_files([str(tmp_path)])
    assert closed == NoMail(str(tmp_path / ".Closed"), "Permission denied", failed=True)
    assert letter == MailFile(str(tmp_path / "cur" / "1"), len(LETTER), certain=True)


def test_links_to_folders_lead_nowhere_and_pipes_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path, "a/1.eml")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "a" / "linked.eml").symlink_to(tmp_path / "a" / "1.eml")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == ["a/1.eml", "a/linked.eml"]


def test_what_lies_among_the_mail_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("Permission is granted.\n")
    write(tmp_path, "1.eml")
    found = [item for file in find_files([str(tmp_path)]) for item in items(file)]
    assert [type(one) for one in found] == [Mail, NoMail]
    assert not any(one.failed for one in found if isinstance(one, NoMail))


def items(file: MailFile | NoMail) -> Iterator[Mail | NoMail]:
    if isinstance(file, NoMail):
        yield file
    else:
        yield from read_file(file)


def test_what_was_named_is_mail_whatever_it_looks_like(tmp_path: Path) -> None:
    file = tmp_path / "odd"
    file.write_text("Permission is granted.\n")
    [found] = [item for each in find_files([str(file)]) for item in items(each)]
    assert isinstance(found, Mail) and (found.place, found.number) == (str(file), None)


def test_what_cannot_be_read_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "1.eml", "2.eml", "3.eml")
    opened = Path.open

    def refuse(self: Path, *arguments: str) -> io.BufferedReader:
        if self.name == "2.eml":
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments)  # type: ignore[return-value,call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    found = [item for file in find_files([str(tmp_path), str(tmp_path / "gone")]) for item in items(file)]
    assert [type(one) for one in found] == [Mail, NoMail, Mail, NoMail]
    reasons = [(one.reason, one.failed) for one in found if isinstance(one, NoMail)]
    assert reasons == [("Permission denied", True), ("No such file or directory", True)]


def test_standard_input_is_a_stream(tmp_path: Path) -> None:
    write(tmp_path, "1.eml")
    assert total_bytes([str(tmp_path)]) == len(LETTER)
    assert total_bytes([str(tmp_path), "-"]) is None
    [file] = find_files(["-"])
    assert isinstance(file, MailFile)
    [found] = read_file(file, io.BytesIO(LETTER))
    assert found == Mail("(standard input)", None, LETTER)
