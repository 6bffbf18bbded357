"""The state machine: who gets which response, what is news, what is forgotten when."""

from __future__ import annotations

import pytest

from harness.framing import feed
from mailmill.errors import InsecureError, ProtocolError
from mailmill.imap import commands
from mailmill.imap.collectors import (
    BodyCollector,
    Collector,
    ListCollector,
    MetaCollector,
    SearchCollector,
    SelectCollector,
    StatusCollector,
    to_status,
)
from mailmill.imap.fetch import Fetch
from mailmill.imap.responses import Response, parse
from mailmill.imap.session import Exchange, Session, State
from mailmill.imap.wire import Framer
from mailmill.model import MailboxStatus, MessageMeta, Uid
from mailmill.uid_set import UidSet


class Server:
    """A session and what the server says to it."""

    def __init__(self, session: Session | None = None, greeting: bytes = b"* OK hi") -> None:
        self.session = session or Session()
        self._framer = Framer()
        self.say(greeting)

    def say(self, *lines: bytes) -> None:
        for line in lines:
            for parts in feed(self._framer, line + b"\r\n"):
                self.session.receive(parse(parts))

    def begin(self, verb: str, collector: Collector | None = None, continuations: int = 0) -> Exchange:
        return self.session.begin(commands.simple(verb), collector, continuations=continuations)[0]

    def select(self, *lines: bytes, condstore: bool = True, status: bytes = b"OK") -> Exchange:
        exchange = self.begin("EXAMINE", SelectCollector("INBOX", read_only=True, condstore=condstore))
        self.say(*lines, exchange.tag.encode() + b" " + status + b" done")
        return exchange


SELECTED = (b"* 3 EXISTS", b"* OK [UIDVALIDITY 7] v", b"* OK [UIDNEXT 4] n", b"* OK [HIGHESTMODSEQ 9] m")


# -- greeting, capabilities, TLS -------------------------------------------------------------------------------------


def test_a_greeting_may_bring_the_capabilities():
    session = Server(greeting=b"* OK [CAPABILITY imap4rev1 idle X-GM-EXT-1] hi").session
    assert session.state is State.NOT_AUTHENTICATED
    assert session.capabilities == {"IMAP4REV1", "IDLE", "X-GM-EXT-1"}
    assert session.features.idle
    assert session.features.gmail
    assert not session.features.condstore


@pytest.mark.parametrize(
    "greeting", [b"220 mail.example.org ESMTP", b"HTTP/1.1 400 Bad Request", b"* 1 EXISTS", b"A1 OK"]
)
def test_what_greets_otherwise_is_no_imap_server(greeting: bytes):
    with pytest.raises(ProtocolError):
        Server(greeting=greeting)


def test_preauth_before_tls_is_refused():
    with pytest.raises(InsecureError):
        Server(Session(must_start_tls=True), b"* PREAUTH welcome")
    assert Server(greeting=b"* PREAUTH welcome").session.state is State.AUTHENTICATED


