"""Several service processes on one PostgreSQL and one mail server: one dies, one joins, one is asked for another's."""

from __future__ import annotations

import base64
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from harness.patience import eventually
from harness.service import RunningService, mailmill, service
from mailmill.settings.models import MAX_LEASE_SECONDS
from servers.dovecot import Dovecot
from servers.pgbouncer import PgBouncer
from servers.postgres import Postgres

pytestmark = pytest.mark.children_only

ENVIRON = {"MAILMILL_KEY": base64.urlsafe_b64encode(bytes(32)).decode()}
# So many that the chance of one node having them all is nothing: shards are dealt out evenly, accounts by their names.
ACCOUNTS = 6
LEASE_SECONDS = 5


def mail(subject: str) -> bytes:
    return f"From: Ann <ann@example.org>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\nHello.\r\n".encode()


class Nodes:
    """Service processes that share a database, a folder of blobs and the accounts."""

    def __init__(self, url: str, folder: Path, server: Dovecot, users: dict[str, str]) -> None:
        self.url = url
        self.listen_url = ""
        self._folder = folder
        self._server = server
        self.users = users

    def config(self, name: str, roles: str = "sync process alert api", lease_seconds: float = LEASE_SECONDS) -> Path:
        listed = ", ".join(f'"{role}"' for role in roles.split())
        accounts = "".join(
            f"""
[accounts.{account}]
email = "{account}@example.org"
username = "{user}"
password = "x"
imap = {{ host = "{self._server.host}", port = {self._server.port}, tls = "none" }}
"""
            for account, user in self.users.items()
        )
        path = self._folder / f"{name}.toml"
        path.write_text(
            f"""
[service]
data_dir = "{name}"
database_url = "{self.url}"
{f'listen_url = "{self.listen_url}"' if self.listen_url else ""}
blob_url = "{(self._folder / "blobs").as_uri()}"
listen = "127.0.0.1:0"
lease_seconds = {lease_seconds}
roles = [{listed}]
[processors]
enabled = ["summary"]
{accounts}
"""
        )
        path.chmod(0o600)
        return path

    @contextlib.asynccontextmanager
    async def node(self, name: str, **options: Any) -> AsyncIterator[RunningService]:
        path = self.config(name, **options)
        async with service(path, self._folder / name / "mailmill.sock", environ=ENVIRON) as running:
            yield running

    async def shards_of(self, node_id: str) -> int:
        """How many it has by the database, whether or not their leases hold."""
        connection = await asyncpg.connect(self.url.replace("+asyncpg", ""))
        try:
            count: int = await connection.fetchval("SELECT count(*) FROM shard WHERE node_id = $1", node_id)
        finally:
            await connection.close()
        return count


@pytest.fixture
def nodes(postgres_url: str, tmp_path: Path, dovecot: Dovecot) -> Nodes:
    (tmp_path / "blobs").mkdir()
    return Nodes(postgres_url, tmp_path, dovecot, {f"account{n}": dovecot.new_user() for n in range(ACCOUNTS)})


def spread(*, nodes: int) -> Callable[[dict[str, Any]], bool]:
    """All accounts are connected, and each of the nodes that sync has its part of the shards."""

    def ready(status: dict[str, Any]) -> bool:
        parts = sorted(node["shards"] for node in status["nodes"] if "sync" in node["roles"] and node["shards"])
        fair = len(parts) == nodes and sum(parts) == 64 and parts[-1] - parts[0] <= 1
        return fair and status["accounts"].get("connected") == ACCOUNTS

    return ready


async def owners(running: RunningService) -> dict[str, str]:
    listed = await running.get("/v1/accounts")
    return {account["account"]: account["node"] for account in listed["accounts"]}


async def subjects(running: RunningService) -> dict[str, list[str]]:
    page = await running.get("/v1/messages", pageSize=200)
    found: dict[str, list[str]] = {}
    for message in page["messages"]:
        found.setdefault(message["account"], []).append(message["subject"])
    return {account: sorted(each) for account, each in found.items()}


