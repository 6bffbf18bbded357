"""Another mail client of the same account: plain ``imaplib``, in a thread, so that nothing of ours is on both sides."""

from __future__ import annotations

import asyncio
import imaplib
import socket
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

from harness import truth
from servers.over_imap import expect_ok, listed, quoted

T = TypeVar("T")


class OtherClient:
    """``async with OtherClient(host, port, user, password) as other``. Every change is done when it returns."""

    def __init__(self, host: str, port: int, user: str, password: str) -> None:
        self._where = (host, port)
        self._who = (user, password)
        self._client: imaplib.IMAP4 | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._run(lambda client: client.logout())

    async def append(self, mailbox: str, *raws: bytes, flags: Iterable[str] = ()) -> None:
        def run(client: imaplib.IMAP4) -> None:
            for raw in raws:
                # imaplib writes None for "no date", its stubs want a string.
                expect_ok(client.append(quoted(mailbox), f"({' '.join(flags)})", "", raw))

        await self._run(run)

    async def set_flags(self, mailbox: str, uids: str, *flags: str, action: str = "FLAGS") -> None:
        """``action``: ``FLAGS`` replaces, ``+FLAGS`` adds, ``-FLAGS`` removes."""
        await self._uid(mailbox, "STORE", uids, action, f"({' '.join(flags)})")

    async def copy(self, source: str, uids: str, target: str) -> None:
        await self._uid(source, "COPY", uids, quoted(target))

    async def move(self, source: str, uids: str, target: str) -> None:
        await self._uid(source, "MOVE", uids, quoted(target))

    async def expunge(self, mailbox: str, uids: str) -> None:
        def run(client: imaplib.IMAP4) -> None:
            expect_ok(client.select(quoted(mailbox)))
            expect_ok(client.uid("STORE", uids, "+FLAGS", r"(\Deleted)"))
            expect_ok(client.expunge())

        await self._run(run)

    async def create(self, mailbox: str) -> None:
        await self._run(lambda client: expect_ok(client.create(quoted(mailbox))))

    async def rename(self, mailbox: str, to: str) -> None:
        await self._run(lambda client: expect_ok(client.rename(quoted(mailbox), quoted(to))))

    async def delete(self, mailbox: str) -> None:
        def run(client: imaplib.IMAP4) -> None:
            # A session whose own mailbox goes is cut.
            expect_ok(client.select("INBOX"))
            expect_ok(client.delete(quoted(mailbox)))

        await self._run(run)

    async def mailboxes(self) -> list[str]:
        """The names of all that can be selected."""
        return await self._run(lambda client: listed(client))

    async def uids(self, mailbox: str) -> list[int]:
        """What is there, in order."""

        def run(client: imaplib.IMAP4) -> list[int]:
            expect_ok(client.select(quoted(mailbox)))
            return [int(uid) for uid in (client.uid("SEARCH", "ALL")[1][0] or b"").split()]

        return await self._run(run)

    async def truth(self) -> dict[str, dict[int, tuple[frozenset[str], bytes]]]:
        """All that the server holds: path → UID → flags and raw message."""
        return await self._run(truth.on_server)

    async def _uid(self, mailbox: str, command: str, *arguments: str) -> None:
        def run(client: imaplib.IMAP4) -> None:
            expect_ok(client.select(quoted(mailbox)))
            expect_ok(client.uid(command, *arguments))

        await self._run(run)

    async def _run(self, work: Callable[[imaplib.IMAP4], T]) -> T:
        assert self._client is not None
        return await asyncio.to_thread(work, self._client)

    def _open(self) -> None:
        self._client = imaplib.IMAP4(*self._where, timeout=30)
        # imaplib sends the end of a literal by itself: under Nagle's algorithm it waits 40 ms for the server's ACK.
        self._client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client.login(*self._who)