def test_what_was_said_before_tls_is_forgotten():
    server = Server(Session(must_start_tls=True), b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi")
    server.say(b"* 5 EXISTS")
    server.session.started_tls()
    assert not server.session.capabilities_known
    assert not server.session.capabilities
    assert not server.session.hint


def test_capabilities_from_before_the_login_are_forgotten():
    server = Server(greeting=b"* OK [CAPABILITY IMAP4rev1 QRESYNC] hi")
    login = server.begin("LOGIN")
    server.say(login.tag.encode() + b" OK in")
    assert not server.session.capabilities_known


@pytest.mark.parametrize(
    "said",
    [
        (b"%b OK [CAPABILITY IMAP4rev1 IDLE] in",),
        (b"* CAPABILITY IMAP4rev1 IDLE", b"%b OK in"),
        (b"* OK [CAPABILITY IMAP4rev1 IDLE] new", b"%b OK in"),
    ],
)
def test_capabilities_said_with_the_login_count(said: tuple[bytes, ...]):
    server = Server(greeting=b"* OK [CAPABILITY IMAP4rev1 QRESYNC] hi")
    login = server.begin("LOGIN")
    server.say(*(line.replace(b"%b", login.tag.encode()) for line in said))
    assert server.session.capabilities == {"IMAP4REV1", "IDLE"}


def test_a_refused_login_changes_nothing():
    server = Server(greeting=b"* OK [CAPABILITY IMAP4rev1 IDLE] hi")
    login = server.begin("LOGIN")
    server.say(login.tag.encode() + b" NO wrong")
    assert server.session.state is State.NOT_AUTHENTICATED
    assert server.session.capabilities_known


def test_qresync_is_a_feature_only_once_enabled():
    server = Server(greeting=b"* PREAUTH [CAPABILITY IMAP4rev1 QRESYNC ENABLE] hi")
    assert not server.session.features.qresync
    assert server.session.features.condstore
    server.say(b"* ENABLED QRESYNC")
    assert server.session.features.qresync


# -- order, tags, continuations --------------------------------------------------------------------------------------


def test_an_answer_to_nothing_is_an_error():
    with pytest.raises(ProtocolError):
        Server().say(b"A99 OK what")


def test_pipelined_commands_end_each_on_its_own_tag():
    server = Server()
    first, second = server.begin("NOOP"), server.begin("NOOP")
    server.say(second.tag.encode() + b" NO second")
    assert (first.done, second.done) == (False, True)
    assert server.session.pending == (first,)


def test_a_continuation_goes_to_the_first_that_waits_for_one():
    server = Server()
    noop, idle, sasl = server.begin("NOOP"), server.begin("IDLE", continuations=1), server.begin("X", continuations=1)
    server.say(b"+ idling", b"+", b"+ nobody asked")
    assert (noop.continued, idle.continued, sasl.continued) == (0, 1, 1)


def test_bye_ends_the_session():
    server = Server()
    server.say(b"* BYE too many")
    assert server.session.state is State.LOGOUT
    assert server.session.bye is not None
    assert server.session.bye.text == "too many"


def test_the_listener_hears_everything_in_order():
    heard: list[Response] = []
    server = Server()
    server.session.listener = heard.append
    server.say(b"* 1 EXISTS", b"* VANISHED 4", b"nonsense", b"* 2 RECENT", b"* 1 FETCH (FLAGS ())")
    assert [type(event).__name__ for event in heard] == ["Exists", "Vanished", "Malformed", "Recent", "Fetch"]


# -- selecting ---------------------------------------------------------------------------------------------------------


def test_select_collects_the_status():
    server = Server()
    server.select(*SELECTED)
    assert server.session.selected is not None
    assert server.session.selected.status == MailboxStatus("INBOX", 3, 4, 7, 9)
    assert server.session.state is State.SELECTED
    assert not server.session.hint, "what was asked for is no news"


def test_what_comes_before_closed_is_of_the_old_mailbox():
    server = Server()
    server.select(*SELECTED)
    server.select(b"* 99 EXISTS", b"* OK [UIDNEXT 99] old", b"* OK [CLOSED] gone", *SELECTED)
    assert server.session.selected is not None
    assert server.session.selected.status == MailboxStatus("INBOX", 3, 4, 7, 9)


@pytest.mark.parametrize("code", [b"* OK [HIGHESTMODSEQ 0] none", b"* OK [NOMODSEQ] none"])
def test_a_mailbox_without_mod_sequences(code: bytes):
    server = Server()
    server.select(*SELECTED[:3], code)
    assert server.session.selected is not None
    assert server.session.selected.status.highest_mod_seq is None


def test_mod_sequences_that_are_not_announced_do_not_count():
    server = Server()
    server.select(*SELECTED, condstore=False)
    assert server.session.selected is not None
    assert server.session.selected.status.highest_mod_seq is None


def test_a_refused_select_leaves_nothing_selected_and_a_bad_one_changes_nothing():
    server = Server()
    server.select(*SELECTED)
    server.select(status=b"BAD")
    assert server.session.selected is not None
    server.select(status=b"NO")
    assert server.session.selected is None
    assert server.session.state is State.AUTHENTICATED


# -- news --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"* 4 EXISTS",
        b"* 2 EXPUNGE",
        b"* VANISHED 2",
        b"* 1 FETCH (FLAGS (\\Seen))",
        b"* 1 FETCH (UID 1 FLAG",
        b"* STATUS A (MESSAGES 1)",
    ],
)
def test_what_nobody_asked_for_is_news(line: bytes):
    server = Server()
    server.select(*SELECTED)
    server.begin("NOOP")
    server.say(line)
    assert server.session.hint


@pytest.mark.parametrize("line", [b"* 3 EXISTS", b"* 2 RECENT", b"* OK Still here", b"* FLAGS (a)", b"* XWHAT 1"])
def test_what_changes_nothing_is_no_news(line: bytes):
    server = Server()
    server.select(*SELECTED)
    server.say(line)
    assert not server.session.hint


def test_the_known_count_follows_expunges():
    server = Server()
    server.select(*SELECTED)
    server.say(b"* 1 EXPUNGE", b"* VANISHED 2")
    server.session.hint = False
    server.say(b"* 1 EXISTS")
    assert not server.session.hint
    server.say(b"* 2 EXISTS")
    assert server.session.hint


# -- collectors --------------------------------------------------------------------------------------------------------


def test_vanished_between_two_fetches_is_answer_and_news():
    server = Server()
    server.select(*SELECTED)
    collector = MetaCollector(UidSet.span(1, 9))
    server.begin("NOOP", collector)
    server.say(b"* 1 FETCH (UID 1 FLAGS ())", b"* VANISHED 2,77", b"* 2 FETCH (UID 3 FLAGS (\\Seen))")
    assert list(collector.messages) == [1, 3]
    assert collector.vanished == [UidSet([2])]
    assert server.session.hint


