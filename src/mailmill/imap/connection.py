"""One IMAP connection for asyncio: the thin shell around `Session`, and the only door to it.

A connection has one owner at a time (the holder of its lease); there are no locks. Every method raises `ImapError`
subclasses only, except that a spooled body may meet a full disk (`StorageFullError`, `StoreError`).

Cancellation: an exchange that is cancelled, times out or is left half read cuts the connection for ever (``closed``);
`wait_hint` alone may be cancelled without harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from mailmill.clock import boot_seconds
from mailmill.errors import (
    ConnectionLostError,
    ContradictionError,
    MailmillError,
    ProtocolError,
)
from mailmill.imap import commands, opening, searching, writing
from mailmill.imap.collectors import (
    BodyCollector,
    Collector,
    EnvelopeCollector,
    ListCollector,
    MetaCollector,
    NotifyCollector,
    SelectCollector,
    StatusCollector,
    is_encoded,
    to_status,
)
from mailmill.imap.commands import Command, Literal
from mailmill.imap.dialogue import Dialogue, require_ok
from mailmill.imap.limits import Limits
from mailmill.imap.notify import Told
from mailmill.imap.opening import ConnectionSettings
from mailmill.imap.providers import Provider
from mailmill.imap.replies import AppendReply, CopyReply, FetchedBody, ListedMailbox, MetaReply, StoreReply
from mailmill.imap.responses import Response
from mailmill.imap.session import Features, SelectedMailbox
from mailmill.imap.spool import SpoolFile
from mailmill.imap.wire import Spooled
from mailmill.model import Credentials, Endpoint, Envelope, Flags, MailboxRef, MailboxStatus, Uid
from mailmill.uid_set import UidSet

__all__ = [
    "AppendReply",
    "ConnectionSettings",
    "CopyReply",
    "Features",
    "FetchedBody",
    "ImapConnection",
    "Limits",
    "ListedMailbox",
    "MetaReply",
    "SelectedMailbox",
    "StoreReply",
    "Told",
]

_CLOSE_SECONDS = 2.0
_LOGOUT_SECONDS = 3.0
_SPECIAL_USES = ("\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Junk", "\\Sent", "\\Trash", "\\Important")
_UNSELECTABLE = frozenset({"\\noselect", "\\nonexistent"})
_UNSENDABLE = frozenset(b"\r\n\0")


class ImapConnection:
    """Made by `connect`, or by `open` and then `authenticate`. See the module for the rules of use.

    As a context manager it logs out at the end of its block, and only closes where the block ends in an error::

        async with await ImapConnection.connect(endpoint, credentials) as connection: ...
    """

    def __init__(self, dialogue: Dialogue) -> None:
        self.endpoint = dialogue.endpoint
        self._dialogue = dialogue
        self._session = dialogue.session
        self._link = dialogue.link
        self._wire_names: dict[str, bytes] = {}

    def __repr__(self) -> str:
        selected = self._session.selected
        return f"<ImapConnection {self.endpoint} {self._session.state.value} {selected.path if selected else ''}>"

    # -- opening and closing -------------------------------------------------------------------------------------------

    @classmethod
    async def connect(
        cls, endpoint: Endpoint, credentials: Credentials, settings: ConnectionSettings | None = None
    ) -> Self:
        """`open` and `authenticate`, with the errors of both; where either fails, nothing stays open."""
        connection = await cls.open(endpoint, settings or ConnectionSettings())
        try:
            await connection.authenticate(credentials)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await (self.logout() if kind is None else self.close())

    @classmethod
    async def open(cls, endpoint: Endpoint, settings: ConnectionSettings) -> Self:
        """TCP, TLS or STARTTLS, greeting, capabilities; not logged in yet.

        Raises InsecureError, ConnectError, CertificateError, ConnectionLostError (a BYE for greeting), ProtocolError.
        """
        return cls(await opening.connect(endpoint, settings))

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` (the one; a second replaces it) called when the connection is closed; at once if it is."""
        if self._link.closed:
            callback()
        else:
            self._link.on_closed = callback

    async def authenticate(self, credentials: Credentials) -> None:
        """Log in, refresh the capabilities, then ID and ENABLE QRESYNC (or CONDSTORE) where offered.

        Raises AuthenticationError where the credentials are refused; CommandError or ConnectionLostError where the
        server only cannot just now (UNAVAILABLE, INUSE, LIMIT, BYE); InsecureError; ArgumentError.
        """
        await opening.authenticate(self._dialogue, credentials)

    async def logout(self) -> None:
        """LOGOUT and close, within a few seconds. Never raises (but CancelledError)."""
        if self.closed:
            return
        try:
            async with asyncio.timeout(_LOGOUT_SECONDS):
                await self.done()
                [exchange] = await self._dialogue.send([(commands.simple("LOGOUT"), Collector())])
                await self._link.wait(lambda: exchange.done)
        except (MailmillError, TimeoutError):
            pass
        await self.close()

    async def close(self) -> None:
        """Close without a word. Bounded in time; never raises (but CancelledError)."""
        await self._link.close(_CLOSE_SECONDS)

    def abort(self) -> None:
        """Cut the connection now."""
        self._link.lose(ConnectionLostError(f"{self.endpoint}: the connection was aborted"))

    # -- what is known -------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:
        """In upper case, as the server last announced them."""
        return self._session.capabilities

    @property
    def features(self) -> Features:
        """What the server can do for us, from its capabilities and from what was enabled at login."""
        return self._session.features

    def forget_selected(self) -> None:
        """The next user of this connection works on another mailbox, and selects it first: until then none is."""
        self._session.forget_selected()

    @property
    def selected(self) -> SelectedMailbox | None:
        """The selected mailbox as it was when it was selected; None where there is none."""
        return self._session.selected

    @property
    def closed(self) -> bool:
        """True for good once the connection has ended, for whatever reason."""
        return self._link.closed

    @property
    def idling(self) -> bool:
        """Whether the server is in IDLE for us now."""
        return self._dialogue.idling

    @property
    def exists(self) -> int | None:
        """How many messages the selected mailbox has, as the server has told so far; None where it has not."""
        return self._dialogue.session.exists

    @property
    def arrived(self) -> int:
        """Grows by each message that the server tells has come to the selected mailbox: for comparing two looks."""
        return self._dialogue.session.arrived

    @property
    def busy(self) -> bool:
        """Whether an exchange other than IDLE is under way: its answer is not read to the end."""
        return self._dialogue.busy

    @property
    def provider(self) -> Provider:
        """What is known beforehand of who runs the server: limits and quirks."""
        return self._dialogue.provider

    @property
    def last_proven_at(self) -> float:
        """Loop time of the last completed round trip."""
        return self._dialogue.last_proven_at

    @property
    def unproven_seconds(self) -> float:
        """Since the last completed round trip, by a clock that goes on while the machine sleeps."""
        return self._dialogue.unproven_seconds

    @property
    def silent_seconds(self) -> float:
        """Since the server's last byte, by the same clock: not silent is also who sends a long answer."""
        return boot_seconds() - self._link.heard_at_boot

    @property
    def round_trips(self) -> int:
        """How often we wrote and then had to wait, since the beginning."""
        return self._dialogue.round_trips

    @property
    def bytes_received(self) -> int:
        """Application bytes, TLS not counted."""
        return self._link.bytes_received

    @property
    def bytes_sent(self) -> int:
        """Likewise, handed to the transport."""
        return self._link.bytes_sent

    @property
    def malformed(self) -> int:
        """Responses since the beginning that could not be read."""
        return self._session.malformed

    def listen(self, listener: Callable[[Response], None] | None) -> None:
        """Call ``listener`` with every response, in order, before it is acted on. For diagnosis; it must not block."""
        self._session.listener = listener

    # -- mailboxes -----------------------------------------------------------------------------------------------------

    async def list_status(self, pattern: str = "*") -> list[ListedMailbox]:
        """All mailboxes with their status: one round trip with LIST-STATUS, else two. Keeps idling if it idles."""
        features = self.features
        if not features.list_status:
            resume = self.idling
            refs = await self._list(pattern, resume_idle=False)
            paths = [ref.path for ref in refs if ref.selectable]
            found = dict(zip(paths, await self._statuses(paths, resume_idle=resume), strict=True))
            return [ListedMailbox(ref, found.get(ref.path)) for ref in refs]
        collector = ListCollector(with_status=True)
        command = commands.list_mailboxes(pattern, special_use=features.special_use, status_items=self._status_items())
        requests = [*self._fresh_view(), (command, collector)]
        exchanges = await self._dialogue.burst(requests, resume_idle=self.idling)
        require_ok(exchanges[-1])
        listed: list[ListedMailbox] = []
        for ref in self._refs(collector):
            data = collector.statuses.get(ref.path)
            listed.append(ListedMailbox(ref, to_status(ref.path, data.items) if data is not None else None))
        return listed

    async def list_mailboxes(self, pattern: str = "*") -> list[MailboxRef]:
        """Keeps idling if it idles. Raises ProtocolError where the list cannot be read in full."""
        return await self._list(pattern, resume_idle=self.idling)

    async def statuses(self, paths: Sequence[str]) -> list[MailboxStatus | None]:
        """STATUS of each, pipelined: one round trip. None where the server refused. Keeps idling if it idles."""
        return await self._statuses(paths, resume_idle=self.idling)

    async def status(self, path: str) -> MailboxStatus | None:
        """STATUS of one mailbox; None where the server accepts it and says nothing. Keeps idling if it idles. Raises
        CommandError, whose code tells a mailbox that is not there from one that cannot be had just now.
        """
        collector = StatusCollector(path)
        command = commands.status(self._wire_name(path), self._status_items())
        [exchange] = await self._dialogue.burst([(command, collector)], resume_idle=self.idling)
        require_ok(exchange)
        return to_status(path, collector.data.items) if collector.data is not None else None

    @property
    def odd_names(self) -> Mapping[str, bytes]:
        """Path → name on the wire, of listed mailboxes whose name is not the encoding of their path."""
        return self._wire_names

    def learn_names(self, odd_names: Mapping[str, bytes]) -> None:
        """Use the names that another connection of the account was told by LIST."""
        self._wire_names = dict(odd_names)

    async def select(self, path: str, *, read_only: bool = True) -> MailboxStatus:
        """EXAMINE, or SELECT. Raises CommandError where there is no such mailbox; none is selected then."""
        features = self.features
        collector = SelectCollector(path, read_only=read_only, condstore=features.condstore)
        condstore = features.condstore and not features.qresync
        command = commands.select(self._wire_name(path), read_only=read_only, condstore=condstore)
        [exchange] = await self._dialogue.burst([(command, collector)])
        require_ok(exchange)
        if self._session.selected is None:
            # Servers older than RFC 3501 leave UIDNEXT out of SELECT.
            [status] = await self._statuses([path], resume_idle=False)
            if status is None:
                raise ContradictionError(f"{self.endpoint}: the server has no persistent UIDs for {path!r}")
            self._session.selected = SelectedMailbox(path, read_only, status)
        assert self._session.selected is not None
        return self._session.selected.status

    # -- messages ------------------------------------------------------------------------------------------------------

    async def fetch_meta(self, uids: UidSet, *, changed_since: int | None = None, vanished: bool = False) -> MetaReply:
        """Flags, dates, sizes and identifiers of ``uids``; with ``changed_since`` only the flags of what changed.

        ``vanished`` asks for what is gone as well (QRESYNC, RFC 7162 §3.2.6).
        """
        items = ["UID", "FLAGS"]
        if changed_since is not None:
            return await self._fetch_items(uids, [*items, "MODSEQ"], changed_since=changed_since, vanished=vanished)
        items += ["INTERNALDATE", "RFC822.SIZE", *self._mod_seq_item()]
        if self.features.object_id:
            items += ["EMAILID", "THREADID"]
        elif self.features.gmail:
            items += ["X-GM-MSGID", "X-GM-THRID"]
        return await self._fetch_items(uids, items)

    async def fetch_flags(self, uids: UidSet) -> MetaReply:
        """Flags of ``uids``, with mod-sequences where the mailbox has them; UIDs that do not exist are passed over."""
        return await self._fetch_items(uids, ["UID", "FLAGS", *self._mod_seq_item()])

    async def fetch_bodies(self, uids: UidSet) -> AsyncIterator[FetchedBody]:
        """The raw messages, in the server's order, as they come; what is gone meanwhile is left out.

        Reading pauses while the consumer is behind. Leaving the iteration early cuts the connection. Raises
        CommandError at the end where the server could not send all of them.
        """
        link, session = self._link, self._session
        collector = BodyCollector(uids, lambda pressed: link.pause(collector) if pressed else link.resume(collector))
        requests = [(commands.uid_fetch(part, ("UID", "BODY.PEEK[]")), collector) for part in commands.split_set(uids)]
        if not requests:
            return
        exchanges = await self._dialogue.send(requests)
        last = exchanges[-1]
        try:
            while True:
                while collector.queue:
                    uid, body = collector.take()
                    yield FetchedBody(uid, body if isinstance(body, bytes) else await _spooled(body))
                if last.done or session.bye is not None:
                    break
                await link.wait(lambda: bool(collector.queue) or last.done or session.bye is not None)
            await self._dialogue.finish()
        finally:
            collector.discard()
            link.resume(collector)
            if not all(exchange.done for exchange in exchanges):
                link.lose(ConnectionLostError(f"{self.endpoint}: a fetch was left half read"))
        for exchange in exchanges:
            require_ok(exchange)

    async def fetch_envelopes(self, uids: UidSet) -> list[tuple[Uid, Envelope]]:
        """ENVELOPE of each; a malformed one is left out."""
        collector = EnvelopeCollector(uids)
        await self._fetch(uids, ("UID", "ENVELOPE"), collector)
        return collector.envelopes

    async def search(self, uids: UidSet | None = None) -> UidSet:
        """Which UIDs exist, of all or of ``uids``. Exact: raises ContradictionError where the answer cannot be read."""
        return await searching.existing(self._dialogue, uids)

    async def search_before(self, seconds: float) -> UidSet:
        """Which messages the server received before the day (UTC) of ``seconds`` since the epoch, by its own time zone.
        Exact and errors as `search`.
        """
        return await searching.before(self._dialogue, datetime.fromtimestamp(seconds, UTC).date())

    async def search_header(self, name: str, value: str, *, within: UidSet | None = None) -> UidSet:
        """Which messages, of all or of ``within``, have ``value`` somewhere in the header field ``name``, in any case
        of letters. Some servers find more or less than that: compare what it finds. Exact and errors as `search`;
        ArgumentError.
        """
        return await searching.with_header(self._dialogue, name, value, within)

    # -- changes: each leaves IDLE and does not take it up again -------------------------------------------------------

    async def store_flags(
        self,
        uids: UidSet,
        *,
        add: Flags = frozenset(),
        remove: Flags = frozenset(),
        unchanged_since: int | None = None,
    ) -> StoreReply:
        """Remove flags and keywords, then add some, and have the flags as they are then (UID STORE, RFC 9051 §6.4.6).

        With ``unchanged_since`` a message that anyone has changed since that mod-sequence is left as it is, and named
        in ``modified`` (CONDSTORE, RFC 7162 §3.1.3). UIDs that do not exist are passed over. Needs a mailbox selected
        with ``read_only=False``. Raises UnsupportedError, ArgumentError, CommandError (what came before it is done).
        """
        return await writing.store_flags(self._dialogue, uids, add=add, remove=remove, unchanged_since=unchanged_since)

    async def copy(self, uids: UidSet, path: str) -> CopyReply:
        """UID COPY. A command that fails has copied nothing (RFC 9051 §6.4.7).

        Raises CommandError, with ``response_code`` TRYCREATE where there is no mailbox ``path``.
        """
        return await writing.copy(self._dialogue, uids, self._wire_name(path))

    async def move(self, uids: UidSet, path: str) -> CopyReply:
        """UID MOVE (RFC 6851): each message is moved or is where it was, also where the command fails.

        Raises UnsupportedError where the server has no MOVE or the mailbox is selected read-only, else as `copy`.
        """
        return await writing.move(self._dialogue, uids, self._wire_name(path))

    async def expunge(self, uids: UidSet) -> UidSet:
        """Remove those of ``uids`` that are ``\\Deleted`` (UID EXPUNGE, RFC 4315); returns which of ``uids`` do not
        exist after it.

        Raises UnsupportedError without UIDPLUS: a plain EXPUNGE takes what others have marked as well.
        """
        return await writing.expunge(self._dialogue, uids)

    async def append(
        self, path: str, raw: bytes, *, flags: Flags = frozenset(), internal_date: float | None = None
    ) -> AppendReply:
        """Upload a message as it is (APPEND); ``internal_date`` is seconds since the epoch, by default now.

        It is written as fast as the server takes it and held in memory once. Raises ArgumentError for an empty message,
        and for one with NUL where the server has no BINARY; CommandError, with ``response_code`` TRYCREATE, TOOBIG,
        OVERQUOTA …; ConnectionLostError, after which nobody knows whether the message arrived: look for it before
        trying again (`search_header`).
        """
        return await writing.append(
            self._dialogue, self._wire_name(path), raw, flags=flags, internal_date=internal_date
        )

    # -- waiting for news ----------------------------------------------------------------------------------------------

    async def idle(self) -> None:
        """Enter IDLE (RFC 2177) and wait for the server's ``+``. No-op while idling."""
        await self._dialogue.idle()

    def take_hint(self) -> bool:
        """`wait_hint` without waiting: whether there was news of the selected mailbox since the last look."""
        return self._dialogue.take_hint()

    def take_told(self) -> Told:
        """What the server has said unasked, by mailbox, since the last look; the next look begins here."""
        return self._dialogue.take_told()

    def told_of(self, path: str) -> bool:
        """Whether `take_told` would name ``path`` now."""
        return self._session.news.has(path)

    async def notify_all(self) -> frozenset[str]:
        """Be told of all personal mailboxes from here on (NOTIFY, RFC 5465); returns those that it covers now.

        What comes raises the hint and is in `take_told`. Dovecot tells of a mailbox that was selected only later while
        idling, so idle as well. Raises CommandError where it is refused; nothing has changed then.
        """
        collector = NotifyCollector()
        [exchange] = await self._dialogue.burst([(commands.notify(others=True), collector)])
        require_ok(exchange)
        self._session.notifying = True
        return frozenset(collector.paths if self.selected is None else {*collector.paths, self.selected.path})

    async def notify_selected(self) -> None:
        """Be told of the selected mailbox only, as without NOTIFY: the way back after an overflow, which ends even it.

        Raises CommandError where it is refused: the server stays mute then, and the connection is of no use to watch.
        """
        await self._dialogue.run(commands.notify(others=False))
        self._session.notifying = False

    async def wait_hint(self, timeout_seconds: float) -> bool:
        """True as soon as the server has said anything of interest since the last call, False at the timeout.

        Raises ConnectionLostError when the connection ends, CommandError where the server refused to idle on. May be
        cancelled without harm.
        """
        return await self._dialogue.wait_hint(timeout_seconds)

    async def done(self) -> None:
        """Leave IDLE. No-op otherwise."""
        await self._dialogue.done()

    async def probe(self, answer_seconds: float) -> None:
        """A round trip that proves the connection. Keeps idling if it idles.

        Raises ConnectionLostError, and the connection is closed, where not a byte comes for ``answer_seconds``.
        """
        await self._dialogue.probe(answer_seconds)

    async def noop(self) -> None:
        """A round trip: proves the connection and collects news."""
        await self._dialogue.run(commands.simple("NOOP"))

    # -- pieces of commands --------------------------------------------------------------------------------------------

    async def _list(self, pattern: str, *, resume_idle: bool) -> list[MailboxRef]:
        features = self.features
        collector = ListCollector()
        # Return options are LIST-EXTENDED's; without it a server that has special uses names them unasked.
        special_use = features.special_use and (features.list_extended or features.list_status)
        command = commands.list_mailboxes(pattern, special_use=special_use)
        [exchange] = await self._dialogue.burst([(command, collector)], resume_idle=resume_idle)
        require_ok(exchange)
        return self._refs(collector)

    def _refs(self, collector: ListCollector) -> list[MailboxRef]:
        if collector.malformed:
            # A list that is not whole must not be taken for one: mailboxes would seem deleted.
            raise ProtocolError(f"{self.endpoint}: the server's mailbox list cannot be read in full")
        refs = []
        for listed in collector.listed.values():
            if is_encoded(listed):
                self._wire_names.pop(listed.path, None)
            else:
                self._wire_names[listed.path] = listed.raw_name
            special_use = next((use for use in _SPECIAL_USES if use.lower() in listed.attributes), None)
            # Some names can be listed and never asked for: no encoding of ours may hold a line end or a NUL.
            selectable = not _UNSELECTABLE & listed.attributes and not _UNSENDABLE & set(listed.raw_name)
            refs.append(MailboxRef(listed.path, listed.delimiter, special_use, selectable))
        return refs

    async def _statuses(self, paths: Sequence[str], *, resume_idle: bool) -> list[MailboxStatus | None]:
        items = self._status_items()
        collectors = [StatusCollector(path) for path in paths]
        requests: list[tuple[Command, Collector]] = [
            (commands.status(self._wire_name(collector.path), items), collector) for collector in collectors
        ]
        await self._dialogue.burst([*self._fresh_view(), *requests], resume_idle=resume_idle)
        return [
            to_status(collector.path, collector.data.items) if collector.data is not None else None
            for collector in collectors
        ]

    async def _fetch(
        self,
        uids: UidSet,
        items: Sequence[str],
        collector: Collector,
        *,
        changed_since: int | None = None,
        vanished: bool = False,
    ) -> None:
        exchanges = await self._dialogue.burst(
            [
                (commands.uid_fetch(part, items, changed_since=changed_since, vanished=vanished), collector)
                for part in commands.split_set(uids)
            ]
        )
        for exchange in exchanges:
            require_ok(exchange)

    async def _fetch_items(
        self, uids: UidSet, items: Sequence[str], *, changed_since: int | None = None, vanished: bool = False
    ) -> MetaReply:
        collector = MetaCollector(uids)
        await self._fetch(uids, items, collector, changed_since=changed_since, vanished=vanished)
        gone = UidSet.from_ranges(pair for uid_set in collector.vanished for pair in uid_set.ranges)
        return MetaReply(list(collector.messages.values()), gone, collector.malformed)

    def _mod_seq_item(self) -> list[str]:
        # A mailbox without mod-sequences answers BAD to the item (RFC 7162 §3.1.2.2).
        selected = self.selected
        return ["MODSEQ"] if selected is not None and selected.status.highest_mod_seq is not None else []

    def _fresh_view(self) -> list[tuple[Command, Collector]]:
        # STATUS of the selected mailbox may tell only what this session has seen of it (RFC 9051 §6.3.11), and Dovecot
        # does so. A NOOP in the same write brings the news itself: whoever asks looks at `take_hint` as well.
        return [(commands.simple("NOOP"), Collector())] if self.selected is not None else []

    def _status_items(self) -> tuple[str, ...]:
        items = ("MESSAGES", "UIDNEXT", "UIDVALIDITY")
        return (*items, "HIGHESTMODSEQ") if self.features.condstore else items

    def _wire_name(self, path: str) -> bytes | Literal:
        raw = self._wire_names.get(path)
        return commands.mailbox(path) if raw is None else commands.string(raw)


async def _spooled(body: Spooled) -> Path:
    assert isinstance(body, SpoolFile)
    try:
        return await body.ready()
    except BaseException:
        body.discard()
        raise
