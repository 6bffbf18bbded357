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


def test_changes_by_uid():
    uids = UidSet([1, 2, 5])
    store = commands.uid_store(uids, "+", frozenset({"\\Seen", "$Junk"}), unchanged_since=12)
    assert encode("A1", store) == [b"A1 UID STORE 1:2,5 (UNCHANGEDSINCE 12) +FLAGS ($Junk \\Seen)\r\n"]
    plain = commands.uid_store(uids, "-", frozenset({"\\Seen"}))
    assert encode("A1", plain) == [b"A1 UID STORE 1:2,5 -FLAGS (\\Seen)\r\n"]
    assert encode("A1", commands.uid_copy(uids, commands.mailbox("a b"))) == [b'A1 UID COPY 1:2,5 "a b"\r\n']
    assert encode("A1", commands.uid_move(uids, commands.mailbox("Ä"))) == [b'A1 UID MOVE 1:2,5 "&AMQ-"\r\n']
    assert encode("A1", commands.uid_expunge(uids)) == [b"A1 UID EXPUNGE 1:2,5\r\n"]


def test_append_as_far_as_the_message():
    inbox = commands.mailbox("INBOX")
    bare = commands.append(inbox, b"{3}", flags=frozenset(), internal_date=None)
    assert encode("A1", bare) == [b'A1 APPEND "INBOX" {3}\r\n']
    whole = commands.append(inbox, b"~{3+}", flags=frozenset({"\\Seen", "a"}), internal_date=1_000_000_000.9)
    assert encode("A1", whole) == [b'A1 APPEND "INBOX" (\\Seen a) " 9-Sep-2001 01:46:40 +0000" ~{3+}\r\n']


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, b'" 1-Jan-1970 00:00:00 +0000"'),
        (-0.5, b'"31-Dec-1969 23:59:59 +0000"'),
        (951_782_400, b'"29-Feb-2000 00:00:00 +0000"'),
        (253_402_300_799, b'"31-Dec-9999 23:59:59 +0000"'),
    ],
)
def test_dates(seconds: float, text: bytes):
    assert commands.date_time(seconds) == text


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1e300, 253_402_300_800])
def test_what_is_no_date(seconds: float):
    with pytest.raises(ArgumentError):
        commands.date_time(seconds)


@pytest.mark.parametrize("flag", ["\\Seen", "$MDNSent", "NonJunk", "[odd}", "a.b-c_d+e=f~g!h#i", "1"])
def test_flags(flag: str):
    assert commands.flag_list(frozenset({flag})) == b"(" + flag.encode() + b")"


@pytest.mark.parametrize(
    "flag",
    ["", "\\", "a b", "a)", "(a", "a\r\nA2 LOGOUT", "a\n", "a{3}", 'a"', "a\\b", "\\\\a", "é", "٣", "a%", "a]", "a\0"],
)
def test_what_is_no_flag_is_never_sent(flag: str):
    with pytest.raises(ArgumentError):
        commands.flag_list(frozenset({"\\Seen", flag}))


@pytest.mark.parametrize("flag", ["\\Recent", "\\recent", "\\*"])
def test_flags_that_are_the_servers_to_say(flag: str):
    with pytest.raises(ArgumentError):
        commands.flag_list(frozenset({flag}))


def test_more_flags_than_a_line_holds():
    with pytest.raises(ArgumentError, match="more flags"):
        commands.flag_list(frozenset(f"keyword-number-{number}" for number in range(300)))


def test_search_of_a_header():
    token = commands.uid_search_header(None, "X-Token", 'a"b', esearch=True)
    assert encode("A1", token) == [b'A1 UID SEARCH RETURN (ALL) HEADER "X-Token" "a\\"b"\r\n']
    subject = commands.uid_search_header(UidSet([7]), "Subject", "ü", esearch=False)
    assert encode("A1", subject, LiteralMode.PLUS) == [
        b'A1 UID SEARCH CHARSET UTF-8 UID 7 HEADER "Subject" {2+}\r\n\xc3\xbc\r\n'
    ]
    for name in ("", "a:b", "a b", "a\r\nb", "ü"):
        with pytest.raises(ArgumentError):
            commands.uid_search_header(None, name, "x", esearch=True)


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
    shorter = list(commands.split_set(scattered, spare_bytes=4000))
    assert all(len(str(part)) < 4000 for part in shorter)
    assert UidSet.from_ranges(pair for part in shorter for pair in part.ranges) == scattered


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
