"""One shape for every error, and a status for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from dashboard.clients import TOKEN, client
from dashboard.fake_use_cases import FakeUseCases
from mailmill import errors
from mailmill.api.access import Access
from mailmill.api.application import create_app
from mailmill.api.errors import STATUS, status_of
from mailmill.api.gate import MAX_BODY_BYTES


def all_errors(kind: type[errors.MailmillError] = errors.MailmillError) -> list[type[errors.MailmillError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in all_errors(below))]


@pytest.fixture
def fake() -> FakeUseCases:
    return FakeUseCases()


@pytest.fixture
async def api(fake: FakeUseCases) -> AsyncIterator[Any]:
    async with client(create_app(fake, Access(TOKEN))) as talking:
        yield talking


def shape(response: Any) -> dict[str, str]:
    body = response.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "hint", "message"]
    assert all(isinstance(value, str) for value in body["error"].values())
    assert body["error"]["code"] and body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize(
    "kind", [kind for kind in all_errors() if kind.__module__ == "mailmill.errors"], ids=lambda kind: kind.__name__
)
def test_every_error_has_its_status(kind: type[errors.MailmillError]) -> None:
    assert kind in STATUS
    assert 400 <= STATUS[kind] < 600


def test_a_new_error_takes_the_status_of_the_nearest_known() -> None:
    class Odd(errors.ConnectError):
        pass

    assert status_of(Odd("odd")) == STATUS[errors.ConnectError]


async def test_an_error_of_ours_tells_message_and_hint(api: Any, fake: FakeUseCases) -> None:
    fake.failure = errors.PoolTimeoutError("no connection became free in 30 s", hint="raise pool.size", account="work")
    response = await api.get("/v1/accounts")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert shape(response) == {
        "code": "poolTimeout",
        "message": "account 'work': no connection became free in 30 s",
        "hint": "raise pool.size",
    }


async def test_a_mail_servers_refusal_is_not_ours(api: Any, fake: FakeUseCases) -> None:
    fake.failure = errors.AuthenticationError("the server refused the credentials")
    response = await api.get("/v1/accounts")
    assert response.status_code == 502
    assert shape(response)["code"] == "authentication"


async def test_the_unforeseen_is_logged_and_not_told(api: Any, fake: FakeUseCases) -> None:
    fake.failure = RuntimeError("secret detail")
    with structlog.testing.capture_logs() as logs:
        response = await api.get("/v1/status?code=hidden")
    assert response.status_code == 500
    assert shape(response)["code"] == "internal"
    assert "secret detail" not in response.text and "Traceback" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    assert [entry["path"] for entry in logs if entry["log_level"] == "error"] == ["/v1/status"]
    assert "hidden" not in str(logs)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("pageSize=0", "pageSize"),
        ("pageSize=501", "pageSize"),
        ("pageSize=many", "pageSize"),
        ("status=lost", "status"),
        ("verdict=nice", "verdict"),
    ],
)
async def test_a_bad_parameter_is_named(api: Any, query: str, field: str) -> None:
    response = await api.get(f"/v1/messages?{query}")
    assert response.status_code == 400
    error = shape(response)
    assert error["code"] == "invalidRequest"
    assert error["message"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not valid JSON"),
        (b'{"accounts": "work"}', "accounts: "),
        (b'{"acounts": []}', "acounts: "),
        (b"[]", "body: "),
    ],
)
async def test_a_bad_body_is_named(api: Any, fake: FakeUseCases, body: bytes, said: str) -> None:
    response = await api.post("/v1/sync", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert said in shape(response)["message"]
    assert fake.calls == []


async def test_a_wrong_token_at_the_form_is_not_repeated(api: Any) -> None:
    response = await api.post("/login", json={"token": ["hush-hush"]})
    assert response.status_code == 400
    assert "hush" not in response.text


async def test_unknown_paths_and_methods(api: Any) -> None:
    missing = await api.get("/v1/nothing")
    assert (missing.status_code, shape(missing)["code"]) == (404, "notFound")
    wrong = await api.delete("/v1/accounts")
    assert (wrong.status_code, shape(wrong)["code"]) == (405, "methodNotAllowed")
    assert wrong.headers["allow"] == "GET"
    asset = await api.get("/static/none.js")
    assert (asset.status_code, shape(asset)["code"]) == (404, "notFound")
    outside = await api.get("/static/%2e%2e/application.py")
    assert outside.status_code == 404


async def test_a_large_body_is_refused(api: Any, fake: FakeUseCases) -> None:
    announced = await api.post("/v1/sync", content=b" " * (MAX_BODY_BYTES + 1))
    assert (announced.status_code, shape(announced)["code"]) == (413, "tooLarge")

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 65_536

    streamed = await api.post("/v1/sync", content=unannounced(), headers={"Content-Type": "application/json"})
    assert (streamed.status_code, shape(streamed)["code"]) == (413, "tooLarge")
    assert fake.calls == []
