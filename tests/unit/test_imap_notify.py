"""News by mailbox: whose it is, what takes it back, and that an answer is not taken for it."""

from __future__ import annotations

import pytest

from mailmill.imap import commands
from mailmill.imap.collectors import ListCollector, NotifyCollector, SelectCollector, StatusCollector, to_status
from mailmill.imap.notify import News, Told
from mailmill.imap.responses import StatusData, parse
from mailmill.imap.session import Exchange, Session
from mailmill.model import MailboxStatus


class Server:
    """A session that is logged in, with NOTIFY if asked for."""

    def __init__(self, *, notifying: bool = False) -> None:
        self.session = Session()
        self.say(b"* PREAUTH hi")
        self.session.notifying = notifying

    def say(self, *lines: bytes) -> None:
        for line in lines:
            self.session.receive(parse([line]))

    def begin(self, collector: SelectCollector | None = None) -> Exchange:
        exchange, _ = self.session.begin(commands.simple("NOOP"), collector)
        return exchange

    def select(self, path: str, *before_ok: bytes) -> None:
        exchange = self.begin(SelectCollector(path, read_only=True, condstore=True))
        self.say(
            *before_ok,
            b"* 3 EXISTS",
            b"* OK [UIDVALIDITY 7] .",
            b"* OK [UIDNEXT 4] .",
            exchange.tag.encode() + b" OK [READ-ONLY] done",
        )

    def told(self) -> Told:
        return self.session.news.take()


CLOSED = b"* OK [CLOSED] the other one"


@pytest.mark.parametrize("line", [b"* 4 EXISTS", b"* 1 EXPUNGE", b"* VANISHED 2", b"* 1 FETCH (FLAGS (\\Seen))"])
def test_news_is_of_the_mailbox_that_is_selected(line: bytes) -> None:
    server = Server()
    server.select("A")
    server.say(line)
    server.select("B", CLOSED)
    assert server.session.hint, "what was told of A still waits"
    assert server.told().paths == {"A"}
    assert not server.told()


@pytest.mark.parametrize("line", [b"* 4 EXISTS", b"* 1 EXPUNGE", b"* VANISHED 2", b"* 1 FETCH (FLAGS (\\Seen))"])
def test_news_between_select_and_closed_is_of_the_mailbox_that_is_left(line: bytes) -> None:
    server = Server()
    server.select("A")
    server.select("B", line, CLOSED)
    assert server.told().paths == {"A"}
    assert server.session.selected is not None
    assert server.session.selected.status.messages == 3


def test_without_closed_the_first_of_two_counts_is_of_the_mailbox_that_is_left() -> None:
    server = Server()
    server.select("A")
    server.select("B", b"* 9 EXISTS")
    assert server.told().paths == {"A"}


def test_news_after_closed_is_of_nobody_yet_and_select_shows_it() -> None:
    server = Server()
    server.select("A")
    server.select("B", CLOSED, b"* 1 FETCH (FLAGS (\\Seen))")
    assert not server.told()
    assert not server.session.hint


def test_a_select_takes_back_what_was_told_of_that_mailbox() -> None:
    server = Server()
    server.select("A")
    server.say(b"* 4 EXISTS", b"* 1 FETCH (FLAGS (\\Seen))")
    assert server.session.hint
    server.select("A")
    assert not server.session.hint
    assert not server.told()


def test_status_that_nobody_asked_for_is_news_of_its_mailbox_with_numbers() -> None:
    server = Server(notifying=True)
    server.select("A")
    server.say(b"* STATUS B (MESSAGES 2 UIDNEXT 5 UIDVALIDITY 7 HIGHESTMODSEQ 9)", b"* STATUS B (HIGHESTMODSEQ 10)")
    told = server.told()
    assert told.paths == {"B"}
    assert told.numbers["B"] == {"MESSAGES": 2, "UIDNEXT": 5, "UIDVALIDITY": 7, "HIGHESTMODSEQ": 10}


def test_news_without_numbers_makes_earlier_numbers_worthless() -> None:
    server = Server(notifying=True)
    server.say(b"* STATUS A (MESSAGES 3 HIGHESTMODSEQ 9)")
    server.select("A")
    server.say(b"* STATUS A (MESSAGES 3 HIGHESTMODSEQ 9)", b"* 4 EXISTS")
    assert server.told().numbers["A"] == {}


@pytest.mark.parametrize(
    "line", [b'* LIST () "/" New', b'* LIST () "/" New ("OLDNAME" (Old))', b'* LIST (\\NonExistent) "/" New']
)
def test_a_list_that_nobody_asked_for_is_news_where_notify_is_on(line: bytes) -> None:
    server = Server(notifying=True)
    server.say(line)
    told = server.told()
    assert (told.paths, told.list_changed) == ({"New"}, True)
    plain = Server()
    plain.say(line)
    assert not plain.told()


