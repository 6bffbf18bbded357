"""What each command takes for itself out of the stream of untagged responses. Pure.

A collector claims what its command asked for and nothing else. Where an answer and unasked-for news look the same (a
FETCH of flags during a UID FETCH of flags), it is taken in, later over earlier, and nothing is lost by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

from mailmill.errors import LimitError
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
from mailmill.model import Envelope, MailboxStatus, MessageMeta, Uid
from mailmill.uid_set import UidSet

_HIGH_WATER_BYTES = 4 * 1024 * 1024
_LOW_WATER_BYTES = 1024 * 1024
_SELECT_CODES = frozenset({"UIDVALIDITY", "UIDNEXT"})


# What one command's answer may hold; more than any honest server has, and no more than we can bear.
_MOST_MAILBOXES = 100_000
_MOST_RANGES = 2_000_000


class Collector:
    """Claims nothing: NOOP, LOGIN, IDLE …"""

    saw_capability = False

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

    def claim(self, event: Response) -> bool:
        if isinstance(event, Fetch):
            uid = event.uid
            if uid is None or uid not in self._uids:
                return False
            meta = MessageMeta(
                uid,
                event.flags,
                event.mod_seq,
                event.internal_date,
                event.size_bytes,
                event.email_id,
                event.thread_id,
                event.x_gm_msgid,
            )
            earlier = self.messages.get(uid)
            self.messages[uid] = meta if earlier is None else _merged(earlier, meta)
            return True
        if isinstance(event, Vanished):
            self.vanished.append(event.uids & self._uids)
            # An expunge of this moment is part of the answer and news as well: the message count has changed.
            return event.earlier
        if isinstance(event, Malformed):
            self.malformed += 1
            return True
        return False


class BodyCollector(Collector):
    """UID FETCH of BODY.PEEK[]: a queue that the consumer empties while the answer still comes in.

    ``on_pressure`` is called with True when the consumer is behind, and with False when it has caught up.
    """

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
    there were; each command must have one, also where nothing is found (RFC 9051 §6.4.4, RFC 4731 §3.1).
    """

    def __init__(self) -> None:
        self.answers = 0
        self.ranges: list[tuple[int, int]] = []
        self.malformed = 0

    def claim(self, event: Response) -> bool:
        if isinstance(event, Search):
            self.answers += 1
            self._add(event.uids)
            return True
        if isinstance(event, Esearch):
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
    """LIST, with the STATUS responses of LIST-STATUS. The first entry for a path counts."""

    def __init__(self, *, with_status: bool = False) -> None:
        self.malformed = 0
        self.listed: dict[str, Listed] = {}
        self.statuses: dict[str, StatusData] = {}
        self._with_status = with_status

    def claim(self, event: Response) -> bool:
        if isinstance(event, Listed):
            self.listed.setdefault(event.path, event)
            _bound("mailboxes", len(self.listed), _MOST_MAILBOXES)
            return True
        if isinstance(event, StatusData) and self._with_status:
            self.statuses[event.path] = event
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
        if isinstance(event, StatusData) and event.path == self.path and self.data is None:
            self.data = event
            return True
        return False


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


def discard_sections(event: Response) -> None:
    """Nobody claimed ``event``: free what it keeps in files."""
    if isinstance(event, Fetch):
        discard_all(event.sections.values())


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
