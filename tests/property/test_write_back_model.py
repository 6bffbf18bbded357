"""Requests against a model: whatever is cut or dies in between, each happens once, and in order for each message.

The server may cut the connection at any command, having carried it out or not, and the process may die between any two
steps of the loop. In the end every mailbox holds what the model holds, no copy more and none less.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import stores
from harness.fake_imap import CONDSTORE, PLAIN, QRESYNC, FakeImap
from harness.fake_imap_faults import cut
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import account_on, check, let_time_pass
from harness.requesting import ask, ask_append
from harness.syncing import SyncedAccount
from mailmill.store import requests

SERVERS = [QRESYNC, CONDSTORE.replace(" MOVE", ""), PLAIN]
PATHS = ["INBOX", "Archive", "Rubbish"]
VERBS = [rb"UID STORE", rb"UID MOVE", rb"UID COPY", rb"UID EXPUNGE", rb"APPEND", rb"STATUS", rb"SELECT", rb"UID SEARCH"]
MESSAGES = 3

Held = tuple[bytes, frozenset[str]]


def raw(number: int) -> bytes:
    # One without a Message-ID: it is found by its bytes alone.
    header = f"Message-ID: <{number}@example.org>\r\n" if number != 2 else ""
    return f"{header}Subject: {number}\r\n\r\n{number}\r\n".encode()


messages = st.integers(1, MESSAGES)
flags = st.sampled_from([r"\Seen", r"\Flagged", "todo"])
paths = st.sampled_from(PATHS)
changes = st.one_of(
    st.tuples(st.just("add"), messages, flags),
    st.tuples(st.just("remove"), messages, flags),
    st.tuples(st.just("move"), messages, paths),
    st.tuples(st.just("copy"), messages, paths),
    st.tuples(st.just("delete"), messages, st.sampled_from(["Rubbish", ""])),
    # Of the same bytes as mail that is there, or of others.
    st.tuples(st.just("append"), st.integers(1, MESSAGES + 1), paths),
)
cuts = st.lists(st.tuples(st.sampled_from(VERBS), st.booleans()), max_size=4)
deaths = st.lists(st.integers(0, 300), max_size=3)


@dataclass(slots=True)
class Model:
    """Where each message of INBOX is now, and with which flags; ``loose`` are copies and uploads."""

    places: dict[int, tuple[str, frozenset[str]]] = field(
        default_factory=lambda: {number: ("INBOX", frozenset()) for number in range(1, MESSAGES + 1)}
    )
    loose: list[tuple[str, Held]] = field(default_factory=list)

    def takes(self, what: str, number: int, argument: str) -> bool:
        """Apply a change. False: it makes no sense after what came before."""
        if what == "append":
            self.loose.append((argument, (raw(number), frozenset())))
            return True
        if number not in self.places:
            return False
        path, held = self.places[number]
        if what == "add":
            self.places[number] = (path, held | {argument})
        elif what == "remove":
            self.places[number] = (path, held - {argument})
        elif what == "copy":
            self.loose.append((argument, (raw(number), held)))
        elif argument:
            self.places[number] = (argument, held)
        else:
            del self.places[number]
        return True

    def held(self) -> dict[str, Counter[Held]]:
        found: dict[str, Counter[Held]] = {path: Counter() for path in PATHS}
        for number, (path, held) in self.places.items():
            found[path][raw(number), held] += 1
        for path, one in self.loose:
            found[path][one] += 1
        return found


def shown(server: FakeImap) -> dict[str, Counter[Held]]:
    return {path: Counter((one.raw, one.flags) for one in server.mailbox(path).messages.values()) for path in PATHS}


async def carry_out(data_dir: Path, capabilities: str, wanted: list[Any], faults: list[Any], dies: list[int]) -> None:
    model = Model()
    mailboxes = [FakeMailbox(path, uid_validity=7 + number) for number, path in enumerate(PATHS)]
    async with FakeImap(*mailboxes, capabilities=capabilities) as server:
        server.inbox.add(*(raw(number) for number in range(1, MESSAGES + 1)))
        async with account_on(server, data_dir, running=False) as account:
            assert not (await account.sync.run_once()).errors
            ids = await account.message_ids()
            for what, number, argument in wanted:
                if model.takes(what, number, argument):
                    await request(account, what, number, argument)
        for verb, applied in faults:
            server.fault(verb, cut(at=0), applied=applied)
        for steps in dies:
            async with account_on(server, data_dir, running=False) as account:
                await die_after(account, steps)
        server_is_well = False
        async with account_on(server, data_dir, running=False) as account:
            for _ in range(40):
                let_time_pass(account, 3600.0)
                report = await account.sync.write_once()
                async with account.database.read() as connection:
                    open_rows = await requests.count_open(connection)
                if not report.errors and not open_rows:
                    server_is_well = True
                    break
            assert server_is_well, "it never came through"
            rows = await rows_of(account)
            assert {str(row.state) for row in rows} <= {"done"}, [(row.kind, row.error) for row in rows]
            assert shown(server) == model.held()
            server.heal()
            assert not (await account.sync.run_once()).errors
            for number, (path, _) in model.places.items():
                assert ids[number] in (await account.message_ids(path)).values()
        await check(server, data_dir)


async def rows_of(account: SyncedAccount) -> list[Any]:
    async with account.database.read() as connection:
        return list(await requests.list_requests(connection, account.account_id, limit=1000))


async def request(account: SyncedAccount, what: str, number: int, argument: str) -> None:
    if what == "append":
        await ask_append(account, argument, raw(number))
    elif what in ("add", "remove"):
        await ask(account, "flags", "INBOX", number, **{what: [argument]})
    else:
        await ask(account, what, "INBOX", number, argument or None)


async def die_after(account: SyncedAccount, steps: int) -> None:
    """The process ends after so many turns of the loop: what is committed then is all that is left."""
    let_time_pass(account, 3600.0)
    task = asyncio.create_task(account.sync.write_once())
    for _ in range(steps):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def empty(data_dir: Path) -> Path:
    """An empty store, to be copied: making one is most of what an example takes."""

    async def make() -> None:
        database = await stores.open_database(data_dir)
        await database.close()

    asyncio.run(make())
    return data_dir


@pytest.mark.both_databases
def test_every_request_happens_once_and_in_order(empty: Path, tmp_path: Path, database_make: str) -> None:
    # An example takes half a second, on PostgreSQL a second: fewer of them than the profile says.
    share = 0.6 if database_make == "sqlite" else 0.2
    examples = iter(range(1_000_000))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        @settings(max_examples=int(settings().max_examples * share))
        @given(st.sampled_from(SERVERS), st.lists(changes, min_size=1, max_size=8), cuts, deaths)
        def example(capabilities: str, wanted: list[Any], faults: list[Any], dies: list[int]) -> None:
            data_dir = tmp_path / str(next(examples))
            stores.copy(empty, data_dir)
            runner.run(carry_out(data_dir, capabilities, wanted, faults, dies))
            stores.remove(data_dir)

        example()
