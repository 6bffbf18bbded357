"""A crash at every commit point of requests that go wrong: one is refused for good, some are put off, one is about a
message that somebody moved. (`tests/chaos/test_write_back_kill` kills real processes where all goes well.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from harness import stores, truth
from harness.crash_explorer import Mortal, is_crash
from harness.fake_imap import PLAIN, QRESYNC, FakeImap
from harness.fake_imap_faults import refused
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import let_time_pass
from harness.requesting import ask, ask_append, now, outcome
from harness.syncing import SyncedAccount, synced_account
from mailmill.store import requests
from mailmill.store.request_rows import RequestRow

PASSES = 4
ENDS = [
    ("done", "", ""),
    ("failed", "notFound", "the server has no mailbox 'Nowhere'"),
    ("done", "", ""),
    ("done", "", ""),
    ("done", "", ""),
]


def raw(number: int) -> bytes:
    return f"Message-ID: <{number}@example.org>\r\nSubject: {number}\r\n\r\n{number}\r\n".encode()


def made(capabilities: str) -> FakeImap:
    server = FakeImap(FakeMailbox(), FakeMailbox("Archive", uid_validity=9), capabilities=capabilities)
    server.inbox.add(*(raw(number) for number in range(1, 5)))
    return server


def process(server: FakeImap, data_dir: Path) -> AbstractAsyncContextManager[SyncedAccount]:
    return synced_account(data_dir, server.endpoint(), server.credentials(), running=False)


async def asked(server: FakeImap, data_dir: Path) -> list[RequestRow]:
    async with process(server, data_dir) as account:
        assert not (await account.sync.run_once()).errors
        return [
            await ask(account, "flags", "INBOX", 1, add=[r"\Seen"]),
            await ask(account, "move", "INBOX", 2, "Nowhere"),
            await ask(account, "flags", "INBOX", 3, add=[r"\Flagged"]),
            await ask(account, "delete", "INBOX", 4, "Archive"),
            await ask_append(account, "Archive", raw(9)),
        ]


def meanwhile(server: FakeImap) -> None:
    """Somebody moves the first message, and the server is out of sorts."""
    server.inbox.move(1, server.mailbox("Archive"))
    server.fault(rb"UID STORE 3 ", refused("NO", "[INUSE] somebody has it"), applied=False)
    server.fault(rb"APPEND", refused("NO", "[UNAVAILABLE] later"), applied=False)


async def live(server: FakeImap, data_dir: Path) -> None:
    async with process(server, data_dir) as account:
        for number in range(PASSES):
            let_time_pass(account, 3600.0 * number)
            report = await account.sync.run_once()
            assert not report.errors, report.errors
            async with account.database.read() as connection:
                if not await requests.count_open(connection):
                    return


async def check(server: FakeImap, data_dir: Path, rows: Sequence[RequestRow]) -> list[RequestRow]:
    async with process(server, data_dir) as account:
        held = [await now(account, row) for row in rows]
    assert [outcome(row) for row in held] == ENDS
    content = {
        path: sorted((one.raw, one.flags - {r"\Recent"}) for one in server.mailbox(path).messages.values())
        for path in ("INBOX", "Archive")
    }
    assert content == {
        "INBOX": [(raw(2), frozenset()), (raw(3), frozenset({r"\Flagged"}))],
        "Archive": [(raw(1), frozenset({r"\Seen"})), (raw(4), frozenset()), (raw(9), frozenset())],
    }
    await asyncio.to_thread(truth.check, data_dir, server.truth())
    return held


@pytest.fixture
def template(new_data_dir: Callable[[str], Path]) -> Path:
    return new_data_dir("template")


@pytest.mark.timeout(600)
@pytest.mark.both_databases(capabilities=(QRESYNC,))
@pytest.mark.parametrize("capabilities", [QRESYNC, PLAIN.replace(" MOVE", "")], ids=["qresync", "plain, without MOVE"])
async def test_requests_that_go_wrong(capabilities: str, template: Path, tmp_path: Path) -> None:
    async with made(capabilities) as server:
        rows = await asked(server, template)
    crashes = 0
    while True:
        data_dir = tmp_path / f"life{crashes + 1}"
        await asyncio.to_thread(stores.copy, template, data_dir)
        mortal = Mortal(crashes + 1)
        async with made(capabilities) as server:
            meanwhile(server)
            with mortal.living():
                try:
                    await live(server, data_dir)
                except BaseException as error:
                    if not is_crash(error):
                        raise
            try:
                if mortal.dead:
                    await live(server, data_dir)
                held = await check(server, data_dir, rows)
            except BaseException as error:
                error.add_note(f"after a crash at commit point {crashes + 1}: {mortal.points[-1:]}")
                raise
        await asyncio.to_thread(stores.remove, data_dir)
        if not mortal.dead:
            break
        crashes += 1
    # Without a crash: moved on once; put off once each.
    assert [row.attempts for row in held] == [3, 0, 2, 1, 2] or "MOVE" not in capabilities
    assert crashes > 20
