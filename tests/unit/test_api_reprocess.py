"""Reprocessing and the ledger over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI

from dashboard.clients import TOKEN, client
from dashboard.fake_use_cases import FakeUseCases
from mailmill.api import routes_reprocess, schemas
from mailmill.api.access import Access
from mailmill.api.application import create_app


@pytest.fixture
def fake() -> FakeUseCases:
    return FakeUseCases()


@pytest.fixture
def app(fake: FakeUseCases) -> FastAPI:
    return create_app(fake, Access(TOKEN))


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[Any]:
    async with client(app) as talking:
        yield talking


async def test_it_asks_for_what_is_wanted(api: Any, fake: FakeUseCases) -> None:
    body = {
        "processor": "threat",
        "accounts": ["support"],
        "mailboxes": ["INBOX"],
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-02-01",
        "failed": True,
        "versionBelow": 2,
        "wait": True,
    }
    response = await api.post("/v1/reprocess", json=body)
    assert response.status_code == 200
    assert not routes_reprocess.ReprocessAsked.model_validate(response.json()).joined
    [asked] = fake.reprocessing.asked
    assert asked == {
        "processor": "threat",
        "accounts": ["support"],
        "mailboxes": ["INBOX"],
        "since": datetime(2026, 1, 1, tzinfo=UTC),
        "until": datetime(2026, 2, 1),  # noqa: DTZ001 - without a zone, as it was asked
        "failed": True,
        "version_below": 2,
        "everything": False,
        "dry_run": False,
        "wait": True,
    }


async def test_how_far_it_is(api: Any) -> None:
    asked = (await api.post("/v1/reprocess", json={"processor": "threat"})).json()
    assert (asked["id"], asked["total"]) == ("1", None)
    shown = await api.get("/v1/reprocess/1")
    routes_reprocess.ReprocessAnswer.model_validate(shown.json())
    assert (shown.json()["queued"], shown.json()["left"]) == (3, 5)
    listed = (await api.get("/v1/reprocess")).json()
    assert [each["id"] for each in listed["reprocess"]] == ["1"]


async def test_a_dry_run_has_no_id(api: Any) -> None:
    answer = (await api.post("/v1/reprocess", json={"processor": "threat", "dryRun": True})).json()
    routes_reprocess.ReprocessAnswer.model_validate(answer)
    assert (answer["id"], answer["state"], answer["total"]) == (None, "dryRun", 5)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/reprocess", {}, 400),
        ("POST", "/v1/reprocess", {"processor": "threat", "since": "yesterday"}, 400),
        ("POST", "/v1/reprocess", {"processor": "threat", "versionBelow": 0}, 400),
        ("POST", "/v1/reprocess", {"processor": "threat", "sinse": "2026-01-01"}, 400),
        ("POST", "/v1/reprocess", {"processor": "none"}, 404),
        ("GET", "/v1/reprocess/2", None, 404),
        ("GET", "/v1/reprocess/x", None, 400),
        ("GET", "/v1/account/finance/message/0/processing", None, 404),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Any, method: str, path: str, body: Any, status: int) -> None:
    assert (await api.request(method, path, json=body)).status_code == status


async def test_a_service_that_stops_ends_the_wait_and_not_the_work(
    api: Any, app: FastAPI, fake: FakeUseCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.Event()

    async def start(**_asked: Any) -> dict[str, Any]:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(fake.reprocessing, "start", start)
    asking = asyncio.create_task(api.post("/v1/reprocess", json={"processor": "threat", "wait": True}))
    await waiting.wait()
    app.state.stopping.set()
    response = await asking
    assert (response.status_code, response.json()["error"]["code"]) == (503, "stopping")


async def test_the_ledger_has_the_described_shape(api: Any) -> None:
    answer = (await api.get("/v1/account/finance/message/914/processing")).json()
    schemas.Processing.model_validate(answer)
    assert answer["messageId"] == "914"
    assert [(each["version"], each["served"]) for each in answer["results"]] == [(2, True), (1, False)]


async def test_one_is_cancelled(api: Any, fake: FakeUseCases) -> None:
    response = await api.delete("/v1/reprocess/1")
    assert response.status_code == 200
    answer = routes_reprocess.ReprocessCancelled.model_validate(response.json())
    assert (answer.state, answer.dropped) == ("cancelled", 3)
    assert (await api.delete("/v1/reprocess/2")).status_code == 404
    fake.reprocessing.steps = fake.reprocessing.steps[-1:]
    fake.reprocessing.steps[0]["state"] = "done"
    assert (await api.delete("/v1/reprocess/1")).status_code == 409


async def test_all_of_a_processor_are_cancelled(api: Any) -> None:
    response = await api.delete("/v1/reprocess", params={"processor": "threat"})
    answer = routes_reprocess.ReprocessAllCancelled.model_validate(response.json())
    assert (answer.dropped, answer.begun, [each.state for each in answer.cancelled]) == (3, 2, ["cancelled"])
    again = await api.delete("/v1/reprocess", params={"processor": "threat"})
    assert (again.status_code, again.json()["cancelled"]) == (200, [])
    assert (await api.delete("/v1/reprocess")).status_code == 400
