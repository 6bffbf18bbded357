"""What a test may ask of any mail server, and in what the servers differ.

Fixtures ``any_server`` and ``own_server`` (tests/conftest.py) run a test on Dovecot in three tiers, Cyrus and pymap. A
test that takes one of them never asks which it is: where servers differ in what they can do, it goes by ``traits``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from mailmill.model import Credentials, Endpoint

Tier = Literal["qresync", "condstore", "plain"]


@dataclass(frozen=True, slots=True)
class Traits:
    """``tier`` is what the server announces. What else a test has to know, and why:

    - ``idle_misses_what_came_before``: a change between the last command and IDLE is told to nobody (pymap), so only
      the poll guarantees that it is seen.
    - ``forgets_when_stopped``: mail lives in memory (pymap); after a restart everything is of another generation.
    """

    tier: Tier
    idle_misses_what_came_before: bool = False
    forgets_when_stopped: bool = False


class MailServer(Protocol):
    """A running server. Users appear at their first login, empty, with an INBOX. What another client or a delivery does
    is done when the call returns. ``query`` is an IMAP search (``all``, ``uid 3:5``).
    """

    host: str
    port: int

    @property
    def traits(self) -> Traits: ...

    def endpoint(self) -> Endpoint: ...
    def credentials(self, user: str) -> Credentials: ...
    def new_user(self) -> str: ...
    async def restart(self) -> None: ...

    async def add_message(self, user: str, mailbox: str, raw: bytes, flags: Iterable[str] = ()) -> None: ...
    async def add_messages(self, user: str, mailbox: str, raws: Iterable[bytes], flags: Iterable[str] = ()) -> None: ...
    async def append(self, user: str, mailbox: str, raw: bytes, flags: Iterable[str] = ()) -> int: ...
    async def set_flags(
        self, user: str, mailbox: str, query: str, flags: Iterable[str], *, action: str = "add"
    ) -> None: ...
    async def expunge(self, user: str, mailbox: str, query: str = "all") -> None: ...
    async def move(self, user: str, source: str, target: str, query: str = "all") -> None: ...
    async def copy(self, user: str, source: str, target: str, query: str = "all") -> None: ...

    async def create_mailbox(self, user: str, mailbox: str) -> None: ...
    async def rename_mailbox(self, user: str, old: str, new: str) -> None: ...
    async def delete_mailbox(self, user: str, mailbox: str) -> None: ...

    async def status(self, user: str, mailbox: str, field: str = "messages") -> int: ...
    async def flags(self, user: str, mailbox: str) -> dict[int, frozenset[str]]: ...
    async def mailboxes(self, user: str) -> list[str]: ...