async def test_one_node_dies_and_the_other_takes_over_all(nodes: Nodes, dovecot: Dovecot, tmp_path: Path) -> None:
    users = nodes.users
    async with nodes.node("a") as first, nodes.node("b") as second:
        await first.until_status(spread(nodes=2))
        before = await owners(first)
        assert len(set(before.values())) == 2
        for account, user in users.items():
            await dovecot.add_message(user, "INBOX", mail(f"{account}-1"))
        one = {account: [f"{account}-1"] for account in users}
        await until(lambda: subjects(first), one)

        second.process.send_signal(signal.SIGKILL)
        await second.process.wait()
        for account, user in users.items():
            await dovecot.add_message(user, "INBOX", mail(f"{account}-2"))
        status = await first.until_status(spread(nodes=1))
        [survivor] = [node for node in status["nodes"] if node["shards"]]
        assert survivor["id"] == status["node"]["id"] and survivor["accounts"] == ACCOUNTS
        two = {account: [f"{account}-1", f"{account}-2"] for account in users}
        await until(lambda: subjects(first), two)
        await first.until_status(lambda status: status["queue"]["completed"] == 2 * ACCOUNTS)
        told = [event["event"] for event in await all_events(first)]
        assert told.count("messageNew") == told.count("messageProcessed") == 2 * ACCOUNTS, "nothing twice"
        assert told.count("messageFailed") == told.count("messageDeleted") == 0


async def test_a_fleet_behind_a_pooler_that_is_restarted(
    nodes: Nodes, dovecot: Dovecot, postgres: Postgres, postgres_url: str
) -> None:
    """Leases, queue, numbering and outbox over connections that are another one each time, then over none. A message
    that comes in between is stored and processed once, and told of once, as those before it."""
    with PgBouncer(postgres) as pooler:
        nodes.url, nodes.listen_url = pooler.url(postgres_url), postgres_url
        async with nodes.node("a") as first, nodes.node("b") as second:
            await first.until_status(spread(nodes=2))
            for account, user in nodes.users.items():
                await dovecot.add_message(user, "INBOX", mail(f"{account}-1"))
            await until(lambda: subjects(second), {account: [f"{account}-1"] for account in nodes.users})
            for account, user in nodes.users.items():
                await dovecot.add_message(user, "INBOX", mail(f"{account}-2"))
            await pooler.restart()
            for account, user in nodes.users.items():
                await dovecot.add_message(user, "INBOX", mail(f"{account}-3"))
            three = {account: [f"{account}-{number}" for number in (1, 2, 3)] for account in nodes.users}
            await until(lambda: subjects(second), three)
            await first.until_status(lambda status: status["queue"]["completed"] == 3 * ACCOUNTS)
            await first.until_status(spread(nodes=2))
            told = [event["event"] for event in await all_events(first)]
            assert told.count("messageNew") == told.count("messageProcessed") == 3 * ACCOUNTS, "nothing twice"


async def test_one_node_is_frozen_past_its_leases_and_wakes(nodes: Nodes, dovecot: Dovecot) -> None:
    """SIGSTOP, a takeover, SIGCONT: what it had is another's by then. It gets a part again, and nothing comes twice."""
    async with nodes.node("a") as first, nodes.node("b") as second:
        await first.until_status(spread(nodes=2))
        second.process.send_signal(signal.SIGSTOP)
        for account, user in nodes.users.items():
            await dovecot.add_message(user, "INBOX", mail(f"{account}-1"))
        await first.until_status(spread(nodes=1))
        await until(lambda: subjects(first), {account: [f"{account}-1"] for account in nodes.users})
        second.process.send_signal(signal.SIGCONT)
        await second.until_status(spread(nodes=2))
        for account, user in nodes.users.items():
            await dovecot.add_message(user, "INBOX", mail(f"{account}-2"))
        await until(lambda: subjects(second), {account: [f"{account}-1", f"{account}-2"] for account in nodes.users})
        await first.until_status(lambda status: status["queue"]["completed"] == 2 * ACCOUNTS)
        told = [event["event"] for event in await all_events(first)]
        assert told.count("messageNew") == told.count("messageProcessed") == 2 * ACCOUNTS, "nothing twice"


