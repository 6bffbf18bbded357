"""The endpoints: what they ask of the application and what they answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from dashboard.clients import TOKEN, client
from dashboard.fake_use_cases import FakeUseCases
from mailmill.api import schemas
from mailmill.api.access import SESSION_COOKIE, Access
from mailmill.api.application import create_app
from mailmill.api.contract import UseCases
from mailmill.errors import NotFoundError


@pytest.fixture
def fake() -> FakeUseCases:
    return FakeUseCases()


@pytest.fixture
def access() -> Access:
    return Access(TOKEN)


@pytest.fixture
def app(fake: FakeUseCases, access: Access) -> FastAPI:
    use_cases: UseCases = fake
    return create_app(use_cases, access)


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[Any]:
    async with client(app) as talking:
        yield talking


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncIterator[Any]:
    async with client(app, token=None, peer="192.0.2.9") as talking:
        yield talking


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/health", schemas.Health),
        ("/ready", schemas.Ready),
        ("/v1/status", schemas.Status),
        ("/v1/accounts", schemas.Accounts),
        ("/v1/account/support", schemas.Account),
        ("/v1/account/support/mailboxes", schemas.Mailboxes),
        ("/v1/account/support/messages", schemas.MessagePage),
        ("/v1/messages", schemas.MessagePage),
        ("/v1/account/finance/message/914", schemas.Message),
        ("/v1/events", schemas.Events),
        ("/v1/queue", schemas.Queue),
    ],
)
async def test_answers_have_the_described_shape(api: Any, path: str, model: type[BaseModel]) -> None:
    response = await api.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    model.model_validate(response.json())


async def test_ready_answers_503_while_it_is_not(stranger: Any, fake: FakeUseCases) -> None:
    assert (await stranger.get("/ready")).status_code == 200
    fake.is_ready = False
    assert (await stranger.get("/ready")).status_code == 503


async def test_metrics(api: Any) -> None:
    response = await api.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"mailmill_up 1" in response.content


async def test_what_is_not_there_is_404(api: Any) -> None:
    for path in ("/v1/account/none", "/v1/account/none/messages", "/v1/account/support/message/0"):
        response = await api.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "notFound"), path


async def test_listings_pass_their_filters_on(api: Any, fake: FakeUseCases) -> None:
    await api.get("/v1/messages?status=failed&verdict=clean&pageSize=7&cursor=3")
    await api.get("/v1/account/archive/messages", params={"path": "Newsletters/Tech"})
    assert fake.calls == [
        ("messages", None, None, 7, "3", "failed", "clean"),
        ("messages", "archive", "Newsletters/Tech", 50, None, None, None),
    ]


async def test_pages_follow_each_other_to_the_end(api: Any, fake: FakeUseCases) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        page = (await api.get("/v1/messages", params={"pageSize": 4} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [message["id"] for message in page["messages"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert seen == [message["id"] for message in fake.message_rows]
    assert (await api.get("/v1/messages?cursor=mine")).status_code == 400


async def test_the_source_is_a_download_that_runs_nowhere(api: Any, fake: FakeUseCases) -> None:
    response = await api.get("/v1/account/finance/message/914/source")
    assert response.content.startswith(b"Subject: hello\r\n")
    assert response.headers["content-type"] == "message/rfc822"
    assert response.headers["content-disposition"] == 'attachment; filename="message-914.eml"'
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"].startswith("sandbox")


async def test_sync_takes_accounts_and_process(api: Any, fake: FakeUseCases) -> None:
    for body in (None, {}, {"accounts": ["support"], "process": True}):
        response = await api.post("/v1/sync", **({} if body is None else {"json": body}))
        assert response.status_code == 200
        schemas.SyncReport.model_validate(response.json())
    assert fake.calls == [("sync", None, False), ("sync", None, False), ("sync", ["support"], True)]
    assert (await api.post("/v1/sync", json={"accounts": ["none"]})).status_code == 404


async def test_check_tells_what_fails_without_failing(api: Any) -> None:
    response = await api.post("/v1/account/security/check")
    assert response.status_code == 200
    checked = schemas.AccountCheck.model_validate(response.json())
    assert not checked.ok and checked.error is not None and checked.error.code == "authentication"


async def test_retry(api: Any, fake: FakeUseCases) -> None:
    answer = (await api.post("/v1/queue/retry")).json()
    assert answer == {"retried": 2, "unknown": [], "unaffected": []}
    schemas.Retried.model_validate(answer)
    assert (await api.get("/v1/queue/operation")).json()["running"]["done"] == 3
    await api.post("/v1/queue/retry", json={"messageIds": ["908"], "processor": "invoice"})
    assert fake.calls == [("retry", None, None), ("retry", ["908"], "invoice")]


async def test_drop_says_what_is_meant(api: Any, fake: FakeUseCases) -> None:
    answer = (await api.post("/v1/queue/drop", json={"messageIds": ["908"]})).json()
    assert answer == {"dropped": 3, "unknown": [], "unaffected": []}
    schemas.Dropped.model_validate(answer)
    await api.post("/v1/queue/drop", json={"processor": "invoice", "state": "any"})
    await api.post("/v1/queue/drop", json={"all": True})
    assert fake.calls == [
        ("drop", ["908"], None, False, False),
        ("drop", None, "invoice", False, True),
        ("drop", None, None, True, False),
    ]
    assert (await api.post("/v1/queue/drop", json={"messageIds": []})).status_code == 400
    assert (await api.post("/v1/queue/drop", json={"state": "odd"})).status_code == 400


async def test_a_processor_is_paused_and_resumed(api: Any, fake: FakeUseCases) -> None:
    paused = await api.post("/v1/queue/pause", json={"processor": "invoice"})
    assert paused.json() == {"processor": "invoice", "paused": True, "changed": True}
    assert (await api.post("/v1/queue/resume", json={"processor": "invoice"})).json()["paused"] is False
    assert fake.calls == [("pause", "invoice"), ("resume", "invoice")]
    assert (await api.post("/v1/queue/pause", json={})).status_code == 400


async def test_what_is_left_to_do_for_a_message(api: Any) -> None:
    shown = schemas.Queue.model_validate((await api.get("/v1/queue/908")).json())
    assert [each.kind for each in shown.queue[0].errors] == ["crash", "attempt"]
    assert (await api.get("/v1/queue/404")).status_code == 404


async def test_queue_passes_its_filters_on(api: Any, fake: FakeUseCases) -> None:
    await api.get("/v1/queue?state=failed&processor=invoice&limit=5")
    assert fake.calls == [("queue", "failed", "invoice", 5)]
    assert (await api.get("/v1/queue?state=odd")).status_code == 400


# -- events -----------------------------------------------------------------------------------------------------------


async def test_events_are_read_on_from_a_cursor(api: Any, fake: FakeUseCases) -> None:
    for message in fake.message_rows[:3]:
        fake.raise_event("messageNew", message)
    first = (await api.get("/v1/events?limit=2")).json()
    assert [event["id"] for event in first["events"]] == ["1", "2"]
    rest = (await api.get("/v1/events", params={"after": first["cursor"]})).json()
    assert [event["id"] for event in rest["events"]] == ["3"]
    assert (await api.get("/v1/events", params={"after": rest["cursor"]})).json() == {"events": [], "cursor": "3"}


async def test_a_cursor_that_is_too_old_is_told_and_zero_never_is(api: Any, fake: FakeUseCases) -> None:
    for message in fake.message_rows[:3]:
        fake.raise_event("messageNew", message)
    fake.remove_events()
    answer = await api.get("/v1/events?after=1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "cursorTooOld")
    assert "go on from 3" in answer.json()["error"]["hint"]
    for after in (0, 3):
        assert (await api.get("/v1/events", params={"after": after})).status_code == 200


async def test_a_long_poll_answers_as_soon_as_something_happens(api: Any, fake: FakeUseCases) -> None:
    async with asyncio.TaskGroup() as group:
        polling = group.create_task(api.get("/v1/events?wait=30"))
        await fake.waiting_for_events.wait()
        fake.raise_event("messageNew", fake.message_rows[0])
    assert [event["event"] for event in polling.result().json()["events"]] == ["messageNew"]


async def test_a_long_poll_ends_when_the_service_stops(api: Any, app: FastAPI, fake: FakeUseCases) -> None:
    async with asyncio.TaskGroup() as group:
        polling = group.create_task(api.get("/v1/events?after=0&wait=30"))
        await fake.waiting_for_events.wait()
        app.state.stopping.set()
    assert polling.result().json() == {"events": [], "cursor": "0"}
    assert fake.events_cancelled.is_set()


async def test_a_failing_long_poll_is_an_error_like_any_other(api: Any, fake: FakeUseCases) -> None:
    fake.failure = NotFoundError("gone")
    assert (await api.get("/v1/events?wait=1")).status_code == 404


@pytest.mark.parametrize(
    "query", ["wait=31", "wait=nan", "wait=-1", "after=-1", "after=99999999999999999999", "limit=0"]
)
async def test_events_within_limits(api: Any, query: str) -> None:
    assert (await api.get(f"/v1/events?{query}")).status_code == 400


# -- the page and signing in ------------------------------------------------------------------------------------------


async def test_a_link_lets_a_browser_in_once(stranger: Any, access: Access) -> None:
    assert (await stranger.get("/")).headers["location"] == "/login"
    code = access.new_link_code()
    entered = await stranger.get("/login", params={"code": code})
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith(f"{SESSION_COOKIE}=")
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=2592000"):
        assert attribute in cookie
    assert (await stranger.get("/")).status_code == 200
    assert (await stranger.get("/v1/status")).status_code == 200

    stranger.cookies.clear()
    again = await stranger.get("/login", params={"code": code})
    assert again.status_code == 410
    assert "mailmill status" in again.text
    assert "set-cookie" not in again.headers
    assert (await stranger.get("/v1/status")).status_code == 401


async def test_the_token_lets_a_browser_in(stranger: Any) -> None:
    origin = {"Origin": "http://localhost:8025"}
    wrong = await stranger.post("/login", json={"token": "wrong"}, headers=origin)
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    right = await stranger.post("/login", json={"token": f" {TOKEN}\n"}, headers=origin)
    assert right.status_code == 204
    assert (await stranger.get("/v1/status")).status_code == 200

    assert (await stranger.post("/logout", headers=origin)).status_code == 204
    assert (await stranger.get("/v1/status")).status_code == 401


async def test_signing_out_ends_the_session_itself(stranger: Any, access: Access) -> None:
    session = access.new_session()
    await stranger.post("/logout", headers={"Origin": "http://localhost:8025", "Cookie": f"{SESSION_COOKIE}={session}"})
    assert not access.session_valid(session)


async def test_who_holds_the_token_can_make_a_link(api: Any, stranger: Any) -> None:
    made = schemas.LoginLink.model_validate((await api.post("/v1/login-link")).json())
    assert (await stranger.get(made.path)).status_code == 303
    assert (await stranger.post("/v1/login-link")).status_code == 403, "the cookie alone, without an origin"


async def test_the_pages_are_guarded(stranger: Any, access: Access) -> None:
    for path in ("/login", "/static/app.js", "/health", "/v1/none"):
        headers = (await stranger.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"


async def test_assets_are_revalidated(stranger: Any) -> None:
    first = await stranger.get("/static/app.js")
    assert first.status_code == 200
    assert first.headers["content-type"].startswith("text/javascript")
    assert first.headers["cache-control"] == "no-cache"
    again = await stranger.get("/static/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


# -- OpenAPI ----------------------------------------------------------------------------------------------------------


async def test_openapi_describes_every_endpoint(api: Any) -> None:
    described = (await api.get("/openapi.json")).json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert "200" in operation["responses"], (method, path)
            if path.startswith("/v1/"):
                assert operation["security"], (method, path)
                assert "401" in operation["responses"], (method, path)
    assert {"/health", "/ready", "/metrics", "/v1/status", "/v1/events", "/v1/queue/retry"} <= set(described["paths"])
    assert (await api.get("/docs")).status_code == 404
