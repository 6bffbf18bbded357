"""One embedded service whose disk is filled and freed over and over, while all of it is in use.

::

    other clients ──▶ Dovecot ◀──▶ service ──▶ SQLite and segments on a small disk     filled to the page, freed again
    people ──────────────────────▶         ──▶ webhook receiver                        killed while there is no room
    a reader ◀───────────────────

The service stands still at one of `PHASES` while its disk is filled, so that each kind of write is the one that finds
no room; or the disk is filled at any moment, but for some pages. It stays full until something was refused for it, and
some time longer; when there is room again, a new mail must become stored, processed and delivered by itself, and soon.
At the end everything calms down, and `history` judges what everybody wrote down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from chaos import evidence, history, journal, orders, sqlite_store, trivial_processors
from chaos.ballast import Ballast, ballast
from chaos.configuration import DESTINATION, MASTER_KEY, configure
from chaos.holders import told
from chaos.journal import Journal
from chaos.node import Node
from chaos.storm import Follower, OtherClients, Receipts, ask, mail
from harness.other_client import OtherClient
from harness.service import mailmill
from harness.small_disk import SmallDisk, small_disk
from servers.dovecot import Dovecot
from servers.webhook_receiver import WebhookReceiver

PROBE = "probe"
ANY_MOMENT = "any moment"
# Before a result is recorded, before the mail of a segment that is written is, and so on. In turn, in any order.
PHASES = ("ran", "finish/uncommitted", "blobs/unwritten", "blobs/synced", "webhook/answered", ANY_MOMENT)
# Where a write is found to have no room: `commit_points` names them.
DOORS = ("database", "segments", "spool")
# How many bytes are left at any moment: what is refused then is whatever comes to the end of them first.
LEFT_BYTES = (0, 4096, 16_384, 65_536, 300_000)
# The longest that a loop of the alerts waits after an error is 30 s, an account one minute (here half a second).
RECOVERY_SECONDS = 60.0

_BUSY_ACCOUNTS = 2
_ASKERS = 2
_BACKLOG = 40
# More than the WAL grows to before it is folded into the database, so that a checkpoint may find no room as well.
_ROOM_BYTES = 40 << 20
_FIRST_ROOM = "64m"
_BUSY_MESSAGES = (3, 15)
_MORE_REFUSALS = (0, 12)
_MORE_SECONDS = 3.0
_BITE_SECONDS = 4.0
_PATIENCE_SECONDS = 20.0
_LONG_SECONDS = 60.0
_SETTLE_SECONDS = 120.0
_LOOK_SECONDS = 0.05
_TEMPORARY = 5
_SPOOLED = 60
_BIG_BYTES = 1_200_000
_MOST_UNDELIVERED = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """How often the disk is filled, and in how many of these times the service is killed while it is full."""

    rounds: int
    kills: int = 2
    seed: int = 1


@dataclass(slots=True)
class Outcome:
    """``findings`` are the checker's. ``bitten``: in how many rounds a write was refused for lack of room; ``refused``
    are all these writes by the door they came to, ``transactions`` those of the database by what they were about.
    ``not_started``: lives that ended because there was no room to begin in. ``recovered``: seconds from the room to the
    delivery of a mail that came after it, each time. ``given_up``: work that ended as failed.
    """

    findings: list[str]
    bitten: int
    refused: Counter[str]
    transactions: Counter[str]
    filled: Counter[str]
    kills: int
    not_started: int
    recovered: list[float]
    messages: int = 0
    events: int = 0
    receipts: int = 0
    given_up: int = 0


def heavy_mail(number: int) -> bytes:
    """`mail` of any size: some takes a page, some is spooled to a file before it is stored."""
    size = _BIG_BYTES if number % _SPOOLED == 0 else number * 7919 % 40_000
    return mail(number) + f"{number:x}".encode().ljust(99, b".").join([b"", b"\r\n"]) * (size // 101) + b"\r\n"


@dataclass(slots=True)
class FullDisk:
    """One run: `run` gives what came of it. ``tell`` hears of its progress: the rounds so far, and what happens."""

    folder: Path
    dovecot: Dovecot
    plan: Plan
    tell: Callable[[int, str], None] = lambda _rounds, _line: None
    accounts: dict[str, str] = field(default_factory=dict)
    _dice: random.Random = field(init=False)
    _disk: SmallDisk = field(init=False)
    _ballast: Ballast = field(init=False)
    _node: Node = field(init=False)
    _receipts: Receipts = field(init=False)
    _receiver: WebhookReceiver = field(init=False)
    _follower: Follower = field(init=False)
    _clients: OtherClients = field(init=False)
    _evidence: history.Evidence = field(init=False)
    _calm: asyncio.Event = field(default_factory=asyncio.Event)
    _strange: list[str] = field(default_factory=list)
    _certified: str = ""
    _past: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _phases: list[str] = field(default_factory=list)
    _filled: Counter[str] = field(default_factory=Counter)
    _never_stored: int = 0
    _rounds: int = 0
    _bitten: int = 0
    _kills: int = 0
    _not_started: int = 0
    _recovered: list[float] = field(default_factory=list)

    async def run(self) -> Outcome:
        self._dice = random.Random(self.plan.seed)
        (self.folder / "journal").mkdir()
        (self.folder / "a").mkdir()
        self._receipts = Receipts(Journal(self.folder / "journal", "receiver"), self._dice, self._calm)
        async with WebhookReceiver(self._receipts.answer) as self._receiver, self._service():
            self._follower = Follower(Journal(self.folder / "journal", "follower"), [self._node])
            self._clients = OtherClients(
                self.dovecot.host,
                self.dovecot.port,
                self.dovecot.password,
                self._dice,
                self._calm,
                self._stored,
                heavy_mail,
            )
            async with asyncio.TaskGroup() as readers:
                following = readers.create_task(self._follower.follow())
                async with asyncio.TaskGroup() as storm:
                    await self._begin(storm)
                    killed = set(self._dice.sample(range(self.plan.rounds), min(self.plan.kills, self.plan.rounds)))
                    for number in range(self.plan.rounds):
                        await self._one_round(kill=number in killed)
                        self._rounds += 1
                    self._calm.set()
                self._tell("calming down")
                found = await self._settle()
                following.cancel()
            found += await self._stop()
            found += await self._look_again()
        return self._outcome(found)

    # -- what there is ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _service(self) -> AsyncIterator[None]:
        async with small_disk(self.folder / "a", _FIRST_ROOM) as self._disk, ballast(self._disk) as self._ballast:
            self._node = Node("a", self.folder, self._environ(), inside=self._disk.inside, seen=self._ballast.seen)
            for number in range(_BUSY_ACCOUNTS):
                self.accounts[f"account{number}"] = user = self.dovecot.new_user()
                await self.dovecot.add_messages(user, "INBOX", [heavy_mail(each) for each in range(1, _BACKLOG)])
            self.accounts[PROBE] = self.dovecot.new_user()
            configure(self._node, self.dovecot, self.accounts, self._receiver.url)
            made = await self._command("db", "upgrade")
            assert made.code == 0, made.err
            await sqlite_store.count_results(self._disk)
            await self._node.open()
            try:
                yield
            finally:
                if left := await self._node.close():
                    self._strange.append(f"when all was over, the data folder was held by {told(left)}")

    def _environ(self) -> dict[str, str]:
        return {"MAILMILL_KEY": MASTER_KEY, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}

    async def _command(self, *arguments: str) -> Any:
        return await mailmill(
            self._node.config, *arguments, environ=self._environ(), inside=self._disk.inside, timeout_seconds=60
        )

    async def _begin(self, storm: asyncio.TaskGroup) -> None:
        await self._node.begin()
        # Of mail that was there before the first pass was over nobody is told.
        if not await self._eventually(self._probe_is_synced, _LONG_SECONDS):
            self._strange.append("the service did not begin to work")
        busy = [account for account in self.accounts if account != PROBE]
        for account in busy:
            storm.create_task(self._clients.change(self.accounts[account]))
        for _ in range(_ASKERS):
            storm.create_task(ask([self._node], lambda: busy, self._dice, self._calm))

    # -- a round ------------------------------------------------------------------------------------------------------

    async def _one_round(self, *, kill: bool) -> None:
        """Room, no room, room again."""
        before = self._follower.new_messages
        busy = self._dice.randint(*_BUSY_MESSAGES)
        if not await self._until(lambda: self._follower.new_messages >= before + busy):
            self._strange.append(f"in round {self._rounds} no new mail came in, with room for it")
        refused = self._refusals().total()
        await self._fill()
        # One that is spooled to a file, for which there is no room.
        await self.dovecot.add_message(self.accounts["account0"], "INBOX", heavy_mail(_SPOOLED * (2000 + self._rounds)))
        if await self._bites(refused):
            self._bitten += 1
        more = self._dice.randint(*_MORE_REFUSALS)
        await self._until(lambda: self._refusals().total() > refused + more, _MORE_SECONDS)
        if kill:
            await self._kill()
        if self._dice.random() < 0.3:
            # Room for some, and not for all.
            self._ballast.give(self._dice.choice((4096, 40_960, 409_600)))
            more = self._refusals().total() + self._dice.randint(*_MORE_REFUSALS)
            await self._until(lambda: self._refusals().total() > more, _MORE_SECONDS)
        await self._make_room()
        await self._probe()

    def _stored(self) -> int:
        """As other clients see it, who wait for what is stored: of nothing, while webhooks are far behind. Or mail that
        comes when there is room again would stand in line behind all that the storm has to tell.
        """
        behind = self._follower.news - len(self._receipts.ids)
        return 0 if behind > _MOST_UNDELIVERED else self._follower.new_messages + self._never_stored

    async def _fill(self) -> None:
        if not self._phases:
            self._phases = self._dice.sample(PHASES, len(PHASES))
        phase, left = self._phases.pop(), 0
        if phase == ANY_MOMENT or not await self._stands_at(phase):
            phase, left = ANY_MOMENT, self._dice.choice(LEFT_BYTES)
        await asyncio.to_thread(self._ballast.fill, left)
        self._node.signal(signal.SIGCONT)
        self._filled[phase] += 1
        self._tell(f"full at {phase}, but for {left} bytes")

    async def _stands_at(self, phase: str) -> bool:
        """Whether it came there, and was stopped."""
        before = self._stops()
        self._node.order(orders.STOP, [phase])
        await self._until(lambda: self._stops() > before, _PATIENCE_SECONDS)
        self._node.order()
        return self._stops() > before

    def _stops(self) -> int:
        return sum(each["how"] == "stopped" for each in self._node.records("end"))

    async def _bites(self, refused: int) -> bool:
        """Whether a write was refused for lack of room; what was left, if anything, is taken after a while."""
        for _ in range(int(_LONG_SECONDS / _BITE_SECONDS)):
            if await self._until(lambda: self._refusals().total() > refused, _BITE_SECONDS):
                return True
            await asyncio.to_thread(self._ballast.fill)
            # It may have been on its way to where it was to stop when the order was taken back.
            self._node.signal(signal.SIGCONT)
        self._strange.append(f"in round {self._rounds} nothing was refused, on a full disk")
        return False

    async def _kill(self) -> None:
        """And start it while there is no room: it serves, or it says that there is none."""
        self._node.signal(signal.SIGKILL)
        await self._node.ended()
        self._kills += 1
        await self._node.begin()
        if not await self._until(lambda: self._working() or not self._node.alive):
            self._strange.append(f"{self._node.life} neither worked nor ended, without room")
        if self._node.alive:
            return
        self._tell("it did not start")
        self._certify()
        # The program itself, to see how it ends; where it starts after all, it is killed after some seconds.
        with contextlib.suppress(TimeoutError):
            ended = await mailmill(
                self._node.config, "run", environ=self._environ(), inside=self._disk.inside, timeout_seconds=10
            )
            if ended.code != _TEMPORARY or "error:" not in ended.err:
                self._strange.append(f"without room mailmill run ended with {ended.code}: {ended.err[-500:]}")

    def _certify(self) -> None:
        """A life is over that nobody ended: it may only be for lack of room, and before it worked."""
        if self._certified == self._node.life:
            return
        self._certified = self._node.life
        codes = [code for record in self._node.records("gave up") for code in record["codes"]]
        if codes == ["storageFull"] and not self._working():
            self._not_started += 1
        else:
            self._strange.append(f"{self._node.life} ended with {self._node.exit_codes[-1]}: {codes}")

    async def _make_room(self) -> None:
        # It may have been on its way to where it was to stop when the order was taken back.
        self._node.signal(signal.SIGCONT)
        self._ballast.give(sys.maxsize)
        if self._ballast.free_bytes < _ROOM_BYTES:
            await self._disk.resize(str(self._ballast.used_bytes + _ROOM_BYTES))

    async def _probe(self) -> None:
        """A mail that comes when there is room again is stored, processed and delivered."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not self._node.alive:
            self._certify()
            await self._node.begin()
        subject = f"mail {100_000 + self._rounds}"
        await self.dovecot.add_message(self.accounts[PROBE], "INBOX", mail(100_000 + self._rounds))
        ids: set[int] = set()

        async def delivered() -> bool:
            nonlocal ids
            ids = ids or await self._probes(subject)
            return any(("messageProcessed", message_id) in self._receipts.seen for message_id in ids)

        if not await self._eventually(delivered, RECOVERY_SECONDS):
            what = "processed and delivered" if ids else "stored"
            self._strange.append(f"in round {self._rounds} new mail was not {what} {RECOVERY_SECONDS} s after the room")
        self._recovered.append(loop.time() - began)
        self._tell(f"recovered in {self._recovered[-1]:.1f} s")
        with contextlib.suppress(httpx2.HTTPError, TimeoutError):
            async with asyncio.timeout(20):
                await self._node.http.post("/v1/sync", json={})
        # What was expunged before it was seen is waited for no more.
        self._never_stored = self._clients.sent - self._follower.new_messages

    async def _probes(self, subject: str) -> set[int]:
        """The messages with this subject, in the account that nobody else changes."""
        listed = await self._get(f"/v1/account/{PROBE}/messages", path="INBOX", pageSize=200)
        return {int(each["id"]) for each in listed.get("messages", ()) if each["subject"] == subject}

    async def _probe_is_synced(self) -> bool:
        account = await self._get(f"/v1/account/{PROBE}")
        return account.get("state") == "connected" and account["progress"] is None and self._working()

    async def _get(self, path: str, /, **query: Any) -> dict[str, Any]:
        """Nothing where it does not answer."""
        with contextlib.suppress(httpx2.HTTPError, TimeoutError):
            answer = await self._node.http.get(path, params=query)
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
        return {}

    # -- the calm -----------------------------------------------------------------------------------------------------

    async def _settle(self) -> list[str]:
        found = ["nothing was looked at"]

        async def settled() -> bool:
            nonlocal found
            with contextlib.suppress(httpx2.HTTPError, TimeoutError):
                async with asyncio.timeout(20):
                    await self._node.http.post("/v1/sync", json={})
            found = await self._judge()
            return not found

        await self._eventually(settled, _SETTLE_SECONDS)
        return found

    async def _judge(self) -> list[str]:
        async with contextlib.AsyncExitStack() as stack:
            clients = {
                account: await stack.enter_async_context(
                    OtherClient(self.dovecot.host, self.dovecot.port, user, self.dovecot.password)
                )
                for account, user in self.accounts.items()
            }
            self._evidence = await evidence.gather(
                lambda: sqlite_store.read_store(self._disk),
                self.folder / "journal",
                clients,
                trivial_processors.VERSIONS,
                DESTINATION,
            )
        return history.findings(self._evidence)

    async def _stop(self) -> list[str]:
        if not self._node.alive:
            return [f"{self._node.life} ended by itself, with {self._node.exit_codes[-1]}"]
        self._node.signal(signal.SIGTERM)
        async with asyncio.timeout(_LONG_SECONDS):
            code = await self._node.ended()
        return [f"stopped in order, the service ended with {code}"] if code else []

    async def _look_again(self) -> list[str]:
        """What mailmill and SQLite say themselves of what is left."""
        found = [f"SQLite: {damage}" for damage in [await sqlite_store.damage(self._disk)] if damage]
        for command in (("db", "check", "--full"), ("verify", "--full")):
            ended = await self._command(*command)
            if ended.code:
                found.append(f"mailmill {' '.join(command)} ended with {ended.code}: {ended.out}{ended.err}")
        return found

    # -- telling ------------------------------------------------------------------------------------------------------

    def _working(self) -> bool:
        return bool(self._node.records("working"))

    def _refusals(self) -> Counter[str]:
        """By door."""
        return Counter(record["door"] for record in self._full())

    def _full(self) -> list[dict[str, Any]]:
        """What all lives wrote of writes that found no room."""
        return [
            record
            for number in range(1, self._node.lives + 1)
            for record in self._full_in(f"{self._node.name}-{number:04}")
        ]

    def _full_in(self, life: str) -> list[dict[str, Any]]:
        if life in self._past:
            return self._past[life]
        path = self.folder / "journal" / f"{life}.jsonl"
        found = [record for record in journal.lines(path) if record["kind"] == "full"] if path.exists() else []
        if life != self._node.life:
            self._past[life] = found
        return found

    def _outcome(self, found: list[str]) -> Outcome:
        return Outcome(
            findings=[*found, *self._strange, *self._faults()],
            bitten=self._bitten,
            refused=self._refusals(),
            transactions=Counter(
                point for each in self._full() if each["door"] == "database" for point in each["points"] or ["?"]
            ),
            filled=self._filled,
            kills=self._kills,
            not_started=self._not_started,
            recovered=self._recovered,
            messages=len(self._evidence.store.messages),
            events=len(self._evidence.store.events),
            receipts=len(self._evidence.journals.receipts),
            given_up=history.given_up(self._evidence.store),
        )

    def _faults(self) -> list[str]:
        """What the log tells of errors that nobody foresaw."""
        found = []
        for line in self._node.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict) and said.get("level") in ("error", "critical"):
                    found.append(f"the log says: {line[:1500]}")
        return found

    def _tell(self, line: str) -> None:
        self.tell(self._rounds, line)

    async def _until(self, ready: Callable[[], bool], seconds: float = _LONG_SECONDS) -> bool:
        async def look() -> bool:
            return ready()

        return await self._eventually(look, seconds)

    async def _eventually(self, ready: Callable[[], Awaitable[bool]], seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await ready():
                    await asyncio.sleep(_LOOK_SECONDS)
                return True
        return False
