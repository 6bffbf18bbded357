"""``kill -9`` of an account in sync, before and after every commit point: what was killed is taken up where it was.

After each kill the process is started again and gets the account whole; then the store must equal the server (UIDs,
flags, contents), each message have one id and one messageNew, and each processor one recorded result for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from harness import truth
from harness.other_client import OtherClient
from harness.syncing import PROCESSORS
from servers.dovecot import Dovecot

KILLS = 3
WRITTEN = ["uncommitted", "committed"]
BLOBS = ["blobs/unwritten", "blobs/synced"]


def phases(*points: str) -> list[str]:
    return [f"{point}/{when}" for point in points for when in WRITTEN]


FIRST_SYNC = [*phases("account", "state", "mailboxes", "new", "added", "initialized", "claim", "finish"), *BLOBS, "ran"]
# Come to once in a first sync.
ONCE = ("account", "mailboxes", "initialized")
LIVE = [
    *phases("mailboxes", "new", "added", "flags", "expunged", "cursor", "deleted", "generation", "old_generation"),
    *phases("claim", "finish"),
    *BLOBS,
    "ran",
]
# Transactions that change nothing of what is promised: proof of life, and looks that found nothing.
HARMLESS = set(phases("quiet", "heartbeat", "retired"))


def raw(number: int, size_bytes: int = 0) -> bytes:
    return f"Subject: mail {number}\r\nTo: me@example.org\r\n\r\n{'x' * size_bytes}{number}\r\n".encode()


class Program:
    """`sync_program`, waiting for jobs."""

    def __init__(self, folder: Path) -> None:
        self.empty_store = folder / "mailmill.db"
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives until end()
        # Whole packets, so that a child that is killed while it reads leaves no torn line to its parent.
        self._jobs, stdin = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with stdin:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("sync_program.py")), str(folder)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), self._said()

    def end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._jobs.close()
        self._stderr.close()

    async def tell(self, what: dict[str, Any]) -> None:
        await asyncio.to_thread(self._jobs.sendall, json.dumps(what).encode())

    async def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        answer: dict[str, Any] = json.loads(line or b'{"ended": "itself"}')
        if answer.get("ended", 0) not in (0, -signal.SIGKILL):
            raise AssertionError(f"{answer}: {await asyncio.to_thread(self._said)}")
        return answer

    def _said(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")[-4000:]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    running = Program(tmp_path_factory.mktemp("empty"))
    yield running
    running.end()


@dataclass(slots=True)
class Account:
    """One user's mail, the store it is synced into, and the log of the phases that were come to."""

    program: Program
    server: Dovecot
    user: str
    data_dir: Path

    @property
    def log(self) -> Path:
        return self.data_dir / "phases.log"

    def client(self) -> OtherClient:
        return OtherClient(self.server.host, self.server.port, self.user, self.server.password)

    async def run(self, phase: str = "", at: int = 1, *, live: bool = False) -> dict[str, Any]:
        """Start a job; what the program says first."""
        await asyncio.to_thread(self._make_store)
        where = {"host": self.server.host, "port": self.server.port, "user": self.user}
        await self.program.tell(
            {
                "data_dir": str(self.data_dir),
                "log": str(self.log),
                "password": self.server.password,
                "phase": phase,
                "at": at,
                "live": live,
                **where,
            }
        )
        return await self.program.hear()

    def _make_store(self) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        if not (self.data_dir / "mailmill.db").exists():
            shutil.copy(self.program.empty_store, self.data_dir)

    async def logged(self) -> list[str]:
        """Every phase that was come to, in order; ``killed at …`` where it was the last."""
        return (await asyncio.to_thread(self.log.read_text)).splitlines()

    async def check(self, other: OtherClient) -> None:
        held = await other.truth()
        await asyncio.to_thread(truth.check, self.data_dir, held)
        await asyncio.to_thread(self._check_work)

    def _check_work(self) -> None:
        with truth.opened(self.data_dir) as store:
            every = Counter(
                (message_id, name, version)
                for (message_id,) in store.execute("SELECT id FROM message")
                for name, version in PROCESSORS
            )
            assert Counter(store.execute("SELECT message_id, processor, version FROM result")) == every
            assert Counter(store.execute("SELECT * FROM written")) == every, "a result was recorded twice"
            assert store.execute("SELECT * FROM work").fetchall() == []
            processed = Counter(store.execute("SELECT message_id FROM event WHERE event = 'messageProcessed'"))
            assert processed == Counter(store.execute("SELECT id FROM message"))
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.fixture(scope="module")
def history(dovecot: Dovecot) -> str:
    """A user with some mail that no test changes: the same content twice, in one mailbox and in two, and a long one."""
    user = dovecot.new_user()
    dovecot.fill(user, "INBOX", [*(raw(number) for number in range(1, 9)), raw(3), raw(9, 5000)], [r"\Seen"])
    dovecot.fill(user, "Archive", [raw(100), raw(2)])
    return user


