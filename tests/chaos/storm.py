"""What goes on while nodes die: other clients change the mail, people ask the nodes for this and that, readers follow.

All of it goes on until it is told to stop, and takes every failure of a node for what it is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx2

from chaos.journal import Journal
from chaos.node import Node
from harness.other_client import OtherClient
from servers.webhook_receiver import Answer, Received

# How far the world outside keeps from having this machine for itself.
PAUSE_SECONDS = 0.15
_PAGE = 200
_MOST_AHEAD = 60
_MOST_BOXES = 3
_WISH_SECONDS = 3.0


def mail(number: int) -> bytes:
    """The same number is the same mail in every account."""
    return (
        f"From: Ann <ann@example.org>\r\nSubject: mail {number}\r\nMessage-ID: <{number}@example.org>\r\n\r\n"
        f"Mail {number}.\r\n".encode()
    )


@dataclass(slots=True)
class OtherClients:
    """Another client of each account, at work: append, flag, move, expunge, mailboxes that come and go."""

    host: str
    port: int
    password: str
    dice: random.Random
    stop: asyncio.Event
    stored: Callable[[], int]
    mail: Callable[[int], bytes] = mail
    sent: int = 0

    async def change(self, user: str) -> None:
        """Until ``stop``, and never far ahead of what is ``stored``: messages told of as new, of all accounts."""
        number = 0
        async with OtherClient(self.host, self.port, user, self.password) as other:
            while not self.stop.is_set():
                if self.sent - self.stored() < _MOST_AHEAD:
                    number += 1
                    await self._one_change(other, number)
                await pause(self.stop, self.dice)

    async def _one_change(self, other: OtherClient, number: int) -> None:
        here = await other.uids("INBOX")
        match self.dice.choice(("append", "append", "flag", "blink", "move", "back", "expunge", "mailbox")):
            case "blink" if here:
                uid = str(self.dice.choice(here))
                await other.set_flags("INBOX", uid, "blink", action="+FLAGS")
                await other.set_flags("INBOX", uid, "blink", action="-FLAGS")
            case "flag" if here:
                await other.set_flags("INBOX", str(self.dice.choice(here)), rf"\Flagged mark{number}")
            case "move" if len(here) > 3:
                await other.move("INBOX", str(self.dice.choice(here)), "Archive")
            case "back" if there := await other.uids("Archive"):
                await other.move("Archive", str(self.dice.choice(there)), "INBOX")
            case "expunge" if len(here) > 3:
                await other.expunge("INBOX", str(self.dice.choice(here)))
            case "mailbox":
                for name in [name for name in await other.mailboxes() if name.startswith("Box ")][_MOST_BOXES:]:
                    await other.delete(name)
                await _create(other, f"Box {number}")
                await other.append(f"Box {number}", self.mail(self._next()))
            case _:
                await other.append("INBOX", *(self.mail(self._next()) for _ in range(self.dice.randint(1, 3))))

    def _next(self) -> int:
        # An account never gets the same mail again: to see whether a message was taken for deleted that only moved.
        self.sent += 1
        return 1000 + self.sent


async def _create(other: OtherClient, mailbox: str) -> None:
    try:
        await other.create(mailbox)
    except RuntimeError as error:
        # Dovecot says so of a mailbox that it is just making, where another session lists them at the same time.
        if "ALREADYEXISTS" not in str(error):
            raise


async def ask(
    nodes: Sequence[Node], accounts: Callable[[], Sequence[str]], dice: random.Random, stop: asyncio.Event
) -> None:
    """People at any node: a pass now, a flag, a move."""
    while not stop.is_set():
        node = dice.choice(nodes)
        account = dice.choice(accounts())
        try:
            async with asyncio.timeout(_WISH_SECONDS):
                await _one_wish(node, account, dice)
        except (httpx2.HTTPError, TimeoutError):
            pass  # it died, or the account's owner did
        await pause(stop, dice)


async def _one_wish(node: Node, account: str, dice: random.Random) -> None:
    if dice.random() < 0.5:
        await node.http.post("/v1/sync", json={"accounts": [account]})
        return
    listed = await node.http.get(f"/v1/account/{account}/messages", params={"path": "INBOX", "pageSize": _PAGE})
    if listed.status_code != 200 or not (messages := listed.json()["messages"]):
        return
    url = f"/v1/account/{account}/message/{dice.choice(messages)['id']}"
    if dice.random() < 0.5:
        await node.http.post(f"{url}/flags", json={"add": [f"wish{dice.randrange(1000)}"]})
    else:
        await node.http.post(f"{url}/move", json={"path": "Archive"})


async def pause(stop: asyncio.Event, dice: random.Random) -> None:
    try:
        async with asyncio.timeout(PAUSE_SECONDS * dice.uniform(0.5, 1.5)):
            await stop.wait()
    except TimeoutError:
        pass


@dataclass(slots=True)
class Receipts:
    """What the webhook receiver answers, and writes down before: now and then the answer is lost, and the same comes
    again."""

    journal: Journal
    dice: random.Random
    stop: asyncio.Event
    seen: set[tuple[str, int | None]] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    _cut: set[str] = field(default_factory=set)

    def answer(self, request: Received) -> Answer:
        body = request.json
        message_id = None if (found := body["data"].get("id")) is None else int(found)
        self.journal.write(
            "received", webhook_id=request.id, envelope_id=body["id"], event=body["event"], message_id=message_id
        )
        self.seen.add((body["event"], message_id))
        self.ids.add(request.id)
        lost = not self.stop.is_set() and request.id not in self._cut and self.dice.random() < 0.02
        if lost:
            self._cut.add(request.id)
        return Answer(cut=lost)


@dataclass(slots=True)
class Follower:
    """A reader of the event log by its cursor, as users read it: by long poll, at whichever node answers.

    ``news``: events that are to be delivered.
    """

    journal: Journal
    nodes: Sequence[Node]
    cursor: int = 0
    new_messages: int = 0
    news: int = 0

    async def follow(self) -> None:
        turn = 0
        while True:
            turn += 1
            node = self.nodes[turn % len(self.nodes)]
            try:
                async with asyncio.timeout(4):
                    answer = await node.http.get("/v1/events", params={"after": self.cursor, "limit": 500, "wait": 2})
                page: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
            except (httpx2.HTTPError, TimeoutError):
                page = None
            if page is None:
                await asyncio.sleep(PAUSE_SECONDS)
            elif page["events"]:
                ids = [int(event["id"].removeprefix("evt_")) for event in page["events"]]
                self.journal.write("read", after=self.cursor, cursor=int(page["cursor"]), events=ids)
                self.cursor = int(page["cursor"])
                self.new_messages += sum(event["event"] == "messageNew" for event in page["events"])
                self.news += sum(not event.get("historical") for event in page["events"])


@dataclass(slots=True)
class Watcher:
    """A reader beside the service, straight from the table: below a number that was seen none may come any more."""

    journal: Journal
    connect: Callable[[], Awaitable[Any]]
    cursor: int = 0
    new_messages: int = 0
    initialized: int = 0
    _connection: Any = field(default=None)

    async def follow(self) -> None:
        try:
            while True:
                try:
                    if self._connection is None:
                        self._connection = await self.connect()
                    await self._read()
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                    self._cut()
                await asyncio.sleep(0.02)
        finally:
            self._cut()

    def _cut(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _read(self) -> None:
        rows = await self._connection.fetch(
            "SELECT seq, id, event FROM event WHERE seq > $1 ORDER BY seq LIMIT 1000", self.cursor, timeout=5
        )
        if rows:
            after, self.cursor = self.cursor, rows[-1]["seq"]
            self.journal.write("read", after=after, cursor=self.cursor, events=[row["id"] for row in rows])
            self.initialized += sum(row["event"] == "accountInitialized" for row in rows)
            self.new_messages += sum(row["event"] == "messageNew" for row in rows)
