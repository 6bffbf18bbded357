"""Event log → outbox → receiver, on a real store and real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from standardwebhooks import Webhook

from harness.patience import eventually
from mailmill.alerts import health, pump, rendering, rules, turning
from mailmill.alerts.dispatcher import DEAD_AFTER_SECONDS, Dispatcher
from mailmill.alerts.envelopes import Envelopes
from mailmill.alerts.rendering import render
from mailmill.alerts.rules import Destination
from mailmill.alerts.senders import make_sender
from mailmill.errors import StoreError
from mailmill.message_parser import parse_headers
from mailmill.model import Backlog, EventName, MailboxRef, MessageMeta, Uid
from mailmill.store import accounts, dialect, event_log, messages, outbox, queue, sequencer
from mailmill.store.blobs import BlobRef, BlobStore
from mailmill.store.database import Database
from mailmill.store.event_log import EventRow, NewEvent
from mailmill.store.messages import Arrival, Cursor, StoredContent, SyncBatch, WorkPlan
from mailmill.store.tables import blob, delivery, message, result
from mailmill.uid_set import UidSet
from servers.webhook_receiver import Answer, Received, WebhookReceiver

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
WORKER = "worker-1"

RAW = (
    b"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: =?utf-8?q?Rechnung_f=C3=BCr_M=C3=A4rz?=\r\n"
    b"Date: Tue, 3 Mar 2026 10:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nGuten Tag\r\n"
    b"--b\r\nContent-Type: application/pdf; name=r.pdf\r\n\r\npdf\r\n--b--\r\n"
)


@dataclass(slots=True)
class Mill:
    """An open store with the account ``work``, and what a sync and a processor would do to it."""

    database: Database
    blobs: BlobStore
    account_id: int

    async def arrive(self, raw: bytes = RAW, *, uid: int = 1, historical: bool = False) -> int:
        """Store one message in INBOX; its id."""
        ref = (await self.blobs.put_batch([raw]))[0]
        summary = parse_headers(raw)
        sender = summary.from_[0] if summary.from_ else None
        content = StoredContent(
            ref,
            subject=summary.subject,
            from_name=sender.name if sender else "",
            from_address=sender.address if sender else "",
            date_header=summary.date,
            message_id_header=summary.message_id_header,
        )
        meta = MessageMeta(Uid(uid), frozenset({"\\Seen"}), internal_date=1_772_532_005.0, size_bytes=len(raw))
        async with self.database.write() as connection:
            row = await messages.get_mailbox(connection, self.account_id, "INBOX")
            cursor = Cursor(7, uid + 1, historical_below=uid + 1 if historical else 0)
            batch = SyncBatch(row, 7, [Arrival(meta, content)], (), UidSet(()), cursor, ())
            await messages.apply_batch(connection, batch, WorkPlan((), Backlog.PROCESS), time.time())
            found = await connection.scalar(select(message.c.id).where(message.c.sha256 == ref.sha256))
        assert found is not None
        return int(found)

    async def raise_events(self, count: int, name: EventName = EventName.CONNECT_ERROR) -> None:
        """Events of the account alone: nothing to render but themselves."""
        async with self.database.write() as connection:
            new = [
                NewEvent("default", name, time.time(), account_id=self.account_id, data={"number": number})
                for number in range(count)
            ]
            await event_log.append(connection, new)

    async def events(self, name: str = "") -> list[EventRow]:
        """All events, or those called ``name``."""
        async with self.database.write() as connection:
            await sequencer.number(connection)
            rows = await event_log.read_after(connection, 0, 1000)
        return [row for row in rows if row.event == name or not name]

    async def deliveries(self, destination: str = "hook") -> list[dict[str, Any]]:
        async with self.database.read() as connection:
            rows = await connection.execute(
                select(delivery).where(delivery.c.destination == destination).order_by(delivery.c.id)
            )
            return [dict(row._mapping) for row in rows]

    async def until(
        self, ready: Callable[[list[dict[str, Any]]], bool], destination: str = "hook"
    ) -> list[dict[str, Any]]:
        """The deliveries, as soon as they are as ``ready`` wants them."""
        try:
            return await eventually(lambda: self.deliveries(destination), ready)
        except TimeoutError:
            stayed = Counter((r["state"], r["attempt"], r["last_error"]) for r in await self.deliveries(destination))
            raise AssertionError(f"deliveries stayed {stayed}") from None


@pytest.fixture
async def mill(data_dir: Path, database_url: str) -> AsyncIterator[Mill]:
    database = await Database.open(database_url, data_dir=data_dir)
    blobs = BlobStore(data_dir / "blobs")
    async with database.write() as connection:
        account = await accounts.ensure_account(
            connection, name="work", email="me@example.org", backlog=Backlog.PROCESS, credential_mark="", now=1.0
        )
        await messages.apply_mailbox_list(connection, account.id, [MailboxRef("INBOX", "/")], 1.0)
    yield Mill(database, blobs, account.id)
    await blobs.close()
    await database.close()


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as running:
        yield running


def hook(url: str, name: str = "hook", **options: Any) -> Destination:
    settings = {"allow_private": True, "timeout_seconds": 20.0, "events": frozenset({"connectError"}), **options}
    return Destination(name, url=url, secret=SECRET, **settings)


@asynccontextmanager
async def running(mill: Mill, *destinations: Destination, **options: Any) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(Dispatcher(mill.database, mill.blobs, destinations, WORKER, **options).run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


async def claimed(mill: Mill, worker_id: str, count: int) -> list[outbox.DeliveryClaim]:
    """Have all events planned for ``hook``, and so many deliveries in the hands of ``worker_id``; by id."""
    async with mill.database.write() as connection:
        now = dialect.now(connection)
        await sequencer.number(connection)
        await outbox.plan_deliveries(connection, 10, lambda event: ["hook"] * (event.event == "connectError"), now)
        claims = await outbox.claim(
            connection, destination="hook", worker_id=worker_id, limit=count, deadline_seconds=3600, now=now
        )
    assert len(claims) == count
    return sorted(claims, key=lambda claim: claim.id)


def states(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [row["state"] for row in rows]


def all_are(state: str, count: int) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda rows: states(rows) == [state] * count


def of(received: list[Received], event: str) -> list[Received]:
    return [request for request in received if request.json["event"] == event]


async def test_a_new_message_is_told(mill: Mill, receiver: WebhookReceiver) -> None:
    observed: list[str] = []
    wanted = frozenset({"messageNew"})
    async with running(mill, hook(receiver.url, events=wanted), observe=lambda stage, _seconds: observed.append(stage)):
        message_id = await mill.arrive()
        request = (await receiver.wait_count(1))[0]
        rows = await mill.until(all_are("delivered", 1))
    envelope = Webhook(SECRET).verify(request.body, request.headers)
    assert request.id == envelope["id"] == f"evt_{rows[0]['event_id']}"
    data = envelope.pop("data")
    assert (envelope["event"], envelope["account"], envelope["path"]) == ("messageNew", "work", "INBOX")
    assert envelope["date"].endswith("Z")
    assert data == {
        "id": str(message_id),
        "uid": 1,
        "emailId": None,
        "threadId": None,
        "messageId": "<1@example.org>",
        "inReplyTo": None,
        "date": "2026-03-03T10:00:00.000Z",
        "flags": ["\\Seen"],
        "size": len(RAW),
        "subject": "Rechnung für März",
        "from": {"name": "Ann", "address": "ann@example.org"},
        "to": [{"name": "", "address": "bob@example.net"}],
        "cc": [],
        "replyTo": [],
        "attachments": [
            {
                "id": "2",
                "contentType": "application/pdf",
                "encodedSize": 3,
                "filename": "r.pdf",
                "inline": True,
                "contentId": None,
            }
        ],
        "headers": data["headers"],
        "text": {"plain": "Guten Tag", "html": "", "hasMore": False},
    }
    assert data["headers"]["to"] == ["bob@example.net"]
    assert (rows[0]["attempt"], rows[0]["last_status"]) == (1, 204)
    assert observed == ["processed_to_delivered"]


async def test_history_and_what_nobody_wants_is_not_sent(mill: Mill, receiver: WebhookReceiver) -> None:
    destination = hook(receiver.url, events=frozenset({"messageNew", "connectError"}), accounts=("wo*",))
    other = hook(receiver.url, "other", accounts=("home",))
    await mill.arrive(historical=True)
    async with running(mill, destination, other):
        await mill.raise_events(1, EventName.AUTHENTICATION_ERROR)
        await mill.raise_events(1)
        await mill.until(all_are("delivered", 1))
    assert [request.json["event"] for request in receiver.received] == ["connectError"]
    assert await mill.deliveries("other") == []


async def test_a_hanging_destination_delays_no_other(
    mill: Mill, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "STOP_SECONDS", 0.5)
    async with WebhookReceiver(lambda _request: Answer(hang=True)) as hanging:
        slow = hook(hanging.url, "slow", concurrency=3)
        async with running(mill, slow, hook(receiver.url)):
            await mill.raise_events(200)
            await mill.until(all_are("delivered", 200))
            await hanging.wait_count(3)
            assert hanging.open_requests == 3, "no more than its concurrency"
            assert states(await mill.deliveries("slow")).count("sending") == 3, "claims only what it sends now"
    rows = await mill.deliveries("slow")
    assert states(rows) == ["pending"] * 200, "what was cut is given back"
    assert {row["attempt"] for row in rows} == {0}


async def test_concurrency_is_used_and_kept(mill: Mill, receiver: WebhookReceiver) -> None:
    go = asyncio.Event()
    receiver.answer = lambda _request: Answer(after=go)
    async with running(mill, hook(receiver.url, concurrency=4)):
        await mill.raise_events(20)
        await receiver.wait_count(4)
        go.set()
        await mill.until(all_are("delivered", 20))
    assert receiver.most_open_requests == 4
    assert len({request.id for request in receiver.received}) == len(receiver.received) == 20


async def test_a_failure_is_tried_again_with_the_same_id(
    mill: Mill, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "FIRST_WAIT_SECONDS", 0.01)
    receiver.answer = lambda _request: Answer(500) if len(receiver.received) < 2 else Answer(200)
    async with running(mill, hook(receiver.url)):
        await mill.raise_events(1)
        rows = await mill.until(all_are("delivered", 1))
    assert len({request.id for request in receiver.received}) == 1
    assert len(receiver.received) == rows[0]["attempt"] == 3


@pytest.mark.parametrize(
    ("answer", "attempts", "status"),
    [(Answer(410), 1, 410), (Answer(404), 4, 404), (Answer(307, {"location": "/"}), 4, 307), (Answer(500), 4, 500)],
)
async def test_what_is_given_up(
    mill: Mill, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch, answer: Answer, attempts: int, status: int
) -> None:
    monkeypatch.setattr(rules, "FIRST_WAIT_SECONDS", 0.001)
    receiver.answer = lambda _request: answer
    async with running(mill, hook(receiver.url, max_attempts=4)):
        await mill.raise_events(1)
        row = (await mill.until(all_are("failed", 1)))[0]
    assert (row["attempt"], row["last_status"]) == (attempts, status)
    assert str(status) in row["last_error"]


async def test_an_address_inside_is_given_up_with_a_hint(mill: Mill, receiver: WebhookReceiver) -> None:
    async with running(mill, hook(receiver.url, allow_private=False)):
        await mill.raise_events(1)
        row = (await mill.until(all_are("failed", 1)))[0]
    assert "allow_private = true" in row["last_error"]
    assert receiver.connections == 0


async def test_a_destination_that_is_down_burns_no_attempts_and_comes_back(
    mill: Mill, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(health, "LONGEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(rules, "FIRST_WAIT_SECONDS", 0.01)
    down = True
    receiver.answer = lambda _request: Answer(503) if down else Answer(200)
    async with running(mill, hook(receiver.url, concurrency=5, max_attempts=50)):
        await mill.raise_events(100)
        await receiver.wait_count(health.FAILURES + 5)
        most_at_once = receiver.most_open_requests
        untouched = sum(row["attempt"] == 0 for row in await mill.deliveries())
        down = False
        await mill.until(all_are("delivered", 100))
    assert most_at_once <= 5
    assert untouched >= 80, "only probes are sent while it is down"


async def test_what_nobody_foresaw_ends_neither_planner_nor_pump(
    mill: Mill, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turning, "MAX_PAUSE_SECONDS", 0.01)
    broken = dict.fromkeys(("recover", "plan_deliveries", "next_due_seconds", "get"), 2)

    def fails_twice(owner: Any, name: str) -> None:
        right = getattr(owner, name)

        async def wrong(*arguments: Any, **named: Any) -> Any:
            if broken[name]:
                broken[name] -= 1
                raise RuntimeError("unforeseen")
            return await right(*arguments, **named)

        monkeypatch.setattr(owner, name, wrong)

    for name in ("recover", "plan_deliveries", "next_due_seconds"):
        fails_twice(outbox, name)
    fails_twice(Envelopes, "get")
    async with running(mill, hook(receiver.url)):
        await mill.raise_events(3)
        await mill.until(all_are("delivered", 3))
    assert not any(broken.values())


async def test_a_graceful_stop_waits_for_what_is_on_its_way(mill: Mill, receiver: WebhookReceiver) -> None:
    go = asyncio.Event()
    receiver.answer = lambda _request: Answer(after=go)
    async with running(mill, hook(receiver.url, concurrency=2)) as stop:
        await mill.raise_events(5)
        await receiver.wait_count(2)
        stop.set()
        go.set()
    rows = await mill.deliveries()
    assert sorted(states(rows)) == ["delivered"] * 2 + ["pending"] * 3


async def test_what_arrived_is_written_though_the_rest_cannot_be_given_back(
    mill: Mill, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two transactions: in one, rows would be locked downwards where what is given back came before what arrived."""

    async def fail(*_: Any) -> int:
        raise StoreError("the store is away")

    await mill.raise_events(2)
    first, second = await claimed(mill, WORKER, 2)
    destination, stop = hook(receiver.url), asyncio.Event()
    sender = await asyncio.to_thread(make_sender, destination, time.time)
    ending = pump.Pump(
        destination,
        sender,
        mill.database,
        Envelopes(mill.database, mill.blobs),
        WORKER,
        lambda _stage, _seconds: None,
        time.time,
    )
    ending._held = {first.id: first}
    ending._ended = [outbox.DeliveryOutcome(second, delivered=True, status=204)]
    stop.set()
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "release", fail)
        await ending.run(stop)
    assert states(await mill.deliveries()) == ["sending", "delivered"]
    async with running(mill, destination):
        await mill.until(all_are("delivered", 2))
    assert len(receiver.received) == 1


