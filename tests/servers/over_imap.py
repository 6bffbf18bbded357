"""What another client does to a server's mail, over IMAP: for servers that nothing but IMAP reaches.

Plain ``imaplib`` in a thread, so that nothing of ours is on both sides. Each call is a session of its own and is done
when it returns. The calls are those of ``servers.mail_server.MailServer``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import imaplib
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from mailmill.model import Credentials

T = TypeVar("T")

_LISTED = re.compile(rb'\((?P<attributes>[^)]*)\) (?:"[^"]*"|NIL) (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<atom>\S+))$')
_FETCHED = re.compile(rb"UID (\d+)")
_FLAGS = re.compile(rb"FLAGS \(([^)]*)\)")

# imaplib's own list of commands is older than RFC 6851.
imaplib.Commands.setdefault("MOVE", ("SELECTED",))


class OverImap(ABC):
    """Needs ``host``, ``port`` (in the clear) and ``credentials``."""

    host: str
    port: int

    @abstractmethod
    def credentials(self, user: str) -> Credentials: ...

    # -- mail ---------------------------------------------------------------------------------------------------------

    async def add_message(
        self, user: str, mailbox: str, raw: bytes, flags: Iterable[str] = (), *, internal_date: float | None = None
    ) -> None:
        """See ``add_messages``."""
        await self.add_messages(user, mailbox, [raw], flags, internal_date=internal_date)

    async def add_messages(
        self,
        user: str,
        mailbox: str,
        raws: Iterable[bytes],
        flags: Iterable[str] = (),
        *,
        internal_date: float | None = None,
    ) -> None:
        """Append messages in order. ``internal_date`` is seconds since the epoch, now by default. The mailbox is
        created where it is missing.
        """
        await asyncio.to_thread(self.fill, user, mailbox, raws, flags, internal_date=internal_date)

    def fill(
        self,
        user: str,
        mailbox: str,
        raws: Iterable[bytes],
        flags: Iterable[str] = (),
        *,
        internal_date: float | None = None,
    ) -> None:
        """``add_messages`` for code that runs outside of an event loop (fixtures, benchmarks)."""
        with self._session(user) as client:
            if client.select(quoted(mailbox), readonly=True)[0] != "OK":
                expect_ok(client.create(quoted(mailbox)))
            for raw in raws:
                _append(client, mailbox, raw, flags, internal_date)

    async def append(self, user: str, mailbox: str, raw: bytes, flags: Iterable[str] = ()) -> int:
        """Returns the new UID."""
        return await self._as(user, lambda client: _append(client, mailbox, raw, flags))

    async def set_flags(
        self, user: str, mailbox: str, query: str, flags: Iterable[str], *, action: str = "add"
    ) -> None:
        """Add, remove or replace flags and keywords on what an IMAP search finds (``all``, ``uid 3``)."""
        item = {"add": "+FLAGS", "remove": "-FLAGS", "replace": "FLAGS"}[action]
        await self._on_found(user, mailbox, query, "STORE", item, f"({' '.join(flags)})")

    async def expunge(self, user: str, mailbox: str, query: str = "all") -> None:
        def run(client: imaplib.IMAP4) -> None:
            if uids := _found(client, mailbox, query):
                expect_ok(client.uid("STORE", uids, "+FLAGS.SILENT", r"(\Deleted)"))
                expect_ok(client.uid("EXPUNGE", uids))

        await self._as(user, run)

    async def move(self, user: str, source: str, target: str, query: str = "all") -> None:
        await self._on_found(user, source, query, "MOVE", quoted(target))

    async def copy(self, user: str, source: str, target: str, query: str = "all") -> None:
        await self._on_found(user, source, query, "COPY", quoted(target))

    # -- mailboxes ----------------------------------------------------------------------------------------------------

    async def create_mailbox(self, user: str, mailbox: str) -> None:
        await self._as(user, lambda client: expect_ok(client.create(quoted(mailbox))))

    async def rename_mailbox(self, user: str, old: str, new: str) -> None:
        await self._as(user, lambda client: expect_ok(client.rename(quoted(old), quoted(new))))

    async def delete_mailbox(self, user: str, mailbox: str) -> None:
        await self._as(user, lambda client: expect_ok(client.delete(quoted(mailbox))))

    # -- what the server holds ----------------------------------------------------------------------------------------

    async def status(self, user: str, mailbox: str, field: str = "messages") -> int:
        """One number of STATUS: messages, uidvalidity, uidnext, unseen, and highestmodseq where the server has it."""

        def run(client: imaplib.IMAP4) -> int:
            kind, answer = client.status(quoted(mailbox), f"({field.upper()})")
            found = re.search(rf"{field} (\d+)", repr(answer), re.IGNORECASE)
            assert kind == "OK" and found, answer
            return int(found[1])

        return await self._as(user, run)

    async def flags(self, user: str, mailbox: str) -> dict[int, frozenset[str]]:
        """UID → flags of every message: the truth that a store is compared with."""

        def run(client: imaplib.IMAP4) -> dict[int, frozenset[str]]:
            kind, answer = client.select(quoted(mailbox), readonly=True)
            assert kind == "OK", answer
            lines = client.uid("FETCH", "1:*", "(UID FLAGS)")[1] if int(answer[0] or 0) else []
            held = {}
            for line in lines:
                uid, flags = _FETCHED.search(line), _FLAGS.search(line)
                # A server may tell of another client's change in between, without a UID.
                if uid is not None and flags is not None:
                    held[int(uid[1])] = frozenset(flags[1].decode().split()) - {r"\Recent"}
            return held

        return await self._as(user, run)

    async def mailboxes(self, user: str) -> list[str]:
        return await self._as(user, listed)

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _on_found(self, user: str, mailbox: str, query: str, command: str, *arguments: str) -> None:
        def run(client: imaplib.IMAP4) -> None:
            if uids := _found(client, mailbox, query):
                expect_ok(client.uid(command, uids, *arguments))

        await self._as(user, run)

    async def _as(self, user: str, work: Callable[[imaplib.IMAP4], T]) -> T:
        def run() -> T:
            with self._session(user) as client:
                return work(client)

        return await asyncio.to_thread(run)

    @contextlib.contextmanager
    def _session(self, user: str) -> Iterator[imaplib.IMAP4]:
        who = self.credentials(user)
        with imaplib.IMAP4(self.host, self.port, timeout=30) as client:
            # imaplib sends the end of a literal by itself: under Nagle's algorithm it waits 40 ms for the server's ACK.
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            expect_ok(client.login(who.username, who.password))
            yield client


def listed(client: imaplib.IMAP4) -> list[str]:
    """Names of the mailboxes that can be selected, decoded. Blocks."""
    names = []
    for line in client.list()[1]:
        found = _LISTED.search(line) if isinstance(line, bytes) else None
        assert found is not None, line
        attributes = found["attributes"].lower()
        if rb"\noselect" not in attributes and rb"\nonexistent" not in attributes:
            quoted_name = found["quoted"]
            encoded = re.sub(rb"\\(.)", rb"\1", quoted_name) if quoted_name is not None else found["atom"]
            names.append(_decoded(encoded.decode("ascii")))
    return names


def quoted(mailbox: str) -> str:
    """A mailbox name as IMAP4rev1 writes it: modified UTF-7 (RFC 3501 §5.1.3) in quotes."""

    def encode(run: re.Match[str]) -> str:
        if run[0] == "&":
            return "&-"
        return "&" + base64.b64encode(run[0].encode("utf-16-be")).decode().rstrip("=").replace("/", ",") + "-"

    encoded = re.sub(r"&|[^\x20-\x7e]+", encode, mailbox)
    return '"' + encoded.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _decoded(name: str) -> str:
    def decode(run: re.Match[str]) -> str:
        if not run[1]:
            return "&"
        padded = run[1].replace(",", "/") + "=" * (-len(run[1]) % 4)
        return base64.b64decode(padded).decode("utf-16-be")

    return re.sub(r"&([^-]*)-", decode, name)


def expect_ok(answer: tuple[str, Any]) -> None:
    if answer[0] != "OK":
        raise RuntimeError(f"the server refused: {answer}")


def _found(client: imaplib.IMAP4, mailbox: str, query: str) -> str:
    expect_ok(client.select(quoted(mailbox)))
    kind, answer = client.uid("SEARCH", *query.split())
    assert kind == "OK", answer
    return b",".join((answer[0] or b"").split()).decode()


def _append(
    client: imaplib.IMAP4, mailbox: str, raw: bytes, flags: Iterable[str], internal_date: float | None = None
) -> int:
    # imaplib writes None for "no date", its stubs want a string.
    when = imaplib.Time2Internaldate(internal_date) if internal_date is not None else ""
    kind, answer = client.append(quoted(mailbox), f"({' '.join(flags)})", when, raw)
    text = b" ".join(part for part in answer if isinstance(part, bytes)).decode(errors="replace")
    found = re.search(r"APPENDUID \d+ (\d+)", text)
    if kind != "OK" or not found:
        raise RuntimeError(f"APPEND to {mailbox}: {kind} {text}")
    return int(found[1])
