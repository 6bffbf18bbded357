"""One IMAP connection for asyncio: the thin shell around `Session`, and the only door to it.

A connection has one owner at a time (the holder of its lease); there are no locks. Every method raises `ImapError`
subclasses only, except that a spooled body may meet a full disk (`StorageFullError`, `StoreError`).

Cancellation: an exchange that is cancelled, times out or is left half read cuts the connection for ever (``closed``);
`wait_hint` alone may be cancelled without harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mailmill.errors import (
    ConnectionLostError,
    MailmillError,
    ProtocolError,
)
from mailmill.imap import commands, opening, utf7
from mailmill.imap.collectors import (
    BodyCollector,
    Collector,
    EnvelopeCollector,
    ListCollector,
    MetaCollector,
    SearchCollector,
    SelectCollector,
    StatusCollector,
    to_status,
)
from mailmill.imap.commands import Command, Literal
from mailmill.imap.dialogue import Dialogue, require_ok
from mailmill.imap.limits import Limits
from mailmill.imap.opening import ConnectionSettings
from mailmill.imap.providers import Provider
from mailmill.imap.responses import Listed, Response
from mailmill.imap.session import Features, SelectedMailbox
from mailmill.imap.spool import SpoolFile
from mailmill.imap.wire import Spooled
from mailmill.model import INBOX, Credentials, Endpoint, Envelope, MailboxRef, MailboxStatus, MessageMeta, Uid
from mailmill.uid_set import UidSet

__all__ = [
    "ConnectionSettings",
    "Features",
    "FetchedBody",
    "ImapConnection",
    "Limits",
    "ListedMailbox",
    "MetaReply",
    "SelectedMailbox",
]

_CLOSE_SECONDS = 2.0
_LOGOUT_SECONDS = 3.0
_SPECIAL_USES = ("\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Junk", "\\Sent", "\\Trash", "\\Important")
_UNSELECTABLE = frozenset({"\\noselect", "\\nonexistent"})
_UNSENDABLE = frozenset(b"\r\n\0")


@dataclass(frozen=True, slots=True)
class ListedMailbox:
    """``status`` is None where the mailbox cannot be selected or the server would not say."""

    mailbox: MailboxRef
    status: MailboxStatus | None


@dataclass(frozen=True, slots=True)
class FetchedBody:
    """The raw message. A Path is a temporary file that the consumer owns: it moves or deletes it."""

    uid: Uid
    body: bytes | Path


@dataclass(frozen=True, slots=True)
class MetaReply:
    """What a UID FETCH of metadata brought, one entry for each UID.

    ``vanished``: UIDs of the asked-for set that the server said are gone, before or during the command. ``malformed``:
    responses that could not be read; a message may hide in each, so the range asked for is not covered.
    """

    messages: list[MessageMeta]
    vanished: UidSet
    malformed: int


class ImapConnection:
    """Made by `open`, then `authenticate`. See the module for the rules of use."""

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
    async def open(cls, endpoint: Endpoint, settings: ConnectionSettings) -> ImapConnection:
        """TCP, TLS or STARTTLS, greeting, capabilities; not logged in yet.

        Raises InsecureError, ConnectError, CertificateError, ConnectionLostError (a BYE for greeting), ProtocolError.
        """
        return cls(await opening.connect(endpoint, settings))

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
        return self._session.capabilities

    @property
    def features(self) -> Features:
        return self._session.features

    @property
    def selected(self) -> SelectedMailbox | None:
        return self._session.selected

    @property
    def closed(self) -> bool:
        return self._link.closed

    @property
    def idling(self) -> bool:
        return self._dialogue.idling

    @property
    def exists(self) -> int | None:
        """How many messages the selected mailbox has, as the server has told so far; None where it has not."""
        return self._dialogue.session.exists

    @property
    def busy(self) -> bool:
        """Whether an exchange other than IDLE is under way: its answer is not read to the end."""
        return self._dialogue.busy

    @property
    def provider(self) -> Provider:
        return self._dialogue.provider

    @property
    def last_proven_at(self) -> float:
        """Loop time of the last completed round trip."""
        return self._dialogue.last_proven_at

    @property
    def round_trips(self) -> int:
        return self._dialogue.round_trips

    @property
    def bytes_received(self) -> int:
        """Application bytes, TLS not counted."""
        return self._link.bytes_received

    @property
    def bytes_sent(self) -> int:
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
                raise ProtocolError(f"{self.endpoint}: the server has no persistent UIDs for {path!r}")
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
        """Which UIDs exist, of all or of ``uids``. Exact: raises ProtocolError where the answer cannot be read."""
        if uids is not None and not uids:
            return UidSet()
        collector = SearchCollector()
        esearch = self.features.esearch
        parts = [None] if uids is None else list(commands.split_set(uids))
        for exchange in await self._dialogue.burst(
            [(commands.uid_search(part, esearch=esearch), collector) for part in parts]
        ):
            require_ok(exchange)
        if collector.malformed or collector.answers < len(parts):
            raise ProtocolError(f"{self.endpoint}: the server's SEARCH answer is missing or cannot be read")
        return UidSet.from_ranges(collector.ranges)

    # -- waiting for news ----------------------------------------------------------------------------------------------

    async def idle(self) -> None:
        """Enter IDLE (RFC 2177) and wait for the server's ``+``. No-op while idling."""
        await self._dialogue.idle()

    def take_hint(self) -> bool:
        """`wait_hint` without waiting: whether there was news of the selected mailbox since the last look."""
        return self._dialogue.take_hint()

    async def wait_hint(self, timeout_seconds: float) -> bool:
        """True as soon as the server has said anything of interest since the last call, False at the timeout.

        Raises ConnectionLostError when the connection ends, CommandError where the server refused to idle on. May be
        cancelled without harm.
        """
        return await self._dialogue.wait_hint(timeout_seconds)

    async def done(self) -> None:
        """Leave IDLE. No-op otherwise."""
        await self._dialogue.done()

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
            if listed.path != INBOX and not _round_trips(listed):
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


def _round_trips(listed: Listed) -> bool:
    """Whether our encoding of the path is the name that the server uses. Odd servers send names that are not."""
    try:
        return utf7.encode(listed.path) == listed.raw_name
    except UnicodeEncodeError:
        return False


async def _spooled(body: Spooled) -> Path:
    assert isinstance(body, SpoolFile)
    try:
        return await body.ready()
    except BaseException:
        body.discard()
        raise
