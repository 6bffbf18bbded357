"""What a server says that no command asked for: of which mailboxes, and whether it stopped telling (RFC 5465). Pure.

Two sources, one record. Of the selected mailbox every server tells (EXISTS, EXPUNGE, VANISHED, FETCH). Of the others a
server with NOTIFY tells, once asked: STATUS where messages came, went or changed flags, LIST where a mailbox was made,
renamed or deleted.

Laws:

- News is of the mailbox that was selected when it came, whatever is selected when somebody looks.
- A SELECT shows a mailbox as it is: what was told about it before is no news any more.
- After NOTIFICATIONOVERFLOW the server says nothing at all, not even of the selected mailbox (RFC 5465: as after
  NOTIFY NONE, and Dovecot means it: neither IDLE nor NOOP bring an EXISTS then).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mailmill.imap.responses import StatusData

# More mailboxes than this told of between two looks, and all are looked at.
_MOST_TOLD = 1000


@dataclass(frozen=True, slots=True)
class Told:
    """What the server said unasked since the last look. Falsy where it said nothing.

    ``paths``: mailboxes in which something happened. ``numbers``: what STATUS said of some of them last, upper-case
    item to number; a server may name only what changed. ``list_changed``: a mailbox was made, renamed or deleted, or
    nobody can tell what happened: look at everything. ``overflow``: the server tells no more, until asked to again.
    """

    paths: frozenset[str] = frozenset()
    list_changed: bool = False
    overflow: bool = False
    numbers: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))

    def __bool__(self) -> bool:
        return bool(self.paths or self.list_changed or self.overflow)


class News:
    """Collects it. Bounded: of too many mailboxes at once it keeps only that there were too many."""

    __slots__ = ("_list_changed", "_overflow", "_paths")

    def __init__(self) -> None:
        self._paths: dict[str, dict[str, int]] = {}
        self._list_changed = False
        self._overflow = False

    def __bool__(self) -> bool:
        return bool(self._paths or self._list_changed or self._overflow)

    def of(self, path: str) -> None:
        """Something happened in ``path``; what STATUS said of it before is out of date."""
        if path not in self._paths and len(self._paths) >= _MOST_TOLD:
            self._paths.clear()
            self._list_changed = True
        self._paths[path] = {}

    def status(self, data: StatusData) -> None:
        earlier = self._paths.get(data.path, {})
        self.of(data.path)
        self._paths[data.path] = {**earlier, **data.items}

    def list_changed(self) -> None:
        self._list_changed = True

    def overflow(self) -> None:
        self._overflow = True

    def has(self, path: str) -> bool:
        return path in self._paths

    def seen(self, path: str) -> None:
        """``path`` was selected: it is as it shows."""
        self._paths.pop(path, None)

    def take(self) -> Told:
        """All of it; what comes from here on is new."""
        told = Told(frozenset(self._paths), self._list_changed, self._overflow, MappingProxyType(self._paths))
        self._paths, self._list_changed, self._overflow = {}, False, False
        return told
