"""NOTIFY (RFC 5465) for `FakeImap`: what a session asked to be told, and what it has been told already.

As Dovecot does it: STATUS names what changed, a deleted mailbox is LIST with ``\\NonExistent``, and a session that is
mute (NOTIFY NONE, or an overflow) learns nothing any more, neither in IDLE nor with NOOP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.fake_mailbox import FakeMailbox

_ITEMS = ("MESSAGES", "UIDNEXT", "UIDVALIDITY", "HIGHESTMODSEQ")

Numbers = dict[str, int]


@dataclass(slots=True)
class Notify:
    """One session's. ``others``: whether it is told of mailboxes besides the selected one; ``told`` what of them."""

    others: bool = False
    mute: bool = False
    overflow: bool = False
    told: dict[str, Numbers] = field(default_factory=dict)

    def set(
        self, line: bytes, mailboxes: Mapping[str, FakeMailbox], selected: FakeMailbox | None, covered: frozenset[str]
    ) -> list[bytes]:
        """NOTIFY SET; the STATUS responses it asks for. ``covered``: of which mailboxes the server would tell."""
        self.others, self.mute = b"(PERSONAL (" in line, False
        assert b"(SELECTED-DELAYED (MessageNew MessageExpunge FlagChange))" in line, line
        self.told = {path: _numbers(one) for path, one in mailboxes.items() if path in covered} if self.others else {}
        wanted = self.told if b" STATUS " in line else {}
        return [
            _status(mailboxes[path], numbers) for path, numbers in wanted.items() if mailboxes[path] is not selected
        ]

    def news(
        self, mailboxes: Mapping[str, FakeMailbox], selected: FakeMailbox | None, of_selected: list[bytes]
    ) -> list[bytes]:
        """What the session is told now, ``of_selected`` where it is not mute."""
        if self.overflow:
            self.overflow, self.mute = False, True
            return [b"* OK [NOTIFICATIONOVERFLOW] too much to tell\r\n"]
        if self.mute:
            return []
        out = list(of_selected)
        if not self.others:
            return out
        for path in [path for path in self.told if path not in mailboxes]:
            del self.told[path]
            out.append(b'* LIST (\\NonExistent) "/" "%s"\r\n' % path.encode())
        for path, mailbox in mailboxes.items():
            before, now = self.told.get(path), _numbers(mailbox)
            self.told[path] = now
            if before is None:
                out.append(b'* LIST () "/" "%s"\r\n' % path.encode())
            elif before != now and mailbox is not selected:
                changed = {name: value for name, value in now.items() if before[name] != value}
                out.append(_status(mailbox, changed))
        return out


def _numbers(mailbox: FakeMailbox) -> Numbers:
    return {item: mailbox.status(item) for item in _ITEMS}


def _status(mailbox: FakeMailbox, numbers: Numbers) -> bytes:
    values = " ".join(f"{name} {value}" for name, value in numbers.items())
    return b'* STATUS "%s" (%s)\r\n' % (mailbox.path.encode(), values.encode())
