"""`mailmill verify` as its user runs it, and the look that the service takes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import stores, truth
from harness.other_client import OtherClient
from harness.patience import eventually
from harness.service import mailmill, service
from harness.verifying import break_store
from servers.dovecot import Dovecot

pytestmark = [pytest.mark.children_only, pytest.mark.both_databases]

LOSE_TWO = "DELETE FROM place WHERE uid IN (2, 3) AND mailbox_id = (SELECT id FROM mailbox WHERE path = 'INBOX')"


def raw(number: int) -> bytes:
    return f"From: ann@example.org\r\nSubject: number {number}\r\n\r\nHello, number {number}.\r\n".encode()


@pytest.fixture
def configure(tmp_path: Path, data_dir: Path) -> Callable[..., Path]:
    def write(server: Dovecot, user: str, *, password: str = "x", verify_seconds: float = 0) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(
            f"""
[service]
data_dir = "data"
database_url = "{stores.database_url(data_dir)}"
listen = "127.0.0.1:0"
verify_interval_seconds = {verify_seconds}
[accounts.work]
username = "{user}"
password = "{password}"
imap = {{ host = "{server.host}", port = {server.port}, tls = "none" }}
[processors]
enabled = []
"""
        )
        path.chmod(0o600)
        return path

    return write


async def in_step(server: Dovecot, user: str, data_dir: Path) -> None:
    async with OtherClient(server.host, server.port, user, server.password) as other:
        await asyncio.to_thread(truth.check, data_dir, await other.truth())


async def test_through_a_running_service(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path
) -> None:
    await dovecot.add_messages(mail_user, "INBOX", [raw(number) for number in range(1, 6)])
    config, data_dir = configure(dovecot, mail_user), tmp_path / "data"
    async with service(config, data_dir / "mailmill.sock") as running:
        await running.post("/v1/sync")
        clean = await mailmill(config, "verify", "--full")
        assert clean.code == 0, clean.err
        assert clean.out.split() == [
            *("ACCOUNT", "MAILBOXES", "MESSAGES", "CONTENTS", "GAPS", "REPAIRED", "TIME", "RESULT"),
            *("work", "4", "5", "5", "0", "0"),
            *clean.out.split()[14:16],
            "ok",
        ]
        assert (await running.get("/v1/account/work"))["verify"]["gaps"] == {}

        await break_store(data_dir, LOSE_TWO)
        found = await mailmill(config, "verify", "--account", "work", "--seed", "3")
        assert found.code == 1
        assert "the cursor has passed it, and nothing would ever fetch it" in found.out
        assert "2:3" in found.out
        assert "hint: mailmill verify --repair" in found.err
        [state] = (await running.get("/v1/verify"))["accounts"]
        assert (state["account"], state["running"]) == ("work", None)
        assert state["last"]["gaps"]["missing"] == 2
        assert 'mailmill_verify_gaps{account="work",kind="missing"} 2.0' in (await running.http.get("/metrics")).text

        mended = await mailmill(config, "verify", "--repair", "--json")
        assert mended.code == 0, mended.out
        report = mended.json()
        assert report["clean"] is True
        [account] = report["accounts"]
        assert (account["gaps"], account["counts"], account["error"]) == ([], {}, None)
        assert {"kind": "missing", "uids": "2:3", "count": 2}.items() <= account["repaired"][-1].items()
        await in_step(dovecot, mail_user, data_dir)

        unknown = await mailmill(config, "verify", "--account", "nobody")
        assert unknown.code == 3
        assert "no account 'nobody'" in unknown.err
        refused = await running.http.post("/v1/verify", json={"fully": True})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalidRequest")


async def test_without_a_service(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path
) -> None:
    await dovecot.add_messages(mail_user, "INBOX", [raw(number) for number in range(1, 6)])
    config, data_dir = configure(dovecot, mail_user), tmp_path / "data"
    assert (await mailmill(config, "sync")).code == 0
    await break_store(data_dir, "UPDATE message SET deleted_at = 1 WHERE subject = 'number 2'")
    found = await mailmill(config, "verify")
    assert (found.code, "counts as deleted" in found.out) == (1, True)
    mended = await mailmill(config, "verify", "--repair")
    assert mended.code == 0, mended.out + mended.err
    assert (await mailmill(config, "verify")).code == 0
    await in_step(dovecot, mail_user, data_dir)


async def test_an_account_that_cannot_be_reached(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path]
) -> None:
    refused = await mailmill(configure(dovecot, mail_user, password="wrong"), "verify", "--json")
    assert refused.code == 4, refused.out
    [account] = refused.json()["accounts"]
    assert account["error"]["code"] == "authentication"
    assert account["gaps"] == []


async def test_the_service_looks_by_itself(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path
) -> None:
    await dovecot.add_messages(mail_user, "INBOX", [raw(number) for number in range(1, 6)])
    config, data_dir = configure(dovecot, mail_user, verify_seconds=1), tmp_path / "data"
    async with service(config, data_dir / "mailmill.sock") as running:
        await running.post("/v1/sync")
        await break_store(data_dir, LOSE_TWO)
        shown = await eventually(
            lambda: running.get("/v1/account/work"), lambda account: account["verify"] and account["verify"]["gaps"]
        )
        assert shown["verify"]["gaps"]["missing"] == 2
        metrics = (await running.http.get("/metrics")).text
        assert 'mailmill_verify_gaps{account="work",kind="missing"} 2.0' in metrics
        assert 'mailmill_verify_last_timestamp_seconds{account="work"}' in metrics
        await running.until_line("the store differs from the server")
        # It tells, and mends nothing.
        assert (await mailmill(config, "verify", "--repair")).code == 0
        await in_step(dovecot, mail_user, data_dir)