def test_what_cannot_be_read_may_be_of_any_mailbox() -> None:
    server = Server(notifying=True)
    server.say(b"* STATUS B (MESSAGES")
    assert server.told().list_changed


def test_an_overflow_is_told_within_any_answer_and_ends_notify() -> None:
    server = Server(notifying=True)
    server.select("A", b"* OK [NOTIFICATIONOVERFLOW] too much")
    assert server.session.hint
    assert server.told().overflow
    assert not server.session.notifying


def test_too_many_mailboxes_are_one_change_of_the_list() -> None:
    news = News()
    for number in range(1001):
        news.status(StatusData(f"m{number}", {"MESSAGES": 1}))
    told = news.take()
    assert told.list_changed
    assert told.paths == {"m1000"}


# -- answers in between ------------------------------------------------------------------------------------------------


def test_a_status_that_names_only_a_change_does_not_hide_the_answer() -> None:
    full = b"* STATUS B (MESSAGES 2 UIDNEXT 5 UIDVALIDITY 7 HIGHESTMODSEQ 9)"
    change = b"* STATUS B (UNSEEN 1 HIGHESTMODSEQ 10)"
    for lines, mod_seq in (((change, full), 9), ((full, change), 10)):
        listing = ListCollector(with_status=True)
        server = Server(notifying=True)
        server.session.begin(commands.simple("NOOP"), listing)
        server.say(*lines)
        assert to_status("B", listing.statuses["B"].items) == MailboxStatus("B", 2, 5, 7, mod_seq)
    asked = StatusCollector("B")
    server = Server(notifying=True)
    server.session.begin(commands.simple("NOOP"), asked)
    server.say(change, full)
    assert asked.data is not None
    assert to_status("B", asked.data.items) == MailboxStatus("B", 2, 5, 7, 9)


def test_a_deletion_told_during_a_list_is_no_entry_of_it() -> None:
    listing = ListCollector()
    server = Server(notifying=True)
    server.session.begin(commands.simple("NOOP"), listing)
    server.say(b'* LIST () "/" A', b'* LIST () "/" B', b'* LIST (\\NonExistent) "/" A')
    assert list(listing.listed) == ["B"]
    assert server.told().list_changed


@pytest.mark.parametrize("attributes", [b"\\NonExistent \\HasChildren", b"\\NonExistent"])
def test_a_parent_that_is_only_a_name_is_an_entry_and_no_news(attributes: bytes) -> None:
    """Dovecot's LIST names such parents, without ``\\HasChildren`` where CHILDREN is not asked for."""
    listing = ListCollector()
    server = Server(notifying=True)
    server.session.begin(commands.simple("NOOP"), listing)
    server.say(b'* LIST (%s) "/" A' % attributes, b'* LIST () "/" A/B')
    assert list(listing.listed) == ["A", "A/B"]
    assert not server.told()


def test_a_mailbox_that_is_listed_after_its_deletion_was_told_is_looked_at_again() -> None:
    listing = ListCollector()
    server = Server(notifying=True)
    server.session.begin(commands.simple("NOOP"), listing)
    server.say(b'* LIST (\\NonExistent) "/" A', b'* LIST (\\Marked) "/" A')
    assert listing.listed["A"].attributes == {"\\marked"}
    assert server.told().list_changed


@pytest.mark.parametrize("first", [True, False])
def test_the_name_as_it_is_to_be_sent_counts_whatever_comes_first(first: bool) -> None:
    """Dovecot's NOTIFY names mailboxes in bare UTF-8, its LIST in modified UTF-7."""
    lines = ['* LIST () "/" "Öd" ("OLDNAME" (Alt))'.encode(), b'* LIST () "/" &ANY-d']
    listing = ListCollector()
    server = Server(notifying=True)
    server.session.begin(commands.simple("NOOP"), listing)
    server.say(*(lines if first else reversed(lines)))
    assert listing.listed["Öd"].raw_name == b"&ANY-d"
    assert server.told().list_changed, "the old name may have been listed before"


def test_what_notify_covers_is_an_answer() -> None:
    covered = NotifyCollector()
    server = Server()
    server.session.begin(commands.notify(others=True), covered)
    server.say(b"* STATUS A (MESSAGES 1)", b"* STATUS B (MESSAGES 1)")
    assert covered.paths == {"A", "B"}
    assert not server.told()


def test_notify_as_it_is_sent() -> None:
    assert commands.encode("A1", commands.notify(others=True)) == [
        b"A1 NOTIFY SET STATUS (SELECTED-DELAYED (MessageNew MessageExpunge FlagChange)) "
        b"(PERSONAL (MessageNew MessageExpunge FlagChange MailboxName))\r\n"
    ]
    assert commands.encode("A1", commands.notify(others=False)) == [
        b"A1 NOTIFY SET (SELECTED-DELAYED (MessageNew MessageExpunge FlagChange))\r\n"
    ]
