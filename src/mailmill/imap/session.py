"""The state of one IMAP session: tags, commands under way, capabilities, the selected mailbox. Pure; every transition
lives here.

::

    greeting ─▶ not authenticated ─▶ authenticated ◀─▶ selected      any state ─▶ logout (BYE, LOGOUT)
                       (PREAUTH goes straight to authenticated)

Laws:

- Every response is taken in order. An untagged one first changes the state, then goes to the first command under way
  that asked for it; what nobody asked for is news and raises `hint`, whoever waits or not.
- News is kept by the mailbox it is about (`News`): the one selected when it came, or the one that STATUS names.
- An EXISTS that repeats the known count is no news: servers say it at every opportunity, and taking it for news would
  have an idling account sync for ever.
- Capabilities learnt before TLS or before the login are forgotten there (RFC 9051 §6.2.1, §6.2.3).
- Sequence numbers are counted here and go no further.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mailmill.errors import InsecureError, ProtocolError
from mailmill.imap.collectors import Collector, SelectCollector, discard_sections
from mailmill.imap.commands import Command, LiteralMode, encode
from mailmill.imap.fetch import Fetch
from mailmill.imap.notify import News
from mailmill.imap.responses import (
    Capability,
    Continuation,
    Enabled,
    Exists,
    Expunge,
    Listed,
    Malformed,
    Response,
    ServerId,
    Status,
    StatusData,
    Tagged,
    Vanished,
    capability_names,
)
from mailmill.model import MailboxStatus


class State(Enum):
    GREETING = "greeting"
    NOT_AUTHENTICATED = "not authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"
    LOGOUT = "logout"


@dataclass(frozen=True, slots=True)
class Features:
    """What the server can do for us, from its capabilities and what was enabled."""

    qresync: bool = False
    condstore: bool = False
    list_status: bool = False
    special_use: bool = False
    list_extended: bool = False
    esearch: bool = False
    object_id: bool = False
    gmail: bool = False
    idle: bool = False
    literal_plus: bool = False
    literal_minus: bool = False
    move: bool = False
    uidplus: bool = False
    notify: bool = False
    unselect: bool = False
    id: bool = False
    enable: bool = False
    sasl_ir: bool = False
    binary: bool = False


@dataclass(frozen=True, slots=True)
class SelectedMailbox:
    """``status`` is as of SELECT or EXAMINE, not kept up to date."""

    path: str
    read_only: bool
    status: MailboxStatus


class Exchange:
    """One command under way. ``tagged`` is its end; ``continued`` counts the ``+`` of the ``continuations`` due."""

    __slots__ = ("collector", "continuations", "continued", "tag", "tagged", "verb")

    def __init__(self, tag: str, verb: str, collector: Collector, continuations: int) -> None:
        self.tag = tag
        self.verb = verb
        self.collector = collector
        self.continuations = continuations
        self.continued = 0
        self.tagged: Tagged | None = None

    @property
    def done(self) -> bool:
        return self.tagged is not None


class Session:
    """One session, from the greeting on. `receive` takes each event; the rest is there to be read."""

    def __init__(self, *, must_start_tls: bool = False) -> None:
        self.state = State.GREETING
        self.capabilities: frozenset[str] = frozenset()
        self.capabilities_known = False
        self.enabled: frozenset[str] = frozenset()
        self.features = Features()
        self.selected: SelectedMailbox | None = None
        self.server_id: dict[str, str] = {}
        self.greeting = ""
        self.bye: Status | None = None
        self.hint = False
        self.news = News()
        self.notifying = False
        self.malformed = 0
        self.unasked = 0
        self.listener: Callable[[Response], None] | None = None
        self._must_start_tls = must_start_tls
        self._exists: int | None = None
        self._arrived = 0
        self._pending: deque[Exchange] = deque()
        self._tags = 0

    # -- commands ------------------------------------------------------------------------------------------------------

    def begin(
        self, command: Command, collector: Collector | None = None, *, continuations: int = 0
    ) -> tuple[Exchange, list[bytes]]:
        """The exchange of a command, and the pieces to write; before each but the first the server's ``+`` must come.

        ``continuations`` are those besides its literals' (IDLE, AUTHENTICATE).
        """
        self._tags += 1
        tag = f"A{self._tags}"
        pieces = encode(tag, command, self.literal_mode)
        exchange = Exchange(tag, command.verb, collector or Collector(), continuations + len(pieces) - 1)
        exchange.collector.begun(tag)
        self._pending.append(exchange)
        return exchange, pieces

    @property
    def pending(self) -> tuple[Exchange, ...]:
        """The commands under way, oldest first."""
        return tuple(self._pending)

    @property
    def literal_mode(self) -> LiteralMode:
        if self.features.literal_plus:
            return LiteralMode.PLUS
        return LiteralMode.MINUS if self.features.literal_minus else LiteralMode.SYNCHRONIZING

    # -- responses -----------------------------------------------------------------------------------------------------

    def receive(self, event: Response) -> None:
        """Raises ProtocolError and InsecureError, after which the session is worth nothing."""
        if self.listener is not None:
            self.listener(event)
        if isinstance(event, Fetch):
            # By far the most frequent, and it changes nothing in the state.
            for exchange in self._pending:
                if exchange.collector.claim(event):
                    if event.sections:
                        discard_sections(event, exchange.collector.keeps)
                    return
            self.unasked += 1
            self._tell(event)
            discard_sections(event)
        elif isinstance(event, Tagged):
            self._end(event)
        elif isinstance(event, Continuation):
            for exchange in self._pending:
                if exchange.continued < exchange.continuations:
                    exchange.continued += 1
                    break
        elif self.state is State.GREETING:
            self._greet(event)
        else:
            news = self._note(event)
            for exchange in self._pending:
                if exchange.collector.claim(event):
                    # No answer has many of another kind: a SELECT claims each EXISTS of a server that floods.
                    self.unasked += not isinstance(event, Listed | StatusData)
                    return
            self.unasked += 1
            if news:
                self._tell(event)

    def forget_selected(self) -> None:
        """Whoever uses the session next selects before anything else. The server is not told: SELECT tells it."""
        self.selected = None

    def started_tls(self) -> None:
        """TLS is up: nothing that was said before counts."""
        self._must_start_tls = False
        self._set_capabilities(None)
        self.hint = False
        self.news = News()
        self.enabled = frozenset()
        self.server_id = {}
        self.greeting = ""
        self.bye = None

    @property
    def exists(self) -> int | None:
        """How many messages the selected mailbox has by all that was said; sequence numbers stay in here."""
        return self._exists

    @property
    def arrived(self) -> int:
        """By how much `exists` has grown, all growths of the connection together; expunges take nothing from it."""
        return self._arrived

    def _greet(self, event: Response) -> None:
        if not isinstance(event, Status) or event.status not in ("OK", "PREAUTH", "BYE"):
            raise ProtocolError("the server did not greet as an IMAP server does", hint="is this the IMAP port?")
        self.greeting = event.text
        if event.status == "BYE":
            self.bye = event
            self.state = State.LOGOUT
            return
        if event.status == "PREAUTH":
            # STARTTLS is only allowed before a login; taking PREAUTH would mean talking in the clear (RFC 9051 §11.1).
            if self._must_start_tls:
                raise InsecureError("the server greets with PREAUTH, which would prevent STARTTLS")
            self.state = State.AUTHENTICATED
        else:
            self.state = State.NOT_AUTHENTICATED
        if event.code == "CAPABILITY":
            self._set_capabilities(capability_names(event.argument))

    def _note(self, event: Response) -> bool:
        """What a response changes in the state; whether it is news where nobody asked."""
        match event:
            case StatusData():
                return True
            case Exists(count):
                self._tell_of_the_left_mailbox()
                news = count != self._exists
                self._arrived += max(0, count - (self._exists or 0))
                self._exists = count
                return news
            case Expunge():
                self._exists = max(0, self._exists - 1) if self._exists is not None else None
                return True
            case Vanished(earlier, uids):
                if not earlier and self._exists is not None:
                    self._exists = max(0, self._exists - len(uids))
                return True
            case Malformed():
                self.malformed += 1
                return True
            case Capability(names):
                self._set_capabilities(names)
            case Enabled(names):
                self.enabled |= names
                self._set_features()
            case ServerId(fields):
                self.server_id = dict(fields)
            case Status("BYE"):
                self.bye = event
                self.state = State.LOGOUT
            case Status(_, "CAPABILITY", argument):
                self._set_capabilities(capability_names(argument))
            case Status(_, "CLOSED"):
                # What comes from here on is of the mailbox that is being selected (RFC 7162 §3.2.11).
                self._tell_of_the_left_mailbox()
                self._exists = None
                self.selected = None
            case Status(_, "NOTIFICATIONOVERFLOW"):
                # Said here and not as news: it may come within any answer.
                self.notifying = False
                self.news.overflow()
                self.hint = True
            case Listed():
                return self.notifying
            case _:
                pass
        return False

    def _tell(self, event: Response) -> None:
        """``event`` is news: of whom."""
        self.hint = True
        if isinstance(event, StatusData):
            self.news.status(event)
        elif isinstance(event, Listed) or (isinstance(event, Malformed) and self.notifying):
            # What cannot be read may have been of any mailbox.
            self.news.list_changed()
            if isinstance(event, Listed):
                self.news.of(event.path)
        elif self.selected is not None:
            self.news.of(self.selected.path)

    def _tell_of_the_left_mailbox(self) -> None:
        """An EXISTS between SELECT and [CLOSED], or where no [CLOSED] comes the first of two: of the one we leave."""
        if self.selected is None:
            return
        for exchange in self._pending:
            if isinstance(exchange.collector, SelectCollector) and "MESSAGES" in exchange.collector.items:
                self.hint = True
                self.news.of(self.selected.path)

    def _end(self, tagged: Tagged) -> None:
        exchange = next((pending for pending in self._pending if pending.tag == tagged.tag), None)
        if exchange is None:
            raise ProtocolError("the server ended a command that was never sent")
        self._pending.remove(exchange)
        exchange.tagged = tagged
        succeeded = tagged.status == "OK"
        if exchange.verb in ("LOGIN", "AUTHENTICATE") and succeeded:
            self.state = State.AUTHENTICATED
            if not exchange.collector.saw_capability:
                self._set_capabilities(None)
        if succeeded and tagged.code == "CAPABILITY":
            self._set_capabilities(capability_names(tagged.argument))
        if isinstance(exchange.collector, SelectCollector) and tagged.status != "BAD":
            self._select(exchange.collector, tagged)

    def _select(self, collector: SelectCollector, tagged: Tagged) -> None:
        # A SELECT that fails leaves no mailbox selected (RFC 9051 §6.3.2).
        self.selected = None
        if tagged.status != "OK":
            self.state = State.AUTHENTICATED
            self._exists = None
            return
        self.state = State.SELECTED
        status = collector.status()
        if status is not None:
            self.selected = SelectedMailbox(collector.path, collector.read_only or tagged.code == "READ-ONLY", status)
        self.news.seen(collector.path)
        self.hint = self.hint and bool(self.news)

    def _set_capabilities(self, names: frozenset[str] | None) -> None:
        self.capabilities = names or frozenset()
        self.capabilities_known = names is not None
        self._set_features()

    def _set_features(self) -> None:
        names = self.capabilities
        rev2 = "IMAP4REV2" in names
        self.features = Features(
            qresync="QRESYNC" in self.enabled,
            condstore=bool({"CONDSTORE", "QRESYNC"} & names),
            list_status="LIST-STATUS" in names or rev2,
            special_use="SPECIAL-USE" in names or rev2,
            list_extended="LIST-EXTENDED" in names or rev2,
            esearch="ESEARCH" in names or rev2,
            object_id="OBJECTID" in names,
            gmail="X-GM-EXT-1" in names,
            idle="IDLE" in names or rev2,
            literal_plus="LITERAL+" in names,
            literal_minus="LITERAL-" in names or rev2,
            move="MOVE" in names or rev2,
            uidplus="UIDPLUS" in names or rev2,
            notify="NOTIFY" in names,
            unselect="UNSELECT" in names or rev2,
            id="ID" in names,
            enable="ENABLE" in names or rev2,
            sasl_ir="SASL-IR" in names or rev2,
            # Not by IMAP4rev2: that has literal8 in FETCH, and need not take it in APPEND.
            binary="BINARY" in names,
        )
