"""``kill -9`` of an account that carries out requests, before and after every commit and every command's answer.

What was asked for happens once, whatever was cut. After each kill the process is started again and gets the account
whole; then every request is done, the server holds what was asked for and no copy more, the store equals the server,
and each message has kept its id.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chaos.test_sync_kill import Account, Program, live_account, phases, raw
from harness import truth
from harness.other_client import OtherClient
from servers.dovecot import Dovecot

KILLS = 2
# What is committed on the way of a request, and the moments in which a command's answer is just there.
COMMITTED = phases("request", "request_begun", "request_done")
ANSWERED = ["answered/UID STORE", "answered/UID MOVE", "answered/UID COPY", "answered/APPEND", "answered/UID EXPUNGE"]
WITHOUT_MOVE = [*phases("request_copied"), "answered/UID COPY", "answered/UID EXPUNGE"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    running = Program(tmp_path_factory.mktemp("empty"))
    yield running
    running.end()


def asked(round_number: int) -> list[dict[str, Any]]:
    """One of each kind. Messages are named by their content."""
    first = 100 * (round_number + 1)
    return [
        {"kind": "flags", "number": first + 1, "add": [r"\Flagged", "todo"]},
        {"kind": "move", "number": first + 2, "target": "Archive"},
        {"kind": "move", "number": first + 3, "target": "Archive"},
        {"kind": "flags", "number": first + 2, "add": [r"\Seen"]},
        {"kind": "copy", "number": first + 4, "target": "Archive"},
        {"kind": "delete", "number": first + 5},
        {"kind": "append", "number": first + 9, "target": "Archive"},
    ]


def expected(round_number: int) -> dict[str, Counter[tuple[bytes, frozenset[str]]]]:
    first = 100 * (round_number + 1)
    none: frozenset[str] = frozenset()
    return {
        "INBOX": Counter({(raw(first + 1), frozenset({r"\Flagged", "todo"})): 1, (raw(first + 4), none): 1}),
        "Archive": Counter(
            {
                (raw(first + 2), frozenset({r"\Seen"})): 1,
                (raw(first + 3), none): 1,
                (raw(first + 4), none): 1,
                (raw(first + 9), none): 1,
            }
        ),
    }


async def kill_twice(account: Account, phase: str, **options: Any) -> None:
    async with account.client() as other:
        await other.create("Archive")
        wanted: dict[str, Counter[tuple[bytes, frozenset[str]]]] = {"INBOX": Counter(), "Archive": Counter()}
        for path, held in (await other.truth()).items():
            if path in wanted:
                wanted[path] += Counter((content, flags) for flags, content in held.values())
        for round_number in range(KILLS):
            first = 100 * (round_number + 1)
            await other.append("INBOX", *(raw(first + number) for number in range(1, 6)))
            assert await account.run(phase, live=True, **options) == {"ready": True}
            await account.check(other)
            ids = await asyncio.to_thread(_ids, account.data_dir)
            await account.program.tell({"ask": asked(round_number)})
            assert await account.program.hear() == {"ended": -signal.SIGKILL}
            # What had not been asked for before it died is asked for again, under the same keys.
            assert await account.run(live=True, **options) == {"ready": True}
            await account.program.tell({"ask": asked(round_number)})
            assert await account.program.hear() == {"asked": True}
            await account.program.tell({"finish": True})
            assert await account.program.hear() == {"ended": 0}
            for path, some in expected(round_number).items():
                wanted[path] += some
            await check(account, other, wanted, ids)
    assert (await account.logged()).count(f"killed at {phase}") == KILLS


async def check(
    account: Account,
    other: OtherClient,
    wanted: dict[str, Counter[tuple[bytes, frozenset[str]]]],
    ids: dict[bytes, int],
) -> None:
    server = await other.truth()
    for path, some in wanted.items():
        assert Counter((content, flags) for flags, content in server[path].values()) == some, path
    await account.check(other)
    await asyncio.to_thread(_check_requests, account.data_dir)
    now = await asyncio.to_thread(_ids, account.data_dir)
    assert {content: now[content] for content in ids} == ids, "a message has another id"


def _check_requests(data_dir: Path) -> None:
    with truth.opened(data_dir) as store:
        rows = store.execute("SELECT kind, state, last_error FROM request").fetchall()
    assert {state for _, state, _ in rows} == {"done"}, rows


def _ids(data_dir: Path) -> dict[bytes, int]:
    with closing(sqlite3.connect(f"file:{data_dir}/mailmill.db?mode=ro", uri=True, timeout=10)) as store:
        return {bytes(sha256): message_id for message_id, sha256 in store.execute("SELECT id, sha256 FROM message")}


@pytest.mark.parametrize("phase", [*COMMITTED, *ANSWERED])
async def test_killed_while_carrying_out_requests(
    program: Program, dovecot: Dovecot, data_dir: Path, phase: str
) -> None:
    await kill_twice(await live_account(program, dovecot, data_dir), phase)


@pytest.mark.parametrize("phase", WITHOUT_MOVE)
async def test_killed_where_the_server_has_no_move(
    program: Program, dovecot_plain: Dovecot, data_dir: Path, phase: str
) -> None:
    await kill_twice(await live_account(program, dovecot_plain, data_dir), phase)
