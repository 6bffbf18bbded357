"""Which files of a message are looked at first: nobody pushes one out of sight with decoys."""

from __future__ import annotations

import pytest
from threat_files import DOS, attachment, ooxml, zip_of
from threat_mail import found, mail

from mailmill.message_parser import Attachment
from mailmill.processing.threat.context import MAX_FILES, prepare
from mailmill.processing.threat.evidence.file_order import by_danger, most_dangerous
from mailmill.processing.threat.evidence.inside import NOTHING, Inside
from mailmill.processing.threat.families import padding

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 500


def names(attachments: list[Attachment]) -> list[str]:
    return [attachments[place].filename for place in by_danger(attachments)]


def test_what_can_run_comes_before_what_can_only_be_looked_at() -> None:
    files = [
        attachment("photo.png", PNG),
        attachment("notes.txt", b"hello"),
        attachment("plan.pdf", b"%PDF-1.7"),
        attachment("plan.docx", ooxml({"word/document.xml": "x"})),
        attachment("setup.dat", DOS),
    ]
    assert names(files) == ["setup.dat", "plan.docx", "plan.pdf", "notes.txt", "photo.png"]


@pytest.mark.parametrize(
    "name", ["a.exe", "a.JS", "a.lnk", "a.iso", "a.docm", "a.html", "a.one", "a.exe. .", "x" * 300 + ".hta"]
)
def test_a_name_that_runs_is_enough(name: str) -> None:
    assert names([attachment("a.zip", zip_of({"a": "x"})), attachment(name, b"x" * 9_000)])[0] == name


def test_a_heap_of_larger_files_keeps_no_smaller_one_out() -> None:
    heap = [attachment(f"{number}.rtf", b"{\\rtf1" + b" " * 5_000) for number in range(99)]
    assert names([*heap, attachment("order.rtf", b"{\\rtf1 x")])[0] == "order.rtf"


def test_equal_ones_keep_the_order_of_the_message() -> None:
    assert by_danger([attachment("b.txt", b"x"), attachment("a.txt", b"x")]) == [0, 1]


def test_those_that_are_looked_at_stand_as_in_the_message() -> None:
    files = [attachment("a.txt", b"1"), attachment("b.exe", DOS), attachment("c.txt", b"1"), attachment("d.js", b"1")]
    assert [one.filename for one in most_dangerous(files, 3)] == ["a.txt", "b.exe", "d.js"]
    assert most_dangerous(files, 4) == tuple(files)
    assert most_dangerous([], 4) == ()


def test_a_program_behind_more_files_than_are_looked_at_is_found() -> None:
    decoys = [(f"{number}.txt", "text/plain", b"hello") for number in range(MAX_FILES + 20)]
    message = mail(attachments=(*decoys, ("invoice.exe", "application/octet-stream", DOS)))
    assert {"attachments.executable", "padding.files"} <= found(message)


@pytest.mark.parametrize(("name", "content"), [("a.rtf", b"{\\rtf1"), ("a.png", PNG), ("a.zip", b"PK\x03\x04")])
def test_files_that_were_not_reached_are_told(name: str, content: bytes) -> None:
    message = mail(attachments=((name, "application/octet-stream", content), ("b.txt", "text/plain", b"hello")))
    for word, told in (("not_reached", {"padding.files"}), ("too_slow", set())):
        insides = [Inside({word: "the message's other files took the time"}), NOTHING]
        prepared = prepare(message, read_insides=lambda _attachments, insides=insides: insides)
        assert {one.id for one in padding.files(prepared)} == told
        assert all("1 of 2" in one.evidence and name in one.evidence for one in padding.files(prepared))
