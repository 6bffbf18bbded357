"""Which mailboxes an account has, and how each stands: the first question of every pass.

All that LIST shows and that can be selected is the account's: its own mailboxes and those that others share with it.

With LIST-STATUS (RFC 5819) one command answers both parts. Without it the list is kept and only STATUS is asked, so a
pass is one round trip there too; the list is asked for anew after a reconnect, on request, and every few passes.

Law: a mailbox that LIST leaves out, or calls a mere name, is gone only if STATUS refuses it as well, and not just for
now (absence is not deletion, design §4.5). One that STATUS still knows is synced like the others: a server may hide
what we may read (RFC 4314 §4, right ``l``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import structlog

from mailmill.errors import CommandError, ConfigurationError, ProtocolError
from mailmill.imap.connection import ImapConnection, ListedMailbox
from mailmill.model import INBOX, MailboxRef, MailboxStatus
from mailmill.store import messages as store
from mailmill.store.messages import MailboxRow
from mailmill.sync.context import SyncContext

_PASSES_PER_LIST = 12
# Refusals that say "not now" (RFC 5530 §3, RFC 9051 §7.1) rather than "not you".
NOT_NOW = frozenset({"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "CONTACTADMIN", "OVERQUOTA"})

States = dict[str, MailboxStatus | None]


class MailboxList:
    """The mailboxes that are to be synced, by path; ``rows`` are as last committed.

    ``odd_names``: names on the wire that are not the encoding of their path, for connections that have not listed.
    """

    def __init__(self, context: SyncContext, globs: Sequence[str]) -> None:
        self._context = context
        self._wanted = [_pattern(glob) for glob in globs]
        self._globs = tuple(globs)
        self._passes_left = 0
        self._held: dict[str, MailboxRow] = {}
        self.rows: dict[str, MailboxRow] = {}
        self.odd_names: Mapping[str, bytes] = {}
        self._log = structlog.get_logger("mailmill.sync").bind(account=context.account)

    def forget(self) -> None:
        """Ask the server and read the store again, next time."""
        self.expire()
        self._held.clear()
        self.rows.clear()

    def expire(self) -> None:
        """Ask the server for the list again, next time."""
        self._passes_left = 0

    def wants(self, path: str) -> bool:
        """Whether a mailbox of this name is to be synced, be it there or not."""
        return self._is_wanted(path)

    def drop(self, path: str) -> None:
        """What is remembered of a mailbox may not be so any more: the next pass reads the store again."""
        self.rows.pop(path, None)
        self._held.clear()
        self.expire()

    async def recall(self) -> None:
        """Take the store's word for which mailboxes there are, where the server has not been asked yet."""
        if not self.rows:
            async with self._context.database.read() as reader:
                self._held = {row.path: row for row in await store.list_mailboxes(reader, self._context.account_id)}
            self.rows = {path: row for path, row in self._held.items() if self._is_wanted(path)}

    async def look(self, connection: ImapConnection) -> States:
        """Bring ``rows`` to what the server lists; returns each wanted mailbox's status (None: it would not say)."""
        connection.learn_names(self.odd_names)
        if not connection.features.list_status and self._passes_left > 0:
            self._passes_left -= 1
            paths = [path for path, row in self.rows.items() if row.selectable]
            states = dict(zip(paths, await connection.statuses(paths), strict=True))
            if None not in states.values():
                return states
            # One is gone, or a mere name by now.
        listed = await connection.list_status()
        self._passes_left = _PASSES_PER_LIST
        self.odd_names = connection.odd_names
        states = {item.mailbox.path: item.status for item in listed}
        return states | await self._take(connection, listed)

    async def _take(self, connection: ImapConnection, listed: Sequence[ListedMailbox]) -> States:
        """Bring ``rows`` to what is ``listed``; returns the states of those that are there all the same."""
        context = self._context
        if not listed:
            # There is an INBOX at least (RFC 9051 §5.1). Believed, it would end a first sync that never began, and the
            # history that shows up later would pass for new mail.
            raise ProtocolError("the server lists no mailboxes at all", hint="it should be well again in a while")
        if not self._held:
            async with context.database.read() as reader:
                self._held = {row.path: row for row in await store.list_mailboxes(reader, context.account_id)}
        refs = {item.mailbox.path: item.mailbox for item in listed}
        hidden = await self._hidden(connection, refs)
        refs |= {path: self._held[path].ref for path in hidden}
        # A mailbox that the configuration has just left out is not deleted: it stays as it was and is synced no more.
        kept = [ref for path, ref in refs.items() if self._is_wanted(path) or path in self._held]
        if not any(self._is_wanted(path) for path in refs):
            raise ConfigurationError(
                f"no mailbox of account {context.account!r} matches {', '.join(self._globs)}",
                hint="`mailmill account check` counts the mailboxes; correct accounts.NAME.mailboxes",
            )
        if {_shape(ref) for ref in kept} != {_shape(row.ref) for row in self._held.values()}:
            try:
                async with context.database.write() as writer:
                    rows = await store.apply_mailbox_list(writer, context.account_id, kept, context.clock())
            finally:
                context.holdings.lost_places()
            self._held = {row.path: row for row in rows}
        self.rows = {path: self._as_listed(path, row) for path, row in self._held.items() if self._is_wanted(path)}
        return hidden

    def _as_listed(self, path: str, row: MailboxRow) -> MailboxRow:
        known = self.rows.get(path)
        return known if known is not None and known.id == row.id and known.ref == row.ref else row

    async def _hidden(self, connection: ImapConnection, refs: Mapping[str, MailboxRef]) -> States:
        """Those of our mailboxes that the list leaves out, or says hold no mail, though STATUS does not deny them."""
        hidden: States = {}
        for path, row in self._held.items():
            if row.selectable and (path not in refs or not refs[path].selectable):
                try:
                    hidden[path] = await connection.status(path)
                except CommandError as error:
                    if error.status != "NO" or error.response_code in NOT_NOW:
                        hidden[path] = None
        if hidden:
            shown = ", ".join(sorted(hidden)[:10])
            self._log.info("the server's list leaves out mailboxes that are there", mailboxes=shown, count=len(hidden))
        return hidden

    def _is_wanted(self, path: str) -> bool:
        return any(pattern.fullmatch(path) for pattern in self._wanted)


def _pattern(glob: str) -> re.Pattern[str]:
    """``*`` stands for anything, ``?`` for one character; all else, brackets too (``[Gmail]``), for itself."""
    name = INBOX if glob.upper() == INBOX else glob
    parts = ({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in name)
    return re.compile("".join(parts), re.DOTALL)


def _shape(ref: MailboxRef) -> tuple[str, str | None, str | None, bool]:
    return (ref.path, ref.delimiter, ref.special_use, ref.selectable)
