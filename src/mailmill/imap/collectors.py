"""What each command takes for itself out of the stream of untagged responses. Pure.

A collector claims what its command asked for and nothing else. Where an answer and unasked-for news look the same (a
FETCH of flags during a UID FETCH of flags), it is taken in, later over earlier, and nothing is lost by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

from mailmill.errors import LimitError
from mailmill.imap import utf7
from mailmill.imap.fetch import Fetch, Section
from mailmill.imap.responses import (
    Capability,
    Esearch,
    Exists,
    Listed,
    MailboxFlags,
    Malformed,
    Recent,
    Response,
    Search,
    Status,
    StatusData,
    Vanished,
)
from mailmill.imap.wire import Spooled
from mailmill.model import INBOX, Envelope, MailboxStatus, MessageMeta, Uid
from mailmill.uid_set import UidSet

_HIGH_WATER_BYTES = 4 * 1024 * 1024
_LOW_WATER_BYTES = 1024 * 1024
_SELECT_CODES = frozenset({"UIDVALIDITY", "UIDNEXT"})
_STATUS_ITEMS = frozenset({"MESSAGES", "UIDNEXT", "UIDVALIDITY"})


# What one command's answer may hold; more than any honest server has, and no more than we can bear.
_MOST_MAILBOXES = 100_000
_MOST_RANGES = 2_000_000


_new_meta = tuple.__new__


class Collector:
    """Claims nothing: NOOP, LOGIN, IDLE …"""

    saw_capability = False
    keeps = ""
    """The section of a claimed FETCH that is the collector's to free. All others are freed at once: a server may send
    what nobody asked for, and large literals lie on disk."""

    def begun(self, tag: str) -> None:
        """One of the commands that are collected for has this tag."""

    def claim(self, event: Response) -> bool:
        """Take ``event`` in if it is what the command asked for. False leaves it for others."""
        if isinstance(event, Capability) or (isinstance(event, Status) and event.code == "CAPABILITY"):
            self.saw_capability = True
        return False


class MetaCollector(Collector):
    """UID FETCH of anything but bodies. ``messages`` has one entry for each UID, later over earlier."""

    def __init__(self, uids: UidSet) -> None:
        self.messages: dict[Uid, MessageMeta] = {}
        self.vanished: list[UidSet] = []
        self.malformed = 0
        self._uids = uids
        self._stretch = range(0)

    def claim(self, event: Response) -> bool:
        if isinstance(event, Fetch):
            uid = event.uid
            # Servers answer in order: almost always the range of the message before.
            if uid is None or (uid not in self._stretch and not self._is_asked_for(uid)):
                return False
            # The fields of the one are a stretch of the other's (a test holds them to it).
            meta = _new_meta(MessageMeta, event[:8])
            earlier = self.messages.setdefault(uid, meta)
            if earlier is not meta:
                self.messages[uid] = _merged(earlier, meta)
            return True
        if isinstance(event, Vanished):
            self.vanished.append(event.uids & self._uids)
            # An expunge of this moment is part of the answer and news as well: the message count has changed.
            return event.earlier
        if isinstance(event, Malformed):
            self.malformed += 1
            return True
        return False

    def _is_asked_for(self, uid: Uid) -> bool:
        self._stretch = self._uids.stretch_at(uid)
        return uid in self._stretch


class BodyCollector(Collector):
    """UID FETCH of BODY.PEEK[]: a queue that the consumer empties while the answer still comes in.

    ``on_pressure`` is called with True when the consumer is behind, and with False when it has caught up.
    """

    keeps = "BODY[]"

    def __init__(self, uids: UidSet, on_pressure: Callable[[bool], None]) -> None:
        self.queue: deque[tuple[Uid, bytes | Spooled]] = deque()
        self._queued_bytes = 0
        self._pressed = False
        self._on_pressure = on_pressure
        self._uids = uids

    def claim(self, event: Response) -> bool:
        if not isinstance(event, Fetch) or event.uid is None:
            return False
        body = event.sections.get("BODY[]")
        if body is None or event.uid not in self._uids:
            return False
        self.queue.append((event.uid, body))
        self._queued_bytes += _size(body)
        if self._queued_bytes > _HIGH_WATER_BYTES and not self._pressed:
            self._pressed = True
            self._on_pressure(True)
        return True

    def take(self) -> tuple[Uid, bytes | Spooled]:
        uid, body = self.queue.popleft()
        self._queued_bytes -= _size(body)
        if self._pressed and self._queued_bytes <= _LOW_WATER_BYTES:
            self._pressed = False
            self._on_pressure(False)
        return uid, body

    def discard(self) -> None:
        for _, body in self.queue:
            if not isinstance(body, bytes):
                body.discard()
        self.queue.clear()
        self._queued_bytes = 0


class EnvelopeCollector(Collector):
    def __init__(self, uids: UidSet) -> None:
        self.envelopes: list[tuple[Uid, Envelope]] = []
        self._uids = uids

    def claim(self, event: Response) -> bool:
        if (
            isinstance(event, Fetch)
            and event.envelope is not None
            and event.uid is not None
            and event.uid in self._uids
        ):
            self.envelopes.append((event.uid, event.envelope))
            return True
        return False


class SearchCollector(Collector):
    """UID SEARCH, answered by SEARCH or by ESEARCH. ``malformed``: the answer may not be whole. ``answers``: how many
    there were; each command must have one, also where nothing is found (RFC 9051 §6.4.4, RFC 4731 §3.1). An ESEARCH
    that names another command, or that does not say it lists UIDs, is none: its numbers stand for something else.
    """

    def __init__(self) -> None:
        self._tags: set[str] = set()
        self.answers = 0
        self.ranges: list[tuple[int, int]] = []
        self.malformed = 0

    def begun(self, tag: str) -> None:
        self._tags.add(tag)

    def claim(self, event: Response) -> bool:
        if isinstance(event, Search):
            self.answers += 1
            self._add(event.uids)
            return True
        if isinstance(event, Esearch) and event.uid and (event.tag is None or event.tag in self._tags):
            self.answers += 1
            self._add(event.all)
            return True
        if isinstance(event, Malformed) and b"SEARCH" in event.raw[:12].upper():
            self.malformed += 1
        return False

    def _add(self, found: UidSet) -> None:
        self.ranges += found.ranges
        _bound("search results", len(self.ranges), _MOST_RANGES)


class ListCollector(Collector):
    """LIST, with the STATUS responses of LIST-STATUS. The first entry for a path counts; one whose name is encoded as
    it should be goes before one that is not: Dovecot's NOTIFY names mailboxes in bare UTF-8.

    An entry with ``\\NonExistent`` may be a name above others that is no mailbox (Dovecot's LIST has them, and says of
    ``\\HasChildren`` only where it was asked to), or NOTIFY's word of a deletion: then the mailbox was listed before.
    """

    def __init__(self, *, with_status: bool = False) -> None:
        self.malformed = 0
        self.listed: dict[str, Listed] = {}
        self.statuses: dict[str, StatusData] = {}
        self._with_status = with_status

    def claim(self, event: Response) -> bool:
        if isinstance(event, Listed):
            known = self.listed.get(event.path)
            if known is not None and _is_gone(event) and not _is_gone(known):
                # It was listed, and is gone: NOTIFY tells, meanwhile, that a mailbox was deleted (RFC 5465 §5.4).
                del self.listed[event.path]
                return False
            revived = known is not None and _is_gone(known) and not _is_gone(event)
            if known is None or revived or (is_encoded(event) and not is_encoded(known)):
                self.listed[event.path] = event
            _bound("mailboxes", len(self.listed), _MOST_MAILBOXES)
            # Likewise that one was renamed: the old name may have been listed before. Gone and then listed: who knows.
            return event.old_path is None and not revived
        if isinstance(event, StatusData) and self._with_status:
            self.statuses[event.path] = _updated(self.statuses.get(event.path), event)
            return True
        if isinstance(event, Malformed) and event.raw[:7].upper() == b"* LIST ":
            self.malformed += 1
        return False


class StatusCollector(Collector):
    """STATUS of one mailbox."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.data: StatusData | None = None

    def claim(self, event: Response) -> bool:
        whole = self.data is not None and self.data.items.keys() >= _STATUS_ITEMS
        if isinstance(event, StatusData) and event.path == self.path and not whole:
            self.data = _updated(self.data, event)
            return True
        return False