@pytest.mark.parametrize("phase", FIRST_SYNC)
async def test_killed_during_a_first_sync(
    program: Program, dovecot: Dovecot, history: str, tmp_path: Path, phase: str
) -> None:
    wanted = [1] * KILLS if phase.startswith(ONCE) else list(range(1, KILLS + 1))
    kills = 0
    async with Account(program, dovecot, history, tmp_path).client() as other:
        for round_number in range(2 * KILLS):
            account = Account(program, dovecot, history, tmp_path / str(round_number))
            ended = (await account.run(phase, wanted.pop(0)))["ended"]
            if ended == 0:
                # It never came there so often: then at the first time once more.
                wanted.append(1)
                continue
            assert (await account.logged())[-1] == f"killed at {phase}"
            assert await account.run() == {"ended": 0}
            await account.check(other)
            kills += 1
            if kills == KILLS:
                break
    assert kills == KILLS


async def live_account(program: Program, server: Dovecot, data_dir: Path) -> Account:
    account = Account(program, server, server.new_user(), data_dir)
    async with account.client() as other:
        await other.append("INBOX", *(raw(number) for number in range(1, 11)))
        await other.append("Sent", raw(20))
        await other.create("Lists")
        await other.append("Lists", raw(30), raw(31), raw(32))
    return account


async def change_mail(_account: Account, other: OtherClient, round_number: int) -> None:
    """Append, flag, move, expunge, a flag that is taken back, a mailbox made and one deleted."""
    inbox = sorted((await other.truth())["INBOX"])
    first = 1000 + 10 * round_number
    await other.append("INBOX", raw(first), raw(first + 1, 5000), flags=[r"\Answered"])
    await other.set_flags("INBOX", f"{inbox[0]},{inbox[3]}", rf"\Flagged mark{round_number}")
    await other.move("INBOX", f"{inbox[1]}", "Archive")
    await other.expunge("INBOX", f"{inbox[2]}")
    await other.set_flags("Sent", "1", r"\Flagged", action="+FLAGS")
    await other.set_flags("Sent", "1", r"\Flagged", action="-FLAGS")
    await other.create(f"Box {round_number}")
    if round_number:
        await other.delete(f"Box {round_number - 1}")


async def change_everything(account: Account, other: OtherClient, round_number: int) -> None:
    """All that, and a mailbox renumbered under another UIDVALIDITY."""
    await change_mail(account, other, round_number)
    await account.server.reset_uid_validity(account.user, "Lists")


Change = Callable[[Account, OtherClient, int], Awaitable[None]]


async def kill_live(account: Account, phase: str, change: Change) -> None:
    """Kill it three times, each while another client is at work; each start is the recovery from the kill before."""
    async with account.client() as other:
        for round_number in range(KILLS):
            assert await account.run(phase, live=True) == {"ready": True}
            await account.check(other)
            await change(account, other, round_number)
            await account.program.tell({"finish": True})
            assert await account.program.hear() == {"ended": -signal.SIGKILL}
        assert await account.run() == {"ended": 0}
        await account.check(other)
    assert (await account.logged()).count(f"killed at {phase}") == KILLS


@pytest.mark.parametrize("phase", LIVE)
async def test_killed_during_live_changes(program: Program, dovecot: Dovecot, data_dir: Path, phase: str) -> None:
    change = change_everything if "generation" in phase else change_mail
    await kill_live(await live_account(program, dovecot, data_dir), phase, change)


@pytest.mark.parametrize("phase", phases("new", "added", "flags", "expunged"))
async def test_killed_during_live_changes_without_mod_sequences(
    program: Program, dovecot_plain: Dovecot, data_dir: Path, phase: str
) -> None:
    await kill_live(await live_account(program, dovecot_plain, data_dir), phase, change_mail)


async def test_every_commit_point_is_on_the_list(program: Program, dovecot: Dovecot, data_dir: Path) -> None:
    """A transaction of a new kind must be killed too."""
    account = await live_account(program, dovecot, data_dir)
    async with account.client() as other:
        for round_number in range(2):
            assert await account.run(live=True) == {"ready": True}
            await change_everything(account, other, round_number)
            await account.program.tell({"finish": True})
            assert await account.program.hear() == {"ended": 0}
        await account.check(other)
    assert set(await account.logged()) - HARMLESS == {*FIRST_SYNC, *LIVE}
