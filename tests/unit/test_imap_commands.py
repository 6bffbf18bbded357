"""Arguments on the wire: nothing becomes a second command, nothing is sent that a server may not take."""

from __future__ import annotations

import pytest

from mailmill.errors import ArgumentError, ImapError
from mailmill.imap import commands, utf7
from mailmill.imap.commands import Literal, LiteralMode, encode
from mailmill.uid_set import UidSet


@pytest.mark.parametrize("hostile", ["a\r\nA2 DELETE INBOX", "a\nb", "a\rb", "a\0b"])
def test_line_ends_and_nul_are_refused(hostile: str):
    with pytest.raises(ArgumentError) as caught:
        commands.login("me", hostile)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ImapError)
    assert hostile not in str(caught.value)


def test_a_mailbox_name_never_needs_refusal():
    assert encode("A1", commands.status(commands.mailbox('a\r\nb"\\&\0'), ("MESSAGES",))) == [
        b'A1 STATUS "a&AA0ACg-b\\"\\\\&-&AAA-" (MESSAGES)\r\n'
    ]
    with pytest.raises(ArgumentError):
        commands.mailbox("\ud800")


def test_literals_wait_unless_the_server_takes_them_at_once():
    command = commands.login("me", "pässword")
    secret = "pässword".encode()
    assert encode("A1", command) == [b'A1 LOGIN "me" {9}\r\n', secret + b"\r\n"]
    assert encode("A1", command, LiteralMode.PLUS) == [b'A1 LOGIN "me" {9+}\r\n' + secret + b"\r\n"]
    assert encode("A1", command, LiteralMode.MINUS) == [b'A1 LOGIN "me" {9+}\r\n' + secret + b"\r\n"]


def test_literal_minus_ends_at_4096_bytes():
    short, long = commands.login("me", "é" * 2048), commands.login("me", "é" * 2048 + "x")
    assert len(encode("A1", short, LiteralMode.MINUS)) == 1
    assert len(encode("A1", long, LiteralMode.MINUS)) == 2
    assert len(encode("A1", long, LiteralMode.PLUS)) == 1


def test_secrets_are_in_no_repr():
    command = commands.login("me", "hunter2é")
    assert "hunter2" not in repr(command)
    assert "hunter2" not in repr(Literal(b"hunter2"))
    assert "aHVudGVyMg" not in repr(commands.authenticate("PLAIN", b"aHVudGVyMg=="))


def test_fetch_and_search():
    assert encode("A1", commands.uid_fetch(UidSet([1, 2, 5]), ("UID", "FLAGS"), changed_since=9, vanished=True)) == [
        b"A1 UID FETCH 1:2,5 (UID FLAGS) (CHANGEDSINCE 9 VANISHED)\r\n"
    ]
    assert encode("A1", commands.uid_search(None, esearch=True)) == [b"A1 UID SEARCH RETURN (ALL) ALL\r\n"]
    assert encode("A1", commands.uid_search(UidSet([3]), esearch=False)) == [b"A1 UID SEARCH UID 3\r\n"]


def test_list_with_its_return_options():
    command = commands.list_mailboxes("*", special_use=True, status_items=("MESSAGES", "UIDNEXT"))
    assert encode("A1", command) == [b'A1 LIST "" "*" RETURN (SPECIAL-USE STATUS (MESSAGES UIDNEXT))\r\n']
    assert encode("A1", commands.list_mailboxes("Ä%")) == [b'A1 LIST "" "&AMQ-%"\r\n']


def test_a_scattered_set_is_split_into_lines_that_servers_take():
    scattered = UidSet(range(1_000_000, 1_020_000, 2))
    parts = list(commands.split_set(scattered))
    assert all(len(str(part)) < 8000 for part in parts)
    assert UidSet.from_ranges(pair for part in parts for pair in part.ranges) == scattered
    assert list(commands.split_set(UidSet())) == []


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("INBOX", b"INBOX"),
        ("Entwürfe", b"Entw&APw-rfe"),
        ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
        ("a&b", b"a&-b"),
        ("😀", b"&2D3eAA-"),
    ],
)
def test_modified_utf7(name: str, raw: bytes):
    assert utf7.encode(name) == raw
    assert utf7.decode(raw) == name


@pytest.mark.parametrize("raw", [b"a&b", b"&!!!-", b"&AA-", b"&2D0-", b"\xff", b"&U/BTFw-"])
def test_what_is_not_modified_utf7_is_refused(raw: bytes):
    with pytest.raises(ValueError):
        utf7.decode(raw)
