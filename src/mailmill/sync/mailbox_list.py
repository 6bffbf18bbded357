"""Which mailboxes an account has, and how each stands: the first question of every pass.

With LIST-STATUS (RFC 5819) one command answers both parts. Without it the list is kept and only STATUS is asked, so a
pass is one round trip there too; the list is asked for anew after a reconnect, on request, and every few passes.

Law: a mailbox that LIST leaves out is gone only if STATUS refuses it as well (absence is not deletion, design §4.5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailmill.errors import ConfigurationError, ProtocolError
from mailmill.imap.connection import ImapConnection, ListedMailbox
from mailmill.model import INBOX, MailboxRef, MailboxStatus
from mailmill.store import messages as store
from mailmill.store.messages import MailboxRow
from mailmill.sync.context import SyncContext

_PASSES_PER_LIST = 12

States = dict[str, MailboxStatus | None]


class MailboxList:
    """The mailboxes that are to be synced, by path; ``rows`` are as last committed."""

    def __init__(self, context: SyncContext, globs: Sequence[str]) -> None:
        self._context = context
        self._wanted = [_pattern(glob) for glob in globs]
        self._globs = tuple(globs)
        self._passes_left = 0
        self._held: dict[str, MailboxRow] = {}
        self.rows: dict[str, MailboxRow] = {}

    def forget(self) -> None:
        """Ask the server and read the store again, next time."""
        self.expire()
        self._held.clear()
        self.rows.clear()

    def expire(self) -> None:
        """Ask the server for the list again, next time."""
        self._passes_left = 0

    def drop(self, path: str) -> None:
        """What is remembered of a mailbox may not be so any more: the next pass reads the store again."""
        self.rows.pop(path, None)
        self._held.clear()
        self.expire()

    async def look(self, connection: ImapConnection) -> States:
        """Bring ``rows`` to what the server lists; returns each wanted mailbox's status (None: it would not say)."""
        if connection.features.list_status or self._passes_left <= 0:
            listed = await connection.list_status()
            self._passes_left = _PASSES_PER_LIST
            await self._take(connection, listed)
            return {item.mailbox.path: item.status for item in listed}
        self._passes_left -= 1
        paths = [path for path, row in self.rows.items() if row.selectable]
        states = dict(zip(paths, await connection.statuses(paths), strict=True))
        if None in states.values():
            self.expire()
        return states

    async def _take(self, connection: ImapConnection, listed: Sequence[ListedMailbox]) -> None:
        context = self._context
        if not listed:
            # There is an INBOX at least (RFC 9051 §5.1). Believed, it would end a first sync that never began, and the
            # history that shows up later would pass for new mail.
            raise ProtocolError("the server lists no mailboxes at all", hint="it should be well again in a while")
        if not self._held:
            async with context.database.read() as reader:
                self._held = {row.path: row for row in await store.list_mailboxes(reader, context.account_id)}
        refs = {item.mailbox.path: item.mailbox for item in listed}
        await self._doubt(connection, [path for path in self._held if path not in refs])
        # A mailbox that the configuration has just left out is not deleted: it stays as it was and is synced no more.
        kept = [ref for path, ref in refs.items() if self._is_wanted(path) or path in self._held]
        if not any(self._is_wanted(path) for path in refs):
            raise ConfigurationError(
                f"no mailbox of account {context.account!r} matches {', '.join(self._globs)}",
                hint="`mailmill account check` counts the mailboxes; correct accounts.NAME.mailboxes",
            )
        if {_shape(ref) for ref in kept} != {_shape(row.ref) for row in self._held.values()}:
            async with context.database.write() as writer:
                rows = await store.apply_mailbox_list(writer, context.account_id, kept, context.clock())
            self._held = {row.path: row for row in rows}
        self.rows = {path: self.rows.get(path, row) for path, row in self._held.items() if self._is_wanted(path)}

    async def _doubt(self, connection: ImapConnection, missing: Sequence[str]) -> None:
        """Raises ProtocolError where a mailbox that LIST left out answers STATUS."""
        paths = [path for path in missing if self._held[path].selectable]
        if not paths:
            return
        for path, status in zip(paths, await connection.statuses(paths), strict=True):
            if status is not None:
                raise ProtocolError(f"the server's list leaves out the mailbox {path!r}, which is there")

    def _is_wanted(self, path: str) -> bool:
        return any(pattern.fullmatch(path) for pattern in self._wanted)


def _pattern(glob: str) -> re.Pattern[str]:
    """``*`` stands for anything, ``?`` for one character; all else, brackets too (``[Gmail]``), for itself."""
    name = INBOX if glob.upper() == INBOX else glob
    parts = ({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in name)
    return re.compile("".join(parts), re.DOTALL)


def _shape(ref: MailboxRef) -> tuple[str, str | None, str | None, bool]:
    return (ref.path, ref.delimiter, ref.special_use, ref.selectable)
