"""A message to each of many accounts again and again, and how long each took from the server to the store."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping

from bench import corpus
from bench.bare_imap import BareImap
from bench.observed import Observed
from bench.processes import BenchError
from servers.dovecot import Dovecot

_SEED = 110


class SteadyMail:
    """``appended`` maps account and UID to the monotonic clock at the OK of its APPEND. Made by `steady_mail`.

    Nothing else comes to these INBOXes, which are empty at first: the n-th message has the UID n.
    """

    def __init__(self, observed: Observed) -> None:
        self.appended: dict[tuple[str, int], float] = {}
        self._observed = observed
        self._numbers = itertools.count()
        self._open = asyncio.Event()

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """It comes for the length of the block, and not outside of one."""
        self._open.set()
        try:
            yield
        finally:
            self._open.clear()

    async def keep_coming(self, account: str, connection: BareImap, first_after: float, every: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + first_after
        for uid in itertools.count(1):
            await asyncio.sleep(due - loop.time())
            if not self._open.is_set():
                await self._open.wait()
                # Each account at a moment of its own still.
                due += every * max(0, math.ceil((loop.time() - due) / every))
                await asyncio.sleep(due - loop.time())
            await connection.append("INBOX", corpus.small(next(self._numbers), seed=_SEED))
            self.appended[account, uid] = time.monotonic()
            due += every * max(1, math.ceil((loop.time() - due) / every))

    def missing(self, accounts: Collection[str], until: float) -> int:
        """How many of the messages appended before ``until`` are not stored yet."""
        moments = self._observed.moments("messageNew")
        return sum(key[0] in accounts and at < until and key not in moments for key, at in self.appended.items())

    def waits(self, accounts: Collection[str], since: float, until: float) -> dict[str, float]:
        """Account → seconds that its slowest message waited, of those stored from ``since`` on and appended before
        ``until``. Raises BenchError where a message was told of twice.
        """
        moments = self._observed.moments("messageNew")
        if twice := [key for key, at in moments.items() if len(at) > 1]:
            raise BenchError(f"messages were told of twice: {twice[:10]}")
        waits: dict[str, float] = {}
        for key, appended in self.appended.items():
            account, stored = key[0], moments.get(key, (0.0,))[0]
            if account in accounts and appended < until and stored >= since:
                waits[account] = max(waits.get(account, 0.0), stored - appended)
        return waits

    def first_stored(self, accounts: Collection[str], since: float) -> dict[str, float]:
        """Account → the moment at which the first message was stored of those appended from ``since`` on."""
        moments = self._observed.moments("messageNew")
        first: dict[str, float] = {}
        for key, appended in self.appended.items():
            if key[0] in accounts and appended >= since and key in moments:
                first[key[0]] = min(first.get(key[0], float("inf")), moments[key][0])
        return first


@contextlib.asynccontextmanager
async def steady_mail(
    server: Dovecot, users: Mapping[str, str], observed: Observed, *, every: float
) -> AsyncIterator[SteadyMail]:
    """Mail to the accounts (name → user), to each one ``every`` so many seconds while it is `SteadyMail.coming`."""
    mail = SteadyMail(observed)
    async with contextlib.AsyncExitStack() as stack:
        tasks: list[asyncio.Task[None]] = []
        for number, (account, user) in enumerate(users.items()):
            connection = await stack.enter_async_context(
                await BareImap.open(server.host, server.port, user, server.password)
            )
            first_after = every * number / len(users)
            tasks.append(asyncio.create_task(mail.keep_coming(account, connection, first_after, every)))
        try:
            yield mail
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for each in ended:
            if isinstance(each, Exception):
                raise each
