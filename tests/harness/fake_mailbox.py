"""A mailbox of `FakeImap`: its messages, and what happens to them, numbered as a server numbers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class FakeMessage:
    """``size_bytes`` is what RFC822.SIZE says, where that is a lie. ``withheld``: listed, its body is never sent.
    ``email_id`` is what EMAILID says (OBJECTID), where that is not made of the content.
    """

    raw: bytes
    flags: frozenset[str]
    mod_seq: int
    size_bytes: int | None = None
    withheld: bool = False
    internal_date: bytes = b"21-Nov-2096 10:00:00 +0000"
    email_id: str | None = None


class FakeMailbox:
    """``messages`` by UID, ascending. ``mod_seqs`` False: the mailbox has none (NOMODSEQ), whatever the server can.

    ``attributes`` and ``delimiter`` (as LIST writes it, with its quotes) are what LIST says; ``raw_name`` is the name
    on the wire, where it is not ``path`` itself. One with ``\\Noselect`` has no status and is not selected.
    """

    attributes = b"\\HasNoChildren"
    delimiter = b'"/"'
    raw_name: bytes | None = None

    def __init__(self, path: str = "INBOX", *, uid_validity: int = 7, mod_seqs: bool = True) -> None:
        self.path = path
        self.uid_validity = uid_validity
        self.uid_next = 1
        self.mod_seqs = mod_seqs
        self.highest_mod_seq = 1
        self.messages: dict[int, FakeMessage] = {}
        self.expunged: dict[int, int] = {}
        self.changed: Callable[[], None] = lambda: None

    def add(self, *raws: bytes, flags: Iterable[str] = ()) -> int:
        """Deliver messages; returns the UID of the last."""
        for raw in raws:
            self.messages[self.uid_next] = FakeMessage(raw, frozenset(flags), self._next_mod_seq())
            self.uid_next += 1
        self.changed()
        return self.uid_next - 1

    def set_flags(self, uid: int, *flags: str) -> None:
        message = self.messages[uid]
        message.flags, message.mod_seq = frozenset(flags), self._next_mod_seq()
        self.changed()

    def expunge(self, *uids: int) -> None:
        for uid in uids:
            del self.messages[uid]
            self.expunged[uid] = self._next_mod_seq()
        self.changed()

    def move(self, uid: int, target: FakeMailbox) -> int:
        """To the end of another mailbox, or of this one, with its flags; returns its UID there."""
        message = self.messages[uid]
        self.expunge(uid)
        target.messages[target.uid_next] = message
        message.mod_seq = target._next_mod_seq()
        target.uid_next += 1
        target.changed()
        return target.uid_next - 1

    def renumber(self, uid_validity: int, *, first_uid: int = 1) -> None:
        """The same messages in a new generation."""
        self.uid_validity = uid_validity
        self.messages = dict(enumerate(self.messages.values(), first_uid))
        self.expunged.clear()
        self.uid_next = first_uid + len(self.messages)

    @property
    def wire_name(self) -> bytes:
        return self.path.encode("ascii") if self.raw_name is None else self.raw_name

    @property
    def selectable(self) -> bool:
        return not {rb"\noselect", rb"\nonexistent"} & set(self.attributes.lower().split())

    def held(self) -> dict[int, tuple[frozenset[str], bytes]]:
        """UID → flags and raw message: the truth."""
        return {uid: (message.flags, message.raw) for uid, message in self.messages.items()}

    def status(self, name: str) -> int:
        return {
            "MESSAGES": len(self.messages),
            "UIDNEXT": self.uid_next,
            "UIDVALIDITY": self.uid_validity,
            "HIGHESTMODSEQ": self.highest_mod_seq if self.mod_seqs else 0,
        }[name]

    def _next_mod_seq(self) -> int:
        self.highest_mod_seq += 1
        return self.highest_mod_seq
