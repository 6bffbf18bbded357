"""An account behind a link that keeps failing, while another client never stops changing the mail.

`survive_cuts` is one such life, from the first sync to peace, and ends in the comparison of store and server. It asks
for nothing by hand: whatever it takes to be in sync again, the account has to find out by itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from harness import truth
from harness.on_any_server import raw
from harness.other_client import OtherClient
from harness.syncing import SyncedAccount, synced_account
from mailmill.imap.connection import ConnectionSettings
from mailmill.model import AccountState, Endpoint, Tls
from mailmill.sync.context import SyncLimits
from mailmill.sync.watch import WatchSettings
from servers.mail_server import MailServer
from servers.proxy import Proxy

MAILBOXES = ("INBOX", "Projects", "Done")
# Enough that a first sync takes connections of its own for the backlog.
_FIRST_MESSAGES = 520
# Changes by the other client between two faults: at once, in the middle of connecting, or when things have settled.
_BETWEEN_FAULTS = (0, 1, 3, 8, 20, 50)
# A fault that nobody notices within this is a failure, and a store that is not whole again within that: a message whose
# fetch broke three times is tried again after a minute.
_NOTICED_SECONDS = 30.0
_WHOLE_SECONDS = 90.0

# Every wait of ours is short, so that one who waits for nothing is soon found out.
_CONNECTION = ConnectionSettings(connect_timeout_seconds=1.5, command_timeout_seconds=1.5)
_WATCH = WatchSettings(probe_seconds=0.5, answer_seconds=1.0)
_LIMITS = SyncLimits(chunk_messages=60, group_messages=10, flag_sweep_seconds=1.0)


@dataclass(frozen=True, slots=True)
class Survived:
    """What an account lived through: faults by kind, changes by the other client, connections that it opened, and how
    long after the last fault the store was whole.
    """

    faults: Counter[str]
    changes: int
    connections: int
    messages: int
    whole_after_seconds: float


async def survive_cuts(
    server: MailServer,
    data_dir: Path,
    *,
    faults: int = 24,
    seed: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Survived:
    """``faults`` cuts, stalls and half-open links at moments that ``seed`` decides; ``advance`` is called after each.

    Raises AssertionError where the store does not become equal to the server, a message is told or held twice, or one
    that is there was called deleted; TimeoutError where a fault is not noticed.
    """
    chance = random.Random(seed)
    user = server.new_user()
    await server.add_messages(user, "INBOX", [raw(number) for number in range(1, _FIRST_MESSAGES + 1)])
    for path in MAILBOXES[1:]:
        await server.create_mailbox(user, path)
    credentials = server.credentials(user)
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(
            OtherClient(server.host, server.port, credentials.username, credentials.password)
        )
        proxy = await stack.enter_async_context(Proxy(server.host, server.port))
        # How long to wait after an error is decided, and tested, elsewhere; 24 in a row would be minutes.
        stack.enter_context(mock.patch("mailmill.sync.account_sync.delay_seconds", lambda *_args, **_options: 0))
        account = await stack.enter_async_context(
            synced_account(
                data_dir,
                Endpoint(proxy.host, proxy.port, Tls.NONE),
                credentials,
                limits=_LIMITS,
                poll_interval_seconds=2.0,
                sweep_interval_seconds=1.0,
                watch=_WATCH,
                connection=_CONNECTION,
            )
        )
        life = _Changes(other, random.Random(seed + 1))
        changing = asyncio.create_task(life.run())
        try:
            # As many of each kind, in an order of chance.
            kinds = (list(_FAULTS) * (faults // len(_FAULTS) + 1))[:faults]
            chance.shuffle(kinds)
            for kind in kinds:
                await life.until(life.count + chance.choice(_BETWEEN_FAULTS))
                await _suffer(proxy, kind, chance)
                advance()
        finally:
            life.stop()
            await changing
        began = time.monotonic()
        held = await other.truth()
        await _until_whole(account, data_dir, held)
        return Survived(
            faults=Counter(kinds),
            changes=life.count,
            connections=proxy.connections,
            messages=sum(len(messages) for messages in held.values()),
            whole_after_seconds=time.monotonic() - began,
        )


class _Changes:
    """The other client: one change after another until `stop`. Each message has a content of its own."""

    def __init__(self, other: OtherClient, chance: random.Random) -> None:
        self.count = 0
        self._other = other
        self._chance = chance
        self._number = 10_000
        self._stopped = False
        self._changed = asyncio.Event()

    async def run(self) -> None:
        try:
            while not self._stopped:
                await self._one()
                self.count += 1
                self._changed.set()
        finally:
            self._stopped = True
            self._changed.set()

    def stop(self) -> None:
        self._stopped = True

    async def until(self, count: int) -> None:
        while self.count < count and not self._stopped:
            self._changed.clear()
            await self._changed.wait()

    async def _one(self) -> None:
        chance, other = self._chance, self._other
        source, target = chance.sample(MAILBOXES, 2)
        uids = await other.uids(source)
        what = chance.choices(("append", "flag", "unflag", "move", "copy", "expunge"), (6, 4, 2, 3, 1, 3))[0]
        if what == "append" or len(uids) < 5:
            self._number += 1
            await other.append(source, raw(self._number), flags=[r"\Seen"] if chance.random() < 0.3 else [])
            return
        # The newest are what a sync is most likely to be busy with.
        some = chance.sample(uids[-20:], min(3, len(uids)))
        if chance.random() < 0.3:
            some.append(uids[-1])
        chosen = ",".join(map(str, sorted(set(some))))
        match what:
            case "flag":
                await other.set_flags(source, chosen, chance.choice([r"\Seen", r"\Flagged", "todo"]), action="+FLAGS")
            case "unflag":
                await other.set_flags(source, chosen, r"\Seen", r"\Flagged", action="-FLAGS")
            case "move":
                await other.move(source, chosen, target)
            case "copy":
                await other.copy(source, str(some[0]), target)
            case "expunge":
                await other.expunge(source, chosen)


# -- faults: each is done to a link that works, and is noticed when it returns -----------------------------------------


def _cut(proxy: Proxy, _chance: random.Random) -> None:
    proxy.cut()


def _cut_amid_response(proxy: Proxy, chance: random.Random) -> None:
    proxy.cut_soon(chance.choice((chance.randint(1, 500), chance.randint(500, 8000))))


def _cut_while_dripping(proxy: Proxy, chance: random.Random) -> None:
    proxy.drip_bytes = chance.randint(1, 40)
    proxy.cut_soon(chance.randint(1, 1500))


def _stall(proxy: Proxy, _chance: random.Random) -> None:
    proxy.stall()


def _lose_server(proxy: Proxy, _chance: random.Random) -> None:
    proxy.lose_server()


def _lose_client(proxy: Proxy, _chance: random.Random) -> None:
    proxy.lose_client()


async def _suffer(proxy: Proxy, kind: str, chance: random.Random) -> None:
    async with asyncio.timeout(_NOTICED_SECONDS):
        await proxy.until(lambda: proxy.whole_connections > 0)
        before = proxy.hung_up
        _FAULTS[kind](proxy, chance)
        await proxy.until(lambda: proxy.hung_up > before)
    proxy.drip_bytes = None
    proxy.resume()


_FAULTS = {
    "cut": _cut,
    "cut amid a response": _cut_amid_response,
    "stall": _stall,
    "server gone, link open": _lose_server,
    "client gone, link open": _lose_client,
    "cut while dripping": _cut_while_dripping,
}


# -- peace -------------------------------------------------------------------------------------------------------------


async def _until_whole(account: SyncedAccount, data_dir: Path, held: truth.Truth) -> None:
    """The store equals ``held`` without being asked to; the error of the last look where it does not."""
    deadline = asyncio.get_running_loop().time() + _WHOLE_SECONDS
    with account.database.wake.events.subscribe() as hints:
        while True:
            try:
                await asyncio.to_thread(_check, data_dir, held)
                assert account.sync.view().state is AccountState.CONNECTED
                return
            except AssertionError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await hints.wait(0.5)


def _check(data_dir: Path, held: truth.Truth) -> None:
    truth.check(data_dir, held)
    with truth.opened(data_dir) as database:
        living = {row[0] for row in database.execute("SELECT message_id FROM place WHERE expunged_at IS NULL")}
        deleted = [row[0] for row in database.execute("SELECT message_id FROM event WHERE event = 'messageDeleted'")]
        known = {row[0] for row in database.execute("SELECT id FROM message")}
    assert living.isdisjoint(deleted), "a message that is there was called deleted"
    assert len(deleted) == len(set(deleted)), "a message was deleted twice"
    assert known - living == set(deleted), "what is nowhere was not called deleted"
