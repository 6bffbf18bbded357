"""Three nodes of one fleet, on one PostgreSQL and one mail server, killed over and over while all of it is in use.

::

    other clients ──▶ Dovecot ◀──▶ node a, b, c ──▶ PostgreSQL        killed where `Targets` says, born again at once
    people ──────────────────────▶ any node    ──▶ webhook receiver   frozen past their leases; connections cut
    readers ◀──────────────────── any node                            PostgreSQL restarted; the clock of c jumps

At the end everything calms down, and `history` judges what everybody wrote down.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from chaos import evidence, history, journal, orders, targets, trivial_processors
from chaos.configuration import DESTINATION, MASTER_KEY, configure
from chaos.holders import told
from chaos.journal import Journal
from chaos.node import Node
from chaos.storm import Follower, OtherClients, Receipts, Watcher, ask, mail
from harness.other_client import OtherClient
from servers.dovecot import Dovecot
from servers.postgres import Postgres
from servers.webhook_receiver import WebhookReceiver

LEASE_SECONDS = 3.0
ANY_MOMENT = "any moment"
# Where a node is frozen, and what it must then be refused. (What it does as the owner of an account is ended by its own
# guard as soon as it wakes, or is refused.)
LATE_WRITES = {"ran": "finish", "finish/unasked": "finish", "webhook/answered": "delivery"}
OFFSETS = ("+5h", "-5h", "+0", "+26h", "-40m", "-1h")

_FIRST_ACCOUNTS = 4
_BACKLOG = 5
_HEAD_START_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0
_AT_ONCE = 12
_ANY_MOMENT_SHARE = 0.1
_ASKERS = 3
_LONG_SECONDS = 60.0
# What a dead node held is taken back after half a minute, by whoever may have died in the meantime, too.
_SETTLE_SECONDS = 150.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """``hits``: how often each phase is hit at least, beyond ``kills`` if need be. ``freezes``: phases at which a node
    is stopped until all it had is another's. ``cuts``: how often PostgreSQL's connections are cut; ``restarts``: how
    often it is. ``clock_offsets``: where the wall clock of the node c jumps to and fro.
    """

    kills: int
    hits: int = 0
    freezes: Sequence[str] = ("ran", "hold/unasked", "finish/unasked", "webhook/answered")
    cuts: int = 3
    restarts: int = 1
    clock_offsets: Sequence[str] = OFFSETS
    seed: int = 1


@dataclass(slots=True)
class Outcome:
    """``findings`` are the checker's; ``refused`` late writes of nodes that had been frozen, by what they were;
    ``given_up``: work that ended as failed, for its workers died of it too often."""

    findings: list[str]
    hits: Counter[str]
    unknown: list[str]
    refused: Counter[str]
    frozen: Counter[str]
    cuts: int = 0
    restarts: int = 0
    messages: int = 0
    events: int = 0
    receipts: int = 0
    given_up: int = 0

    @property
    def kills(self) -> int:
        return self.hits.total()


@dataclass(slots=True)
class UnderFire:
    """One run: `run` gives what came of it. ``tell`` hears of its progress: the kills so far, and what happens."""

    folder: Path
    postgres: Postgres
    dovecot: Dovecot
    plan: Plan
    tell: Callable[[int, str], None] = lambda _kills, _line: None
    accounts: dict[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    _dice: random.Random = field(init=False)
    _targets: targets.Targets = field(init=False)
    _url: str = ""
    _receiver: WebhookReceiver = field(init=False)
    _storm: asyncio.TaskGroup = field(init=False)
    _calm: asyncio.Event = field(default_factory=asyncio.Event)
    _clients: OtherClients = field(init=False)
    _watcher: Watcher = field(init=False)
    _hits: Counter[str] = field(default_factory=Counter)
    _frozen: Counter[str] = field(default_factory=Counter)
    _strange: list[str] = field(default_factory=list)
    _renewed: dict[str, int] = field(default_factory=dict)
    _thawed: dict[str, int] = field(default_factory=dict)
    _unsettled: set[str] = field(default_factory=set)
    _evidence: history.Evidence = field(init=False)
    _cuts: int = 0
    _restarts: int = 0

    async def run(self) -> Outcome:
        self._dice = random.Random(self.plan.seed)
        self._targets = targets.Targets(targets.REQUIRED, self._dice)
        self._url = await asyncio.to_thread(self.postgres.new_store)
        (self.folder / "journal").mkdir()
        (self.folder / "blobs").mkdir()
        receipts = Receipts(Journal(self.folder / "journal", "receiver"), self._dice, self._calm)
        async with WebhookReceiver(receipts.answer) as self._receiver, self._fleet():
            async with asyncio.TaskGroup() as readers:
                follower = Follower(Journal(self.folder / "journal", "follower"), self.nodes)
                watcher = self._watcher = Watcher(Journal(self.folder / "journal", "watcher"), self._connect)
                self._clients = OtherClients(
                    self.dovecot.host,
                    self.dovecot.port,
                    self.dovecot.password,
                    self._dice,
                    self._calm,
                    lambda: watcher.new_messages,
                )
                following = [readers.create_task(each.follow()) for each in (follower, watcher)]
                async with asyncio.TaskGroup() as self._storm:
                    await self._begin()
                    await self._fire()
                    self._calm.set()
                self._tell("calming down")
                found = await self._settle()
                for task in following:
                    task.cancel()
            found = await self._stop_all() or found
        return await self._outcome(found)

    # -- what there is ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _fleet(self) -> AsyncIterator[None]:
        connection = await self._connect()
        await connection.execute(evidence.COUNT_RESULTS)
        await connection.close()
        (self.folder / "clock").write_text("+0\n")
        for name in ("a", "b", "c"):
            environ = {"MAILMILL_KEY": MASTER_KEY, **(jumping_clock(self.folder / "clock") if name == "c" else {})}
            self.nodes.append(Node(name, self.folder, environ))
        try:
            await asyncio.gather(*(node.open() for node in self.nodes))
            yield
        finally:
            for node in self.nodes:
                if left := await node.close():
                    self._strange.append(f"when all was over, {node.name}'s data folder was held by {told(left)}")

    async def _begin(self) -> None:
        for _ in range(_FIRST_ACCOUNTS):
            await self._add_account()
        for node in self.nodes:
            await self._bear(node)
        if not await self._until(lambda: _is_so(all(node.records("working") for node in self.nodes))):
            self._strange.append("the nodes did not begin to work")
        for _ in range(_ASKERS):
            self._storm.create_task(ask(self.nodes, lambda: list(self.accounts), self._dice, self._calm))
        self._storm.create_task(self._move_clock())

    async def _add_account(self) -> None:
        """A node learns of it at its next birth."""
        user = self.dovecot.new_user()
        await self.dovecot.add_messages(user, "INBOX", [mail(number) for number in range(_BACKLOG)])
        self.accounts[f"account{len(self.accounts)}"] = user
        for node in self.nodes:
            self._configure(node)
        self._storm.create_task(self._clients.change(user))

    def _configure(self, node: Node) -> None:
        configure(
            node,
            self.dovecot,
            self.accounts,
            self._receiver.url,
            database_url=self._url,
            blob_url=(self.folder / "blobs").as_uri(),
            lease_seconds=LEASE_SECONDS,
        )

    async def _bear(self, node: Node) -> None:
        await node.begin()
        self._renewed[node.name] = len(self.accounts)

    async def _connect(self) -> Any:
        return await asyncpg.connect(self._url.replace("+asyncpg", ""), timeout=10)

    # -- the fire -----------------------------------------------------------------------------------------------------

    async def _fire(self) -> None:
        disturbances = self._disturbances()
        while self._hits.total() < self.plan.kills or self._targets.below(self.plan.hits):
            due = [at for at in disturbances if at <= self._hits.total()]
            for at in due:
                await disturbances.pop(at)()
            if self._hits.total() >= 2 * self.plan.kills:
                break  # what was not hit until now is found missing
            await self._kill_one()
            self._tell("")
        for node in self.nodes:
            node.order()

    def _disturbances(self) -> dict[int, Callable[[], Awaitable[None]]]:
        """After how many kills what else happens: spread over all of them."""
        what: list[Callable[[], Awaitable[None]]] = [
            *(lambda phase=phase: self._freeze(phase) for phase in self.plan.freezes),  # type: ignore[misc]
            *[self._cut_connections] * self.plan.cuts,
            *[self._restart_postgres] * self.plan.restarts,
        ]
        self._dice.shuffle(what)
        return {(number + 1) * self.plan.kills // (len(what) + 1): each for number, each in enumerate(what)}

    async def _kill_one(self) -> None:
        if self._dice.random() < _ANY_MOMENT_SHARE:
            await self._kill_at_any_moment()
            return
        # When all else is done, those that are still wanted are not to wait until the others were hit as often.
        wanted = self._targets.below(self.plan.hits) if self._hits.total() >= self.plan.kills else ()
        phases = self._targets.next(_AT_ONCE, wanted)
        if parting := [phase for phase in phases if phase in targets.PARTING]:
            hit = await self._kill_on_its_way_out(phases := parting)
        else:
            hit = await self._kill_at_work(phases)
        if not hit:
            self._targets.missed(phases)
            self._tell(f"nobody came to {', '.join(phases)}")
        for node in self.nodes:
            node.order()

    async def _kill_at_work(self, phases: Sequence[str]) -> bool:
        """A node that the dice choose is to die at the first of ``phases``; after a while, whoever comes there."""
        if any(phase in targets.ONCE for phase in phases) and self._watcher.initialized == len(self.accounts):
            await self._add_account()
            # Whoever is to have it must know it.
            for node in self.nodes:
                node.signal(signal.SIGTERM)
        self._dice.choice(self.nodes).order(orders.KILL, phases)
        if await self._bury(_HEAD_START_SECONDS):
            return True
        for node in self.nodes:
            node.order(orders.KILL, phases)
        return await self._bury(_PATIENCE_SECONDS)

    async def _kill_on_its_way_out(self, phases: Sequence[str]) -> bool:
        working = [node for node in self.nodes if node.alive and node.records("working")]
        if not working:
            return await self._bury(_HEAD_START_SECONDS)
        node = self._dice.choice(working)
        node.order(orders.KILL, phases)
        node.signal(signal.SIGTERM)
        await node.ended()
        return await self._bury(0)

    async def _kill_at_any_moment(self) -> None:
        await asyncio.sleep(self._dice.uniform(0, 0.5))
        node = self._dice.choice(self.nodes)
        node.signal(signal.SIGKILL)
        self._hits[ANY_MOMENT] += 1
        await node.ended()
        await self._bury(0)

    async def _bury(self, wait_seconds: float) -> bool:
        """Wait until one was killed by an order; whoever is dead is born again. Returns whether one was."""
        deadline = asyncio.get_running_loop().time() + wait_seconds
        hit = False
        while True:
            for node in [node for node in self.nodes if not node.alive]:
                hit = self._certify(node) or hit
                await self._bear(node)
            if hit or asyncio.get_running_loop().time() >= deadline:
                return hit
            await asyncio.sleep(_LOOK_SECONDS)

    def _certify(self, node: Node) -> bool:
        """What a node died of; whether it was an order. Told to stop before it listens, it ends by the signal."""
        code = node.exit_codes[-1]
        phases = [record["phase"] for record in node.records("end") if record["how"] == "killed"]
        if code == -signal.SIGKILL and phases:
            self._targets.hit(phases[0])
            self._hits[phases[0]] += 1
            return True
        if code not in (0, -signal.SIGKILL, -signal.SIGTERM) and node.life not in self._unsettled:
            held = [f"; its data folder was held by {told(each['holders'])}" for each in node.records("in use")]
            self._strange.append(f"{node.life} ended with {code}{''.join(held)}")
        return False

    # -- what else happens --------------------------------------------------------------------------------------------

    async def _freeze(self, phase: str) -> None:
        """Stop a node at ``phase`` until all that it had is another's; then it goes on, writes late, and in vain."""
        node = await self._stopped_at(phase)
        if node is None:
            self._strange.append(f"no node came to {phase} to be frozen")
            return
        self._frozen[phase] += 1
        self._tell(f"{node.name} frozen at {phase}")
        frozen, pid, wanted = node.life, node.pid, LATE_WRITES.get(phase)
        # It may have been frozen before, and was refused then.
        before = _refusals(node, wanted)
        left: dict[str, int] = {}

        async def robbed() -> bool:
            nonlocal left
            # The others may still have been on their way out, told to stop for a new account.
            await self._bury(0)
            left = await self._left_to(pid)
            return not left

        if not await self._until(robbed):
            self._strange.append(
                f"nobody took over from {frozen}, frozen at {phase}: it still has {left};"
                f" alive: {[each.life for each in self.nodes if each.alive]};"
                f" transactions open for long: {await self._long_transactions()}"
            )
        node.signal(signal.SIGCONT)

        async def refused() -> bool:
            over = node.life != frozen or not node.alive
            return over or _refusals(node, wanted) > before

        if wanted and not await self._until(refused):
            self._strange.append(f"{frozen}, frozen at {phase}, was refused no late write")

    async def _stopped_at(self, phase: str) -> Node | None:
        """One node after the other is to stop there, until one has."""
        deadline = asyncio.get_running_loop().time() + _LONG_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            await self._bury(0)
            node = self._dice.choice(self.nodes)
            node.order(orders.STOP, [phase])
            stopped = await self._until(
                lambda node=node: _is_so(_stops(node) > self._thawed.get(node.life, 0)),  # type: ignore[misc]
                _PATIENCE_SECONDS,
            )
            # Between the look and the next order it may still stop; if not seen now, then when it is its turn again.
            node.order()
            if stopped or _stops(node) > self._thawed.get(node.life, 0):
                self._thawed[node.life] = _stops(node)
                return node
        return None

    async def _left_to(self, pid: int) -> dict[str, int]:
        """How many rows still name the process, by what they are."""
        connection = await self._connect()
        try:
            # Ids of nodes are HOST:PID:RANDOM, those of their workers begin with that.
            row = await connection.fetchrow(
                "SELECT (SELECT count(*) FROM shard WHERE node_id LIKE $1) AS shards,"
                " (SELECT count(*) FROM work WHERE worker_id LIKE $1) AS claims,"
                " (SELECT count(*) FROM delivery WHERE worker_id LIKE $1) AS deliveries,"
                " (SELECT count(*) FROM worker WHERE id LIKE $1) AS workers",
                f"%:{pid}:%",
            )
            return {name: count for name, count in row.items() if count}
        finally:
            await connection.close()

    async def _long_transactions(self) -> list[str]:
        connection = await self._connect()
        try:
            rows = await connection.fetch(
                "SELECT pid, state, wait_event, left(query, 200) AS query, pg_blocking_pids(pid) AS behind"
                " FROM pg_stat_activity WHERE datname = current_database()"
                " AND xact_start < clock_timestamp() - interval '5 s'"
            )
            return [str(dict(row)) for row in rows]
        finally:
            await connection.close()

    def _note_unsettled(self) -> None:
        """Who is still starting when the database goes may give up, as it may where there is none; nobody else."""
        self._unsettled |= {node.life for node in self.nodes if not node.records("working")}

    async def _cut_connections(self) -> None:
        self._cuts += 1
        self._note_unsettled()
        await self.postgres.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() AND random() < 0.4"
        )

    async def _restart_postgres(self) -> None:
        self._restarts += 1
        self._note_unsettled()
        self._tell("PostgreSQL restarts")
        await self.postgres.restart()

    async def _move_clock(self) -> None:
        while not self._calm.is_set():
            clock = self.folder / "clock.new"
            clock.write_text(f"{self._dice.choice(self.plan.clock_offsets)}\n")
            clock.rename(self.folder / "clock")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._dice.uniform(1, 4)):
                    await self._calm.wait()

    def _tell(self, line: str) -> None:
        self.tell(self._hits.total(), line)

    async def _until(self, ready: Callable[[], Awaitable[bool]], seconds: float = _LONG_SECONDS) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await ready():
                    await asyncio.sleep(_LOOK_SECONDS)
                return True
        return False

    # -- the calm -----------------------------------------------------------------------------------------------------

    async def _settle(self) -> list[str]:
        """Have all nodes know all accounts, and everything come to its end; what is wrong then."""
        await self._bury(0)
        for node in self.nodes:
            if self._renewed[node.name] < len(self.accounts):
                node.signal(signal.SIGTERM)
                await node.ended()
                await self._bury(0)
        found = ["nothing was looked at"]

        async def settled() -> bool:
            nonlocal found
            await self._bury(0)
            with contextlib.suppress(httpx2.HTTPError, TimeoutError):
                async with asyncio.timeout(20):
                    await self._dice.choice(self.nodes).http.post("/v1/sync", json={})
            found = await self._judge()
            return not found

        await self._until(settled, _SETTLE_SECONDS)
        return found

    async def _judge(self) -> list[str]:
        connection = await self._connect()
        try:
            async with contextlib.AsyncExitStack() as stack:
                clients = {
                    account: await stack.enter_async_context(
                        OtherClient(self.dovecot.host, self.dovecot.port, user, self.dovecot.password)
                    )
                    for account, user in self.accounts.items()
                }
                self._evidence = await evidence.gather(
                    partial(evidence.postgres_store, connection, self.folder / "blobs"),
                    self.folder / "journal",
                    clients,
                    trivial_processors.VERSIONS,
                    DESTINATION,
                )
        finally:
            await connection.close()
        return history.findings(self._evidence)

    async def _stop_all(self) -> list[str]:
        for node in self.nodes:
            node.signal(signal.SIGTERM)
        async with asyncio.timeout(_LONG_SECONDS):
            codes = [await node.ended() for node in self.nodes]
        return [f"stopped in order, the nodes ended with {codes}"] if any(codes) else []

    async def _outcome(self, found: list[str]) -> Outcome:
        journals = self._evidence.journals
        came = {
            record["phase"]
            for path in (self.folder / "journal").glob("?-*.jsonl")
            for record in journal.lines(path)
            if record["kind"] == "came"
        }
        return Outcome(
            findings=[*found, *self._strange],
            hits=self._hits,
            unknown=sorted(came - {*targets.REQUIRED, *targets.BESIDE}),
            refused=Counter(each.what for each in journals.refusals),
            frozen=self._frozen,
            cuts=self._cuts,
            restarts=self._restarts,
            messages=len(self._evidence.store.messages),
            events=len(self._evidence.store.events),
            receipts=len(journals.receipts),
            given_up=history.given_up(self._evidence.store),
        )


async def _is_so(what: bool) -> bool:
    return what


def _stops(node: Node) -> int:
    """How often this life was frozen."""
    return sum(each["how"] == "stopped" for each in node.records("end"))


def _refusals(node: Node, what: str | None) -> int:
    return sum(each["what"] == what for each in node.records("refused"))


def jumping_clock(file: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is off by what stands in ``file``. Raises AssertionError where the
    library for it is not installed.

    Its locks know nothing of forks: where a process with threads is forked, the fork may wait for one for ever.
    """
    # Debian's place is a folder for the architecture.
    folders = (Path("/usr/lib"), Path("/usr"), Path("/usr/local"))
    libraries = [found for folder in folders for found in folder.glob("*/faketime/libfaketimeMT.so.1")]
    assert libraries, "libfaketime is not installed: run `make test`, or `apt-get install faketime`"
    return {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