def test_earlier_vanished_is_answer_only():
    server = Server()
    collector = MetaCollector(UidSet.span(1, 9))
    server.begin("NOOP", collector)
    server.say(b"* VANISHED (EARLIER) 2:3")
    assert collector.vanished == [UidSet([2, 3])]
    assert not server.session.hint


def test_pieces_of_one_message_become_one_entry_later_over_earlier():
    server = Server()
    collector = MetaCollector(UidSet([5]))
    server.begin("NOOP", collector)
    server.say(b"* 1 FETCH (UID 5 RFC822.SIZE 10 FLAGS ())", b"* 1 FETCH (UID 5 FLAGS (\\Seen) MODSEQ (8))")
    assert collector.messages == {Uid(5): MessageMeta(Uid(5), frozenset({"\\Seen"}), 8, None, 10)}


def test_messages_outside_of_the_asked_for_set_are_news():
    server = Server()
    meta, body = MetaCollector(UidSet([5])), BodyCollector(UidSet([5]), lambda pressed: None)
    for collector in (meta, body):
        server.session.hint = False
        server.begin("NOOP", collector)
        server.say(b"* 1 FETCH (UID 6 FLAGS () BODY[] {1}\r\nx)")
        assert server.session.hint
    assert not meta.messages
    assert not body.queue


def test_malformed_in_a_fetch_is_counted_there():
    server = Server()
    collector = MetaCollector(UidSet([5]))
    server.begin("NOOP", collector)
    server.say(b"* 1 FETCH (UID 5 FLAGS", b"* 1 FETCH (UID 5 FLAGS ())")
    assert (collector.malformed, server.session.malformed, len(collector.messages)) == (1, 1, 1)


def test_flags_during_a_body_fetch_are_news_and_nil_bodies_are_none():
    server = Server()
    collector = BodyCollector(UidSet.span(1, 9), lambda pressed: None)
    server.begin("NOOP", collector)
    server.say(b"* 1 FETCH (UID 5 BODY[] NIL)", b'* 1 FETCH (UID 6 BODY[] "")')
    assert list(collector.queue) == [(6, b"")]
    assert server.session.hint


def test_a_body_queue_presses_when_full_and_relents_when_drained():
    pressed: list[bool] = []
    server = Server()
    collector = BodyCollector(UidSet.span(1, 99), pressed.append)
    server.begin("NOOP", collector)
    body = b"x" * 2**20
    for uid in range(1, 9):
        server.say(b"* 1 FETCH (UID %d BODY[] {%d}\r\n%b)" % (uid, len(body), body))
    assert pressed == [True]
    while collector.queue:
        collector.take()
    assert pressed == [True, False]


def test_list_and_status_collect_theirs_only():
    server = Server()
    listing, status = ListCollector(with_status=True), StatusCollector("B")
    server.begin("LIST", listing)
    server.say(b'* LIST () "/" A', b"* STATUS A (MESSAGES 1)", b'* LIST () "/" A', b"* LIST broken")
    assert (list(listing.listed), list(listing.statuses), listing.malformed) == (["A"], ["A"], 1)
    server = Server()
    server.begin("STATUS", status)
    server.say(b"* STATUS C (MESSAGES 1)", b"* STATUS B (MESSAGES 2)")
    assert status.data is not None
    assert status.data.items == {"MESSAGES": 2}
    assert server.session.hint


def test_search_in_either_form():
    server = Server()
    collector = SearchCollector()
    server.begin("SEARCH", collector)
    server.say(b"* SEARCH 1 2", b'* ESEARCH (TAG "A1") UID ALL 4:5', b"* SEARCH x")
    assert collector.ranges == [(1, 2), (4, 5)]
    assert collector.malformed == 1


@pytest.mark.parametrize(
    "items",
    [
        {"MESSAGES": 1, "UIDNEXT": 2},
        {"MESSAGES": 1, "UIDVALIDITY": 2},
        {"UIDNEXT": 1, "UIDVALIDITY": 2},
        {"MESSAGES": 1, "UIDNEXT": 1, "UIDVALIDITY": 0},
    ],
)
def test_half_a_status_is_none(items: dict[str, int]):
    assert to_status("A", items) is None


def test_metadata_is_collected_in_any_order_and_only_of_what_was_asked_for():
    collector = MetaCollector(UidSet.from_ranges([(2, 3), (7, 9)]))
    claimed = [uid for uid in (9, 2, 4, 8, 1, 3, 10, 7) if collector.claim(Fetch(Uid(uid)))]
    assert claimed == list(collector.messages) == [9, 2, 8, 3, 7]
    assert not collector.claim(Fetch(None))


def test_what_is_collected_is_a_stretch_of_what_came():
    assert Fetch._fields[:8] == MessageMeta._fields
    collector = MetaCollector(UidSet([5]))
    assert collector.claim(Fetch(Uid(5), frozenset({"\\Seen"}), 8, 9.0, 10, "E", "T", "G"))
    assert collector.messages == {Uid(5): MessageMeta(Uid(5), frozenset({"\\Seen"}), 8, 9.0, 10, "E", "T", "G")}
    assert type(collector.messages[Uid(5)]) is MessageMeta
