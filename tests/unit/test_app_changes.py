from __future__ import annotations

import pytest

from mailmill.api.gate import MAX_BODY_BYTES, MAX_MESSAGE_BYTES, max_body_bytes
from mailmill.app.changes import choose_place, flags_of, trash_of
from mailmill.cli.commands.flag import split
from mailmill.cli.errors import UsageError
from mailmill.errors import ConflictError, InvalidRequestError, NotFoundError
from mailmill.store.mailboxes import MailboxRow
from mailmill.store.message_queries import PlaceRow


def test_flags_go_by_the_names_people_use() -> None:
    assert flags_of(["seen", r"\Flagged", "DRAFT", r"\answered", "deleted"]) == {
        r"\Seen", r"\Flagged", r"\Draft", r"\Answered", r"\Deleted"
    }  # fmt: skip
    assert flags_of(["$Forwarded", "todo", "NonJunk"]) == {"$Forwarded", "todo", "NonJunk"}


@pytest.mark.parametrize(
    "name",
    ["", r"\Recent", "recent", r"\Custom", "two words", "a(b", "a{b", 'a"b', "a]b", "a*", "ä", "a\r\nb", "x" * 101],
)
def test_what_is_no_flag_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        flags_of([name])
    assert refused.value.hint


def place(path: str, uid: int) -> PlaceRow:
    return PlaceRow(path, None, 7, uid, ())


def test_the_place_that_is_meant() -> None:
    both = [place("INBOX", 1), place("Archive", 2)]
    assert choose_place(17, both[:1], None, None).uid == 1
    assert choose_place(17, both, "inbox", None).path == "INBOX"
    assert choose_place(17, both, None, 2).path == "Archive"
    twice = [place("INBOX", 1), place("INBOX", 4)]
    assert choose_place(17, twice, "INBOX", 4).uid == 4
    for places, path in ((both, None), (twice, "INBOX")):
        with pytest.raises(ConflictError, match="several places") as unclear:
            choose_place(17, places, path, None)
        assert unclear.value.hint
    with pytest.raises(NotFoundError, match="not in 'Sent'"):
        choose_place(17, both, "Sent", None)
    with pytest.raises(ConflictError, match="gone"):
        choose_place(17, [], None, None)


def mailbox(path: str, use: str | None = None, *, selectable: bool = True) -> MailboxRow:
    return MailboxRow(1, 1, path, "/", use, selectable)


def test_the_trash_goes_by_its_use_then_by_its_name() -> None:
    assert trash_of([mailbox("Trash"), mailbox("Rubbish", r"\Trash")]) == "Rubbish"
    assert (
        trash_of([mailbox("Old/2019/Trash"), mailbox("INBOX/Deleted Items"), mailbox("Sent", r"\Sent")])
        == "Old/2019/Trash"
    )
    assert trash_of([mailbox("Trash", selectable=False), mailbox("INBOX"), mailbox("Trash notes")]) is None


def test_ids_come_first_then_flags() -> None:
    assert split(["17", "18", "seen", "2026"]) == (["17", "18"], ["seen", "2026"])
    for words in (["seen"], ["17"], ["seen", "17"]):
        with pytest.raises(UsageError):
            split(words)


def test_only_an_upload_may_be_large() -> None:
    assert max_body_bytes("POST", "/v1/account/work/messages") == MAX_MESSAGE_BYTES
    for method, path in (
        ("GET", "/v1/account/work/messages"),
        ("POST", "/v1/account/work/messages/x"),
        ("POST", "/v1/account/a/b/messages"),
        ("POST", "/v1/sync"),
    ):
        assert max_body_bytes(method, path) == MAX_BODY_BYTES
