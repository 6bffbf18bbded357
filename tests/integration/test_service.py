"""The spine end to end: mail arrives on a real server, and someone is told."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from harness.patience import eventually
from harness.service import mailmill, service
from servers.dovecot import Dovecot
from servers.webhook_receiver import WebhookReceiver

pytestmark = pytest.mark.children_only

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ...").decode()

PHISHING = b"""Authentication-Results: mx.example.org; spf=fail; dkim=none; dmarc=fail header.from=paypa1-review.example
From: PayPal Service <security@paypa1-review.example>
To: me@example.org
Reply-To: desk@freemail.example
Subject: Your account has been limited
Message-ID: <phish@example.net>
Date: Sat, 21 Nov 2026 10:00:00 +0000
MIME-Version: 1.0
Content-Type: text/html; charset=utf-8

<p>Verify within 24 hours: <a href="http://paypal.com.login-check.example/verify">https://www.paypal.com/verify</a></p>
""".replace(b"\n", b"\r\n")


def plain(number: int) -> bytes:
    return (
        f"From: Ann <ann@example.org>\r\nTo: me@example.org\r\nSubject: number {number}\r\n"
        f"Message-ID: <{number}@example.org>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\r\n"
        f"Hello, number {number}.\r\n"
    ).encode()


@pytest.fixture
def configure(tmp_path: Path, database_url: str) -> Callable[..., Path]:
    """Writes the configuration; only the URL tells the two databases apart."""

    def write(server: Dovecot, user: str, extra: str = "", password: str = "x") -> Path:
        path = tmp_path / "config.toml"
        path.write_text(
            f"""
[service]
data_dir = "data"
database_url = "{database_url}"
listen = "127.0.0.1:0"
[accounts.work]
email = "me@example.org"
authserv_id = "mx.example.org"
username = "{user}"
password = "{password}"
imap = {{ host = "{server.host}", port = {server.port}, tls = "none" }}
{extra}
"""
        )
        path.chmod(0o600)
        return path

    return write


async def test_mail_arrives_is_processed_and_told(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path
) -> None:
    await dovecot.add_message(mail_user, "INBOX", plain(1))
    rules = tmp_path / "own.yar"
    rules.write_text('rule limited { strings: $a = "Subject: Your account" condition: $a and part == "message" }')
    async with WebhookReceiver() as receiver:
        config = configure(
            dovecot,
            mail_user,
            f"""
[threat]
yara_rules = ["{rules}"]

