"""One webhook against a real receiver, well and ill."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from standardwebhooks import Webhook

from mailmill.alerts.rules import Destination
from mailmill.alerts.senders import Outgoing, make_sender
from mailmill.alerts.webhook import MAX_ANSWER_BYTES, WebhookSender
from mailmill.errors import ConfigurationError, DeliveryError
from servers.webhook_receiver import Answer, WebhookReceiver

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OUTGOING = Outgoing("evt_7", json.dumps({"id": "evt_7", "text": "Grüße"}, ensure_ascii=False).encode())


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as running:
        yield running


async def sender_to(url: str, **options: Any) -> WebhookSender:
    settings = {"allow_private": True, "timeout_seconds": 20.0, **options}
    made = await asyncio.to_thread(make_sender, Destination("hook", url=url, secret=SECRET, **settings))
    assert isinstance(made, WebhookSender)
    return made


async def failure(receiver: WebhookReceiver, answer: Answer, **options: Any) -> DeliveryError:
    receiver.answer = lambda _request: answer
    sender = await sender_to(receiver.url, **options)
    try:
        with pytest.raises(DeliveryError) as failed:
            await sender.send(OUTGOING)
    finally:
        await sender.close()
    return failed.value


async def test_a_signed_post(receiver: WebhookReceiver) -> None:
    sender = await sender_to(receiver.url)
    assert await sender.send(OUTGOING) == 204
    await sender.send(OUTGOING)
    await sender.close()
    first, second = receiver.received
    assert Webhook(SECRET).verify(first.body, first.headers) == {"id": "evt_7", "text": "Grüße"}
    assert first.id == second.id == "evt_7", "a repeat has the same id"
    assert first.headers["content-type"] == "application/json"
    assert first.connection == second.connection, "connections are kept"


async def test_the_time_that_is_signed_is_the_given_clocks(receiver: WebhookReceiver) -> None:
    destination = Destination("hook", url=receiver.url, secret=SECRET, allow_private=True, timeout_seconds=20.0)
    sender = await asyncio.to_thread(make_sender, destination, lambda: 1_700_000_000.5)
    assert await sender.send(OUTGOING) == 204
    receiver.answer = lambda _request: Answer(503, {"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"})
    with pytest.raises(DeliveryError) as failed:
        await sender.send(OUTGOING)
    await sender.close()
    assert [request.headers["webhook-timestamp"] for request in receiver.received] == ["1700000000"] * 2
    assert failed.value.retry_after_seconds == 29.5, "1700000030, by the same clock"


async def test_a_hanging_receiver_costs_its_timeout_and_no_more(receiver: WebhookReceiver) -> None:
    error = await failure(receiver, Answer(hang=True), timeout_seconds=0.05)
    assert (error.permanent, error.status) == (False, None)
    assert "did not answer within 0.05 s" in str(error)


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
async def test_temporary_answers(receiver: WebhookReceiver, status: int) -> None:
    error = await failure(receiver, Answer(status, {"retry-after": "120"}, b"busy\x00\n<b>"))
    assert (error.status, error.permanent, error.retry_after_seconds) == (status, False, 120.0)
    assert str(error) == f"127.0.0.1 answered {status}: busy <b>"


async def test_retry_after_as_a_date(receiver: WebhookReceiver) -> None:
    past = await failure(receiver, Answer(503, {"retry-after": "Tue, 03 Mar 2020 10:00:00 GMT"}))
    assert past.retry_after_seconds == 0.0
    nonsense = await failure(receiver, Answer(503, {"retry-after": "soon"}))
    assert nonsense.retry_after_seconds is None


async def test_gone_is_permanent(receiver: WebhookReceiver) -> None:
    assert (await failure(receiver, Answer(410))).permanent


async def test_a_redirect_is_not_followed(receiver: WebhookReceiver) -> None:
    error = await failure(receiver, Answer(302, {"location": f"{receiver.url}/elsewhere"}))
    assert error.status == 302
    assert "redirects are not followed" in error.hint
    assert [request.path for request in receiver.received] == ["/hook"]


async def test_a_connection_that_is_cut(receiver: WebhookReceiver) -> None:
    error = await failure(receiver, Answer(cut=True))
    assert (error.status, error.permanent) == (None, False)


async def test_nobody_listens(receiver: WebhookReceiver) -> None:
    url = receiver.url
    await receiver.__aexit__(None, None, None)
    sender = await sender_to(url)
    with pytest.raises(DeliveryError) as failed:
        await sender.send(OUTGOING)
    await sender.close()
    assert not failed.value.permanent


async def test_a_huge_answer_is_not_read(receiver: WebhookReceiver) -> None:
    error = await failure(receiver, Answer(500, body=b"x" * 50 * MAX_ANSWER_BYTES))
    assert len(str(error)) < 300
    receiver.answer = lambda _request: Answer(200, body=b"x" * 50 * MAX_ANSWER_BYTES)
    sender = await sender_to(receiver.url)
    assert await sender.send(OUTGOING) == 200
    assert await sender.send(OUTGOING) == 200
    await sender.close()


async def test_a_body_that_drips_does_not_turn_success_into_a_repeat(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailmill.alerts.webhook.BODY_SECONDS", 0.1)
    receiver.answer = lambda _request: Answer(200, drip=True)
    sender = await sender_to(receiver.url)
    assert await sender.send(OUTGOING) == 200
    await sender.close()


async def test_a_status_line_counts_though_the_exchange_runs_into_its_timeout(receiver: WebhookReceiver) -> None:
    receiver.answer = lambda _request: Answer(200, drip=True)
    sender = await sender_to(receiver.url, timeout_seconds=0.5)
    assert await sender.send(OUTGOING) == 200
    await sender.close()
    refused = await failure(receiver, Answer(503, {"retry-after": "7"}, drip=True), timeout_seconds=0.5)
    assert (refused.status, refused.retry_after_seconds) == (503, 7.0)


async def test_an_address_inside_is_refused_for_good(receiver: WebhookReceiver) -> None:
    error = await failure(receiver, Answer(), allow_private=False)
    assert error.permanent
    assert "allow_private = true" in error.hint
    assert receiver.connections == 0


async def test_errors_never_hold_the_secret_or_the_path() -> None:
    for secret in ("whsec_!!!broken", "", "whsec_"):
        with pytest.raises(ConfigurationError) as failed:
            await asyncio.to_thread(make_sender, Destination("hook", url="https://x.example/T0KEN", secret=secret))
        assert failed.value.__cause__ is None
        assert "broken" not in f"{failed.value} {failed.value.hint}"
    with pytest.raises(ConfigurationError, match="of kind 'pigeon'"):
        make_sender(Destination("hook", kind="pigeon"))
