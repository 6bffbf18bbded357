"""Another mail client of the same account: plain ``imaplib``, in a thread, so that nothing of ours is on both sides."""

from __future__ import annotations

import asyncio
import imaplib
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from harness import truth

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
                _expect_ok(client.append(_quoted(mailbox), f"({' '.join(flags)})", "", raw))

        await self._run(run)

    async def set_flags(self, mailbox: str, uids: str, *flags: str, action: str = "FLAGS") -> None:
        """``action``: ``FLAGS`` replaces, ``+FLAGS`` adds, ``-FLAGS`` removes."""
        await self._uid(mailbox, "STORE", uids, action, f"({' '.join(flags)})")

    async def copy(self, source: str, uids: str, target: str) -> None:
        await self._uid(source, "COPY", uids, _quoted(target))

    async def move(self, source: str, uids: str, target: str) -> None:
        await self._uid(source, "MOVE", uids, _quoted(target))

    async def expunge(self, mailbox: str, uids: str) -> None:
        def run(client: imaplib.IMAP4) -> None:
            _expect_ok(client.select(_quoted(mailbox)))
            _expect_ok(client.uid("STORE", uids, "+FLAGS", r"(\Deleted)"))
            _expect_ok(client.expunge())

        await self._run(run)

    async def create(self, mailbox: str) -> None:
        await self._run(lambda client: _expect_ok(client.create(_quoted(mailbox))))

    async def delete(self, mailbox: str) -> None:
        def run(client: imaplib.IMAP4) -> None:
            # A session whose own mailbox goes is cut.
            _expect_ok(client.select("INBOX"))
            _expect_ok(client.delete(_quoted(mailbox)))

        await self._run(run)

    async def truth(self) -> dict[str, dict[int, tuple[frozenset[str], bytes]]]:
        """All that the server holds: path → UID → flags and raw message."""
        return await self._run(truth.on_server)

    async def _uid(self, mailbox: str, command: str, *arguments: str) -> None:
        def run(client: imaplib.IMAP4) -> None:
            _expect_ok(client.select(_quoted(mailbox)))
            _expect_ok(client.uid(command, *arguments))

        await self._run(run)

    async def _run(self, work: Callable[[imaplib.IMAP4], T]) -> T:
        assert self._client is not None
        return await asyncio.to_thread(work, self._client)

    def _open(self) -> None:
        # imaplib's own list of commands is older than RFC 6851.
        imaplib.Commands.setdefault("MOVE", ("SELECTED",))
        self._client = imaplib.IMAP4(*self._where, timeout=30)
        self._client.login(*self._who)


def _quoted(mailbox: str) -> str:
    return '"' + mailbox.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _expect_ok(answer: tuple[str, Any]) -> None:
    if answer[0] != "OK":
        raise RuntimeError(f"the server refused: {answer}")
