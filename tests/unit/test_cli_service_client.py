"""Finding the service, and what is said where it does not answer as it should."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from mailmill.cli import service_client
from mailmill.cli.errors import NoAnswerError, ServiceError
from mailmill.cli.service_client import ServiceClient, open_client, route, service_runs
from mailmill.errors import StoreInUseError
from mailmill.settings import Settings, load_settings


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    return load_settings(None, {"HOME": str(data_dir), "MAILMILL_SERVICE__DATA_DIR": str(data_dir)})


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(path: Path, answer: Answer) -> AsyncIterator[None]:
    """Whatever ``answer`` writes, for each connection on a unix socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        except asyncio.IncompleteReadError:
            pass  # somebody looked whether we are there
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield
    finally:
        server.close()


def http(status: str, body: str) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()

    return answer


async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def left_over_socket(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()
    assert path.is_socket()


async def test_a_socket_says_nothing_by_itself(data_dir: Path) -> None:
    path = data_dir / "mailmill.sock"
    assert not await service_runs(path)
    await asyncio.to_thread(left_over_socket, path)
    assert not await service_runs(path)
    assert not await service_runs(data_dir / ("x" * 200))


async def test_the_running_service_is_asked(settings: Settings) -> None:
    async with answering(settings.service.socket_path, http("200 OK", '{"a": 1}')), open_client(settings) as client:
        assert client.service_runs
        assert await client.get("/v1/status") == {"a": 1}


@pytest.mark.parametrize(
    ("answer", "kind", "code", "said"),
    [
        (
            http("404 Not Found", '{"error": {"code": "notFound", "message": "no x", "hint": "y"}}'),
            ServiceError,
            "notFound",
            "no x",
        ),
        (http("502 Bad Gateway", "<html>"), ServiceError, "error", "answered 502"),
        (http("200 OK", "[1]"), NoAnswerError, "noAnswer", "not what mailmill sends"),
        (cut, NoAnswerError, "noAnswer", "was cut"),
    ],
)
async def test_answers_that_are_none(
    settings: Settings, answer: Answer, kind: type[Exception], code: str, said: str
) -> None:
    async with answering(settings.service.socket_path, answer), open_client(settings) as client:
        with pytest.raises(kind, match=said) as caught:
            await client.get("/v1/status")
    assert getattr(caught.value, "code", None) == code


async def test_silence_has_an_end(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr(service_client, "ANSWER_SECONDS", 0.05)
    async with answering(settings.service.socket_path, silent), open_client(settings) as client:
        with pytest.raises(NoAnswerError, match="did not answer GET /v1/status within"):
            await client.get("/v1/status")


async def test_a_service_that_is_just_starting_is_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the data folder before it listens."""
    async with answering(settings.service.socket_path, http("200 OK", "{}")):
        looks = 0

        async def starting(path: Path) -> bool:
            nonlocal looks
            looks += 1
            return looks > 3

        monkeypatch.setattr(service_client, "service_runs", starting)
        monkeypatch.setattr(service_client, "HELD_POLL_SECONDS", 0)
        monkeypatch.setattr(service_client, "_in_process", in_use)
        async with open_client(settings) as client:
            assert client.service_runs
            assert await client.get("/v1/status") == {}


async def test_a_service_that_is_just_ending_is_waited_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not listen any more and still holds the data folder."""
    tries = 0

    @asynccontextmanager
    async def in_process(_: Settings) -> AsyncIterator[ServiceClient]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise StoreInUseError("held")
        async with httpx2.AsyncClient() as http:
            yield ServiceClient(http, service_runs=False)

    monkeypatch.setattr(service_client, "HELD_POLL_SECONDS", 0)
    monkeypatch.setattr(service_client, "_in_process", in_process)
    async with open_client(settings) as client:
        assert not client.service_runs
    assert tries == 3


async def test_a_folder_held_by_what_never_answers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_client, "HELD_SECONDS", 0.05)
    monkeypatch.setattr(service_client, "HELD_POLL_SECONDS", 0.01)
    monkeypatch.setattr(service_client, "_in_process", in_use)
    with pytest.raises(StoreInUseError):
        async with open_client(settings):
            pass


@asynccontextmanager
async def in_use(_: Settings) -> AsyncIterator[ServiceClient]:
    raise StoreInUseError("held")
    yield


def test_names_are_quoted() -> None:
    assert route("account", "a/b ?", "messages") == "/v1/account/a%2Fb%20%3F/messages"