async def test_a_cancelled_dispatcher_gives_back_what_it_holds(mill: Mill, receiver: WebhookReceiver) -> None:
    receiver.answer = lambda _request: Answer(hang=True)
    task = asyncio.create_task(Dispatcher(mill.database, mill.blobs, [hook(receiver.url)], WORKER).run(asyncio.Event()))
    await mill.raise_events(2)
    await receiver.wait_count(2)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert states(await mill.deliveries()) == ["pending"] * 2


async def test_what_a_dead_process_held_is_sent(mill: Mill, receiver: WebhookReceiver) -> None:
    await mill.raise_events(1)
    # Where nobody else can have the database open it is dead at once, whatever it said last.
    silent_seconds = 0 if mill.database.alone else DEAD_AFTER_SECONDS + 1
    async with mill.database.write() as connection:
        await queue.heartbeat(connection, "dead", dialect.now(connection) - silent_seconds)
    await claimed(mill, "dead", 1)
    async with running(mill, hook(receiver.url)):
        await mill.until(all_are("delivered", 1))


async def test_a_message_that_is_gone_or_damaged_is_told_with_what_is_known(
    mill: Mill, receiver: WebhookReceiver
) -> None:
    message_id = await mill.arrive()
    async with mill.database.write() as connection:
        await connection.execute(update(blob).values(offset_bytes=3))
        lost = NewEvent("default", EventName.MESSAGE_DELETED, time.time(), mill.account_id, "INBOX", message_id=999)
        await event_log.append(connection, [lost])
    async with running(mill, hook(receiver.url, events=frozenset({"messageNew", "messageDeleted"}))):
        await mill.until(all_are("delivered", 2))
    new = of(receiver.received, "messageNew")[0].json["data"]
    assert (new["id"], new["subject"], new["text"]["plain"]) == (str(message_id), "Rechnung für März", "")
    deleted = of(receiver.received, "messageDeleted")[0].json
    assert (deleted["account"], deleted["data"]) == ("work", {"id": "999"})


