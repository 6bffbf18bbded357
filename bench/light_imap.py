"""An IMAP server for thousands of idle accounts: mail in memory, no disk, a few kilobytes for a connection.

Dovecot starts a process for each connection (5 MB), which a thousand accounts on a small machine would not leave room
for. This one answers what a mail client needs (QRESYNC, LIST-STATUS, IDLE, APPEND with LITERAL+) and notifies at once.
Any user may log in with any password, and has INBOX, Archive, Drafts and Sent.

``python -m bench.light_imap [MESSAGES]``: each INBOX begins with so many small messages. It announces ``{"port": …}``
on stdout and runs until its stdin ends.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field

import uvloop

from bench import corpus
from mailmill.uid_set import UidSet

_CAPABILITIES = (
    b"IMAP4rev1 LITERAL+ ID ENABLE IDLE UIDPLUS ESEARCH CONDSTORE QRESYNC LIST-STATUS SPECIAL-USE UNSELECT NAMESPACE"
)
_MAILBOXES = (("INBOX", ""), ("Archive", "\\Archive"), ("Drafts", "\\Drafts"), ("Sent", "\\Sent"))
_DATE = b'"21-Nov-2026 10:00:00 +0000"'

_FETCH = re.compile(rb"(\S+) \(([^)]*)\)(?: \(CHANGEDSINCE (\d+)( VANISHED)?\))?", re.IGNORECASE)
_SEARCH = re.compile(rb"(RETURN \([^)]*\) )?(?:UID (\S+)|ALL)", re.IGNORECASE)
_STATUS_ITEMS = re.compile(rb"STATUS \(([^)]*)\)", re.IGNORECASE)
_APPEND = re.compile(rb'(\S+) APPEND "?([^" ]+)"?.*\{(\d+)\+\}$', re.IGNORECASE)


@dataclass(eq=False)
class _Mailbox:
    """Messages by UID, which begin at 1 and have no holes: nothing is ever expunged here."""

    path: str
    special_use: str
    messages: list[bytes] = field(default_factory=list)
    watchers: set[_Session] = field(default_factory=set)

    @property
    def mod_seq(self) -> int:
        return len(self.messages) + 1

    def status(self, items: bytes) -> bytes:
        values = {
            b"MESSAGES": len(self.messages),
            b"UIDNEXT": len(self.messages) + 1,
            b"UIDVALIDITY": 7,
            b"HIGHESTMODSEQ": self.mod_seq,
            b"UNSEEN": len(self.messages),
            b"RECENT": 0,
        }
        return b" ".join(b"%s %d" % (item, values[item]) for item in items.upper().split() if item in values)


@dataclass(eq=False)
class _Account:
    mailboxes: dict[str, _Mailbox]
    # The same question has the same answer until mail comes.
    listings: dict[bytes, bytes] = field(default_factory=dict)


class _Server:
    def __init__(self, messages: int) -> None:
        first = [corpus.small(number) for number in range(messages)]
        self.accounts: defaultdict[bytes, _Account] = defaultdict(lambda: _new_account(first))


def _new_account(first: list[bytes]) -> _Account:
    account = _Account({path: _Mailbox(path, use) for path, use in _MAILBOXES})
    account.mailboxes["INBOX"].messages.extend(first)
    return account


class _Session(asyncio.Protocol):
    """One connection. What one read brings is answered in one write."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._buffer = b""
        self._out: list[bytes] = []
        self._account: _Account | None = None
        self._selected: _Mailbox | None = None
        self._told = 0
        self._idle = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is one in all but bases
        self._transport.write(b"* OK [CAPABILITY " + _CAPABILITIES + b"] light\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._select(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n")) >= 0:
            line = self._buffer[:end]
            append = _APPEND.match(line) if line.endswith(b"+}") else None
            if append is not None:
                stop = end + 2 + int(append[3])
                if len(self._buffer) < stop + 2:
                    break
                raw, self._buffer = self._buffer[end + 2 : stop], self._buffer[stop + 2 :]
                self._append(append[1], append[2].decode(), raw)
                continue
            self._buffer = self._buffer[end + 2 :]
            self._answer(line)
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def tell(self) -> None:
        """The selected mailbox has grown: said at once while idling, else at the end of the next command."""
        if self._idle and self._news():
            self._transport.write(b"".join(self._out))
            self._out.clear()

    # -- commands -----------------------------------------------------------------------------------------------------

    def _answer(self, line: bytes) -> None:
        if self._idle:
            tag, self._idle = self._idle, b""
            self._end(tag, b"IDLE")
            return
        tag, _, rest = line.partition(b" ")
        verb, _, arguments = rest.partition(b" ")
        verb = verb.upper()
        if verb == b"UID":
            second, _, arguments = arguments.partition(b" ")
            verb += b" " + second.upper()
        match verb:
            case b"LOGIN":
                self._account = self._server.accounts[arguments.split()[0].strip(b'"')]
                self._out.append(tag + b" OK [CAPABILITY " + _CAPABILITIES + b"] welcome\r\n")
                return
            case b"IDLE":
                self._idle = tag
                self._out.append(b"+ idling\r\n")
                self._news()
                return
            case b"LIST":
                self._list(arguments)
            case b"STATUS":
                path, _, items = arguments.partition(b" ")
                mailbox = self._mailbox(path)
                if mailbox is None:
                    self._out.append(tag + b" NO no such mailbox\r\n")
                    return
                self._out.append(b"* STATUS %s (%s)\r\n" % (path, mailbox.status(items.strip(b"()"))))
            case b"SELECT" | b"EXAMINE":
                self._examine(tag, arguments)
                return
            case b"UNSELECT":
                self._select(None)
            case b"UID FETCH":
                self._fetch(arguments)
            case b"UID SEARCH":
                self._search(tag, arguments)
            case b"ENABLE":
                self._out.append(b"* ENABLED " + arguments + b"\r\n")
            case b"ID":
                self._out.append(b'* ID ("name" "light")\r\n')
            case b"CAPABILITY":
                self._out.append(b"* CAPABILITY " + _CAPABILITIES + b"\r\n")
            case b"NAMESPACE":
                self._out.append(b'* NAMESPACE (("" "/")) NIL NIL\r\n')
            case b"NOOP":
                pass
            case b"LOGOUT":
                self._out.append(b"* BYE so long\r\n" + tag + b" OK done\r\n")
                self._transport.write(b"".join(self._out))
                self._out.clear()
                self._transport.close()
                return
            case _:
                self._out.append(tag + b" BAD not known here\r\n")
                return
        self._end(tag, verb)

    def _end(self, tag: bytes, verb: bytes) -> None:
        self._news()
        self._out.append(tag + b" OK " + verb + b" done\r\n")

    def _news(self) -> bool:
        mailbox = self._selected
        if mailbox is None or self._told == len(mailbox.messages):
            return False
        self._told = len(mailbox.messages)
        self._out.append(b"* %d EXISTS\r\n" % self._told)
        return True

    def _mailbox(self, path: bytes) -> _Mailbox | None:
        assert self._account is not None
        return self._account.mailboxes.get(path.strip(b'"').decode())

    def _list(self, arguments: bytes) -> None:
        assert self._account is not None
        answer = self._account.listings.get(arguments)
        if answer is None:
            wanted = _STATUS_ITEMS.search(arguments)
            lines = []
            for mailbox in self._account.mailboxes.values():
                path = mailbox.path.encode()
                attributes = f"\\HasNoChildren {mailbox.special_use}".strip().encode()
                lines.append(b'* LIST (%s) "/" %s\r\n' % (attributes, path))
                if wanted is not None:
                    lines.append(b"* STATUS %s (%s)\r\n" % (path, mailbox.status(wanted[1])))
            answer = self._account.listings[arguments] = b"".join(lines)
        self._out.append(answer)

    def _select(self, mailbox: _Mailbox | None) -> None:
        if self._selected is not None:
            self._selected.watchers.discard(self)
        self._selected = mailbox
        if mailbox is not None:
            mailbox.watchers.add(self)
            self._told = len(mailbox.messages)

    def _examine(self, tag: bytes, arguments: bytes) -> None:
        if self._selected is not None:
            self._out.append(b"* OK [CLOSED] the other one\r\n")
        mailbox = self._mailbox(arguments.split(b" (")[0])
        self._select(mailbox)
        if mailbox is None:
            self._out.append(tag + b" NO [NONEXISTENT] no such mailbox\r\n")
            return
        self._out.append(
            b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n"
            b"* %d EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 7] valid\r\n* OK [UIDNEXT %d] next\r\n"
            b"* OK [HIGHESTMODSEQ %d] highest\r\n%s OK [READ-ONLY] selected\r\n"
            % (len(mailbox.messages), len(mailbox.messages) + 1, mailbox.mod_seq, tag)
        )

    def _fetch(self, arguments: bytes) -> None:
        found = _FETCH.match(arguments)
        mailbox = self._selected
        if found is None or mailbox is None:
            return
        items = found[2].upper().split()
        since = int(found[3] or 0)
        held = UidSet.span(1, len(mailbox.messages))
        for uid in UidSet.parse(found[1].replace(b"*", b"%d" % len(mailbox.messages)).decode()) & held:
            # The mod-sequence of a message is its UID plus one: each arrived by itself.
            if uid + 1 <= since:
                continue
            raw = mailbox.messages[uid - 1]
            values = [b"UID %d" % uid]
            for item in items:
                if item == b"FLAGS":
                    values.append(b"FLAGS ()")
                elif item == b"MODSEQ":
                    values.append(b"MODSEQ (%d)" % (uid + 1))
                elif item == b"RFC822.SIZE":
                    values.append(b"RFC822.SIZE %d" % len(raw))
                elif item == b"INTERNALDATE":
                    values.append(b"INTERNALDATE " + _DATE)
                elif item == b"BODY.PEEK[]":
                    values.append(b"BODY[] {%d}\r\n%s" % (len(raw), raw))
            self._out.append(b"* %d FETCH (%s)\r\n" % (uid, b" ".join(values)))

    def _search(self, tag: bytes, arguments: bytes) -> None:
        found = _SEARCH.match(arguments)
        if found is None or self._selected is None:
            return
        uids = UidSet.span(1, len(self._selected.messages))
        if found[2] is not None:
            uids = uids & UidSet.parse(found[2].decode())
        if found[1]:
            self._out.append(b'* ESEARCH (TAG "%s") UID%s\r\n' % (tag, f" ALL {uids}".encode() if uids else b""))
        else:
            self._out.append(b"* SEARCH" + b"".join(b" %d" % uid for uid in uids) + b"\r\n")

    def _append(self, tag: bytes, path: str, raw: bytes) -> None:
        assert self._account is not None
        mailbox = self._account.mailboxes[path]
        mailbox.messages.append(raw)
        self._account.listings.clear()
        for watcher in mailbox.watchers:
            watcher.tell()
        self._news()
        self._out.append(tag + b" OK [APPENDUID 7 %d] done\r\n" % len(mailbox.messages))


async def main(messages: int) -> None:
    loop = asyncio.get_running_loop()
    server = _Server(messages)
    listening = await loop.create_server(lambda: _Session(server), "127.0.0.1", 0, backlog=4096)
    print(json.dumps({"port": listening.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if sys.argv[1:] else 0))