[destinations.hook]
kind = "webhook"
url = "{receiver.url}"
secret = "{SECRET}"
allow_private = true
events = ["messageNew", "messageProcessed", "threatFound"]
""",
        )
        async with service(config, tmp_path / "data/mailmill.sock") as running:
            await running.post("/v1/sync", {"process": True})
            cursor = int((await running.get("/v1/status"))["cursor"])
            await dovecot.append(mail_user, "INBOX", PHISHING)
            names = {"messageNew", "messageProcessed", "threatFound"}
            requests = await receiver.wait_for(
                lambda received: names <= {request.json["event"] for request in received}
            )
            told = {}
            for request in requests:
                Webhook(SECRET).verify(request.body, request.headers)
                told[request.json["event"]] = request.json
            new, done, threat = told["messageNew"], told["messageProcessed"], told["threatFound"]
            assert new["data"]["subject"] == "Your account has been limited"
            assert new["path"] == "INBOX"
            assert done["data"]["id"] == new["data"]["id"] == threat["data"]["id"]
            assert done["data"]["threat"]["verdict"] in ("suspicious", "malicious")
            assert done["data"]["summary"]
            assert done["data"]["category"]
            event = await running.until_event("threatFound", cursor)
            assert event["id"] == threat["id"]

            listing = await running.get("/v1/account/work/messages", path="INBOX")
            assert [row["subject"] for row in listing["messages"]] == ["Your account has been limited", "number 1"]
            message_id = listing["messages"][0]["id"]
            detail = await running.get(f"/v1/account/work/message/{message_id}")
            assert "own_rules.yara.limited" in {one["id"] for one in detail["threat"]["findings"]}
            assert set(detail["results"]) == {"threat", "summary", "category"}
            source = await running.http.get(f"/v1/account/work/message/{message_id}/source")
            assert source.content == PHISHING
            status = await running.until_status(lambda figures: figures["queue"]["completed"] == 6)
            assert status["accounts"] == {"connected": 1}
            assert (status["queue"]["pending"], status["queue"]["failed"]) == (0, 0)
            # The first may have been found by a pass; this one comes when nothing else is due.
            await dovecot.append(mail_user, "INBOX", plain(2))
            await receiver.wait_for(
                lambda received: sum(request.json["event"] == "messageNew" for request in received) == 2
            )
            metrics = (await running.http.get("/metrics")).text
            assert 'mailmill_account_seconds_since_round_trip{account="work"}' in metrics
            assert "mailmill_messages_stored_total 3.0" in metrics
            timed = re.search(r"^mailmill_arrival_to_stored_seconds_count ([0-9.]+)$", metrics, re.MULTILINE)
            assert timed is not None and float(timed[1]) in (1, 2)
            # History was processed, but nobody was told of it.
            assert "number 1" not in str([envelope["data"].get("subject") for envelope in told.values()])
            assert await running.stop() == 0
    assert not (tmp_path / "data/mailmill.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_in_time_and_leaves_its_folder_to_the_next(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path, number: signal.Signals
) -> None:
    config = configure(dovecot, mail_user)
    for _ in range(2):
        async with service(config, tmp_path / "data/mailmill.sock") as running:
            await running.post("/v1/sync")
            assert await running.stop(number) == 0


async def test_it_stops_in_time_whatever_hangs(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path
) -> None:
    """A `def` processor that sleeps in a thread, a request that waits for it, and one that polls long."""
    began = tmp_path / "began"
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\nfrom mailmill import processor\n\n"
        "@processor('slow', timeout_seconds=120)\n"
        "def slow(message, context):\n"
        f"    pathlib.Path({str(began)!r}).touch()\n"
        "    time.sleep(60)\n"
        "    return {}\n"
    )
    await dovecot.add_message(mail_user, "INBOX", plain(1))
    config = configure(dovecot, mail_user, '[processors]\nimport = ["slow:slow"]')
    socket = tmp_path / "data/mailmill.sock"
    async with service(config, socket, environ={"PYTHONPATH": str(tmp_path)}) as running:
        hanging = [
            asyncio.create_task(running.http.post("/v1/sync", json={"process": True})),
            asyncio.create_task(running.http.get("/v1/events", params={"after": 1_000_000, "wait": 30})),
        ]
        await eventually(lambda: asyncio.to_thread(began.exists))
        assert await running.stop() == 0
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_thread_that_does_not_come_back_is_counted(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "hung.py").write_text(
        "import time\nfrom mailmill import processor\n\n"
        "@processor('hung', timeout_seconds=0.2)\n"
        "def hung(message, context):\n"
        "    time.sleep(600)\n"
    )
    await dovecot.add_message(mail_user, "INBOX", plain(1))
    config = configure(dovecot, mail_user, '[processors]\nimport = ["hung:hung"]')
    async with service(config, tmp_path / "data/mailmill.sock", environ={"PYTHONPATH": str(tmp_path)}) as running:

        async def counted() -> bool:
            metrics = (await running.http.get("/metrics")).text
            stuck = re.search(r"^mailmill_processor_threads_stuck ([0-9.]+)$", metrics, re.MULTILINE)
            return stuck is not None and float(stuck[1]) >= 1

        await eventually(counted)
        assert await running.stop() == 0


async def test_a_secret_that_is_not_set_stops_what_needs_it_and_nothing_else(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path]
) -> None:
    hook = '[destinations.hook]\nkind = "webhook"\nurl = "https://example.org/"\nsecret_env = "HOOK_SECRET_OF_TEST"'
    config = configure(dovecot, mail_user, hook)
    assert (await mailmill(config, "status")).code == 0
    assert (await mailmill(config, "sync", "--no-process")).code == 0
    for command in ("run", "sync"):
        refused = await mailmill(config, command)
        assert refused.code == 2, refused.err
        assert "HOOK_SECRET_OF_TEST" in refused.err
        assert refused.err.count("error:") == 1
        assert "Traceback" not in refused.err


async def test_one_pass_without_a_service(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path
) -> None:
    await dovecot.add_messages(mail_user, "INBOX", [plain(1), plain(2)])
    config = configure(dovecot, mail_user)
    first = await mailmill(config, "sync", "--json")
    assert first.code == 0, first.err
    [account] = first.json()["accounts"]
    assert (account["new"], account["mailboxes"], account["error"]) == (2, 4, None)
    listing = (await mailmill(config, "envelope", "list", "--json")).json()
    assert {row["status"] for row in listing["messages"]} == {"completed"}
    read = await mailmill(config, "message", "read", listing["messages"][0]["id"])
    assert "Hello, number" in read.out
    await dovecot.append(mail_user, "INBOX", plain(3))
    queued = await mailmill(config, "sync", "--no-process", "--json")
    assert queued.json()["accounts"][0]["new"] == 1
    status = (await mailmill(config, "status", "--json")).json()
    assert status["queue"]["pending"] == 3


async def test_the_command_line_speaks_to_the_service(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path
) -> None:
    config = configure(dovecot, mail_user)
    async with service(config, tmp_path / "data/mailmill.sock") as running:
        at_once = asyncio.create_task(mailmill(config, "run"))  # it waits a while for the data folder
        await dovecot.append(mail_user, "INBOX", plain(9))
        report = (await mailmill(config, "sync", "--json")).json()
        assert report["accounts"][0]["connections_opened"] == 0
        accounts = (await mailmill(config, "account", "list", "--json")).json()
        assert accounts["accounts"][0]["state"] == "connected"
        check = (await mailmill(config, "account", "check", "work", "--json")).json()
        assert (check["ok"], check["tier"]) == (True, "qresync")
        second = await at_once
        assert second.code == 5
        assert "another mailmill service" in second.err
        assert "PostgreSQL" in second.err
        missing = await mailmill(config, "message", "read", "999999")
        assert missing.code == 3
        assert await running.stop() == 0


async def test_a_processor_of_the_users_own(
    dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "invoices.py").write_text(
        "from mailmill import processor\n\n"
        "@processor('invoice', version=2)\n"
        "def invoice(message, context):\n"
        "    return {'account': context.account, 'subject': message.summary.subject.upper()}\n"
    )
    await dovecot.add_message(mail_user, "INBOX", plain(1))
    config = configure(dovecot, mail_user, '[processors]\nimport = ["invoices:invoice"]')
    environ = {"PYTHONPATH": str(tmp_path)}
    assert (await mailmill(config, "sync", environ=environ)).code == 0
    listing = (await mailmill(config, "envelope", "list", "--json", environ=environ)).json()
    message_id = listing["messages"][0]["id"]
    detail = (await mailmill(config, "message", "read", message_id, "--json", environ=environ)).json()
    assert detail["results"]["invoice"]["value"] == {"account": "work", "subject": "NUMBER 1"}
    assert detail["results"]["invoice"]["version"] == 2