async def test_results_stand_under_the_names_of_the_contract(mill: Mill) -> None:
    message_id = await mill.arrive()
    values = {
        "summary": {"text": "An invoice.", "method": "extractive"},
        "category": {"category": "receipt", "priority": "normal", "evidence": []},
        "threat": {"verdict": "clean", "score": 3.0, "findings": [], "reasons": ["One."], "promptInjection": False},
        "invoice": {"total": 12},
    }
    async with mill.database.write() as connection:
        for version in (1, 2):
            for name, value in values.items():
                shown = value if version == 2 else {"text": "old"}
                row = {"message_id": message_id, "processor": name, "version": version, "value": json.dumps(shown)}
                await connection.execute(insert(result).values(**row, attempts=1, seconds=0.1, finished_at=1.0))
        processed = NewEvent(
            "default", EventName.MESSAGE_PROCESSED, 1.0, mill.account_id, "INBOX", message_id=message_id
        )
        await event_log.append(connection, [processed])
    rows = await mill.events()
    envelopes = await render(mill.database, mill.blobs, rows)
    assert [envelope["event"] for envelope in envelopes] == [row.event for row in rows]
    data = next(envelope["data"] for envelope in envelopes if envelope["event"] == "messageProcessed")
    assert (data["summary"], data["category"], data["priority"]) == ("An invoice.", "receipt", "normal")
    assert data["threat"] == values["threat"]
    assert data["results"] == {"invoice": {"total": 12}}
    new = next(envelope["data"] for envelope in envelopes if envelope["event"] == "messageNew")
    assert "threat" not in new