async def test_a_node_that_is_stopped_hands_over_and_one_that_comes_gets_its_part(nodes: Nodes) -> None:
    """Nobody waits for the end of a lease: with its process all that the one had is gone from it."""
    async with nodes.node("a", lease_seconds=MAX_LEASE_SECONDS) as first:
        await first.until_status(spread(nodes=1))
        async with nodes.node("b", lease_seconds=MAX_LEASE_SECONDS) as second:
            status = await second.until_status(spread(nodes=2))
            assert await nodes.shards_of(status["node"]["id"]) == 32
            assert await second.stop() == 0
            assert await nodes.shards_of(status["node"]["id"]) == 0
        status = await first.until_status(spread(nodes=1))
        assert [node["state"] for node in status["nodes"]] == ["alive"]


async def test_roles_apart_and_asked_on_a_node_that_owns_nothing(nodes: Nodes, dovecot: Dovecot) -> None:
    users = nodes.users
    async with (
        nodes.node("syncs", roles="sync") as syncs,
        nodes.node("works", roles="process alert") as works,
        nodes.node("answers", roles="api") as answers,
    ):
        await answers.until_status(spread(nodes=1))
        status = await answers.until_status(lambda status: len(status["nodes"]) == 3)
        assert {tuple(node["roles"]): node["accounts"] for node in status["nodes"]} == {
            ("sync",): ACCOUNTS,
            ("process", "alert"): 0,
            ("api",): 0,
        }
        await dovecot.add_message(users["account0"], "INBOX", mail("pushed"))
        await works.until_event("messageProcessed")

        await dovecot.add_message(users["account1"], "Other", mail("not pushed"))
        report = await answers.post("/v1/sync", {"accounts": ["account1"]})
        assert [(each["account"], each["error"]) for each in report["accounts"]] == [("account1", None)]
        found = await subjects(answers)
        assert found["account1"] == ["not pushed"]

        page = await answers.get("/v1/account/account0/messages", path="INBOX")
        [message] = page["messages"]
        changed = await answers.http.post(
            f"/v1/account/account0/message/{message['id']}/flags", json={"add": ["flagged"]}
        )
        assert changed.json()["state"] == "done", changed.text
        assert await syncs.get("/v1/status")


async def test_a_command_beside_the_service_leaves_an_account_to_its_owner(nodes: Nodes, dovecot: Dovecot) -> None:
    alone = nodes.config("shell")
    await dovecot.add_message(nodes.users["account0"], "INBOX", mail("one"))
    ran = await mailmill(alone, "sync", "--json", "--account", "account0", environ=ENVIRON)
    assert ran.code == 0, ran.err
    assert [each["new"] for each in ran.json()["accounts"]] == [1]
    async with nodes.node("a") as service_node:
        await service_node.until_status(spread(nodes=1))
        await dovecot.add_message(nodes.users["account0"], "Other", mail("two"))
        ran = await mailmill(alone, "sync", "--json", environ=ENVIRON)
        assert ran.code == 0, ran.err
        assert len(ran.json()["accounts"]) == ACCOUNTS
        assert (await subjects(service_node))["account0"] == ["one", "two"]
        refused = await mailmill(alone, "verify", "--account", "account0", "--json", environ=ENVIRON)
        assert "another node keeps it in sync" in refused.out + refused.err
        assert refused.code != 0
        left = await mailmill(alone, "verify", environ=ENVIRON)
        assert left.code == 1, "nothing was looked at"
        assert f"{ACCOUNTS} accounts are kept in sync by other nodes, and not looked at here" in left.err


async def test_a_command_verifies_several_accounts_side_by_side(nodes: Nodes, dovecot: Dovecot) -> None:
    """Each is borrowed by itself: one that is given back takes no other one with it."""
    alone = nodes.config("shell")
    ran = await mailmill(alone, "sync", environ=ENVIRON)
    assert ran.code == 0, ran.err
    for user in nodes.users.values():
        await dovecot.add_message(user, "INBOX", mail("news"))
    verified = await mailmill(alone, "verify", "--json", environ=ENVIRON)
    assert verified.code == 0, verified.out + verified.err
    assert all(each["settled"] for each in verified.json()["accounts"]), "each needed a pass, and a lease for it"


async def all_events(running: RunningService) -> list[dict[str, Any]]:
    page = await running.get("/v1/events", after=0, limit=1000)
    events: list[dict[str, Any]] = page["events"]
    return events


async def until(ask: Callable[[], Any], wanted: Any) -> None:
    await eventually(ask, lambda found: found == wanted)