class NotifyCollector(Collector):
    """NOTIFY SET STATUS (RFC 5465 §3.1): a STATUS of each mailbox that it covers, but for the selected one."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def claim(self, event: Response) -> bool:
        if isinstance(event, StatusData):
            self.paths.add(event.path)
            _bound("mailboxes", len(self.paths), _MOST_MAILBOXES)
            return True
        return False


def _is_gone(listed: Listed) -> bool:
    return "\\nonexistent" in listed.attributes and "\\haschildren" not in listed.attributes


def _updated(earlier: StatusData | None, later: StatusData) -> StatusData:
    """A STATUS that NOTIFY brings may come between, and name only what has changed: it must not hide the answer."""
    return later if earlier is None else StatusData(later.path, {**earlier.items, **later.items})


def _bound(what: str, count: int, most: int) -> None:
    if count > most:
        raise LimitError(f"the server sent more than {most} {what} in one answer")


class SelectCollector(Collector):
    """SELECT or EXAMINE. What comes before ``[CLOSED]`` is of the mailbox selected until now (RFC 7162 §3.2.11)."""

    def __init__(self, path: str, *, read_only: bool, condstore: bool) -> None:
        self.path = path
        self.read_only = read_only
        # Counts only where CONDSTORE is announced: some servers name a HIGHESTMODSEQ and do not keep to it.
        self._codes = _SELECT_CODES | {"HIGHESTMODSEQ"} if condstore else _SELECT_CODES
        self.items: dict[str, int] = {}

    def claim(self, event: Response) -> bool:
        super().claim(event)
        match event:
            case Exists(count):
                self.items["MESSAGES"] = count
            case Status("OK", "CLOSED"):
                self.items.clear()
            case Status("OK", code, argument) if code in self._codes:
                most = 2**63 if code == "HIGHESTMODSEQ" else 2**32
                if argument.isascii() and argument.isdigit() and len(argument) <= 19 and int(argument) < most:
                    self.items[code] = int(argument)
            case Status("OK") | MailboxFlags() | Recent():
                pass
            case _:
                return False
        return True

    def status(self) -> MailboxStatus | None:
        """None where the server left out UIDVALIDITY or UIDNEXT."""
        return to_status(self.path, {"MESSAGES": 0, **self.items})


def to_status(path: str, items: Mapping[str, int]) -> MailboxStatus | None:
    """None where an item is missing without which nothing can be concluded. HIGHESTMODSEQ 0 means there is none."""
    messages, uid_next, uid_validity = items.get("MESSAGES"), items.get("UIDNEXT"), items.get("UIDVALIDITY")
    if messages is None or uid_next is None or not uid_validity:
        return None
    return MailboxStatus(path, messages, uid_next, uid_validity, items.get("HIGHESTMODSEQ") or None)


def is_encoded(listed: Listed) -> bool:
    """Whether our encoding of the path is the name that the server uses. Odd servers send names that are not."""
    try:
        return listed.path == INBOX or utf7.encode(listed.path) == listed.raw_name
    except UnicodeEncodeError:
        return False


def discard_sections(event: Response, but: str = "") -> None:
    """Free what ``event`` keeps in files, all but the section that somebody took."""
    if isinstance(event, Fetch):
        discard_all([section for name, section in event.sections.items() if name != but])


def discard_all(sections: Collection[Section]) -> None:
    for section in sections:
        if section is not None and not isinstance(section, bytes):
            section.discard()


def _size(body: bytes | Spooled) -> int:
    # A spooled body waits on disk: it counts as what the entry takes in memory.
    return len(body) if isinstance(body, bytes) else 1024


def _merged(earlier: MessageMeta, later: MessageMeta) -> MessageMeta:
    return MessageMeta(
        later.uid,
        later.flags if later.flags is not None else earlier.flags,
        later.mod_seq if later.mod_seq is not None else earlier.mod_seq,
        later.internal_date if later.internal_date is not None else earlier.internal_date,
        later.size_bytes if later.size_bytes is not None else earlier.size_bytes,
        later.email_id if later.email_id is not None else earlier.email_id,
        later.thread_id if later.thread_id is not None else earlier.thread_id,
        later.x_gm_msgid if later.x_gm_msgid is not None else earlier.x_gm_msgid,
    )