@pytest.mark.parametrize(
    "evidence",
    [
        '"}]},"event":"accountDeleted","x":"',
        "line\r\nwebhook-id: evt_1\r\n\r\n{}",
        "</script><img src=x onerror=alert(1)>",
        "\u202etxt.exe\u2028\x00\x1b]0;owned\x07",
        "\ud83d alone",
    ],
)
async def test_evidence_stays_inside_its_string(mill: Mill, receiver: WebhookReceiver, evidence: str) -> None:
    finding = {"id": "acme.odd", "family": "acme", "severity": "high", "score": 60.0, "evidence": evidence}
    threat = {"verdict": "suspicious", "score": 60.0, "findings": [finding], "reasons": [], "promptInjection": True}
    async with running(mill, hook(receiver.url, events=frozenset({"threatFound"}))):
        message_id = await mill.arrive()
        async with mill.database.write() as connection:
            row = {"message_id": message_id, "processor": "threat", "version": 2, "value": json.dumps(threat)}
            await connection.execute(insert(result).values(**row, attempts=1, seconds=0.1, finished_at=1.0))
            found = NewEvent("default", EventName.THREAT_FOUND, 1.0, mill.account_id, "INBOX", message_id=message_id)
            await event_log.append(connection, [found])
        request = (await receiver.wait_count(1))[0]
    envelope = Webhook(SECRET).verify(request.body, request.headers)
    assert (envelope["event"], envelope["data"]["threat"]) == ("threatFound", threat)
    assert request.id == envelope["id"]


@pytest.mark.parametrize("value", [None, "odd", 3, ["x"]])
def test_a_threat_result_that_is_none_is_shown_as_none(value: object) -> None:
    assert rendering.threat(value) is None


def test_a_threat_result_of_the_first_version_says_that_nobody_looked_for_the_mark() -> None:
    shown = rendering.threat({"verdict": "clean", "score": 0.0, "findings": []})
    assert shown == {"verdict": "clean", "score": 0.0, "findings": [], "reasons": [], "promptInjection": None}


async def test_long_text_is_trimmed(mill: Mill) -> None:
    await mill.arrive(b"Subject: long\r\nX-Long: " + b"h" * 60_000 + b"\r\n\r\n" + b"x" * 200_000)
    rows = await mill.events("messageNew")
    data = (await render(mill.database, mill.blobs, rows))[0]["data"]
    assert data["text"]["hasMore"] is True
    assert len(data["text"]["plain"]) == 32 << 10
    assert "x-long" not in data["headers"]


async def test_no_reader_is_held_while_raw_mail_is_read_and_parsed(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    await mill.arrive()
    held = 0
    held_at_reading: list[int] = []
    read, get_many = mill.database.read, mill.blobs.get_many

    @asynccontextmanager
    async def counted_read() -> AsyncIterator[AsyncConnection]:
        nonlocal held
        async with read() as connection:
            held += 1
            try:
                yield connection
            finally:
                held -= 1

    async def watched_get_many(refs: Collection[BlobRef]) -> dict[bytes, bytes]:
        held_at_reading.append(held)
        return await get_many(refs)

    ids = [row.id for row in await mill.events("messageNew")]
    monkeypatch.setattr(mill.database, "read", counted_read)
    monkeypatch.setattr(mill.blobs, "get_many", watched_get_many)
    found = await Envelopes(mill.database, mill.blobs).get(ids)
    assert json.loads(found[ids[0]].body)["data"]["text"]["plain"] == "Guten Tag"
    assert held_at_reading == [0]


async def test_a_date_that_no_calendar_holds_is_shown_as_none(mill: Mill) -> None:
    message_id = await mill.arrive()
    async with mill.database.write() as connection:
        await connection.execute(update(message).where(message.c.id == message_id).values(date_header=1e18))
    rows = await mill.events("messageNew")
    [envelope] = await render(mill.database, mill.blobs, rows)
    assert envelope["data"]["date"] is None
    assert envelope["data"]["subject"] == "Rechnung für März"
