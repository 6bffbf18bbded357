"""Listening and stopping."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from dashboard.clients import TOKEN
from dashboard.fake_use_cases import FakeUseCases
from mailmill.api.access import Access
from mailmill.api.application import create_app
from mailmill.api.server import ListenSettings, listening
from mailmill.errors import AddressInUseError, ConfigurationError

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def fake() -> FakeUseCases:
    return FakeUseCases()


@pytest.fixture
def app(fake: FakeUseCases) -> FastAPI:
    return create_app(fake, Access(TOKEN))


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path that is short enough for AF_UNIX, which ``tmp_path`` need not be."""
    with tempfile.TemporaryDirectory(prefix="mm-") as folder:
        yield Path(folder) / "service.sock"


async def test_tcp_needs_the_token_and_the_own_socket_does_not(app: FastAPI, socket_path: Path) -> None:
    async with listening(app, ListenSettings(port=0, socket_path=socket_path)) as server:
        assert stat.S_IMODE((await asyncio.to_thread(socket_path.stat)).st_mode) == 0o600
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as outside:
            assert (await outside.get("/health")).status_code == 200
            assert (await outside.get("/metrics")).status_code == 200
            assert (await outside.get("/v1/status")).status_code == 401
            assert (await outside.get("/v1/status", headers=BEARER)).status_code == 200
            assert (await outside.get("/health", headers={"Host": "evil.example"})).status_code == 421
        transport = httpx2.AsyncHTTPTransport(uds=str(socket_path))
        async with httpx2.AsyncClient(transport=transport, base_url="http://mailmill") as local:
            assert (await local.get("/v1/status")).status_code == 200
            assert (await local.post("/v1/login-link")).status_code == 200
    assert not await asyncio.to_thread(socket_path.exists)


async def test_headers_do_not_pass_for_the_own_socket(app: FastAPI) -> None:
    forged = {"mailmill.local_peer": "true", "X-Forwarded-For": "127.0.0.1"}
    async with listening(app, ListenSettings(port=0)) as server, httpx2.AsyncClient(headers=forged) as outside:
        assert (await outside.get(f"http://127.0.0.1:{server.port}/v1/status")).status_code == 401


async def test_stopping_ends_long_polls_at_once(app: FastAPI, fake: FakeUseCases) -> None:
    async with httpx2.AsyncClient(headers=BEARER, timeout=60) as client:
        async with listening(app, ListenSettings(port=0, grace_seconds=30)) as server:
            polling = asyncio.create_task(client.get(f"http://127.0.0.1:{server.port}/v1/events?wait=30"))
            await fake.waiting_for_events.wait()
        answer = await polling
    assert answer.json() == {"events": [], "cursor": "0"}


async def test_a_request_that_does_not_end_is_cut_at_the_end_of_the_grace(app: FastAPI, fake: FakeUseCases) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang() -> dict[str, object]:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return {}

    fake.status = hang  # type: ignore[method-assign]
    async with httpx2.AsyncClient(headers=BEARER, timeout=60) as client:
        async with listening(app, ListenSettings(port=0, grace_seconds=0.05)) as server:
            asking = asyncio.create_task(client.get(f"http://127.0.0.1:{server.port}/v1/status"))
            await started.wait()
        await cancelled.wait()
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_client_that_hangs_up_ends_its_long_poll(app: FastAPI, fake: FakeUseCases) -> None:
    async with listening(app, ListenSettings(port=0)) as server:
        async with httpx2.AsyncClient(headers=BEARER, timeout=60) as client:
            polling = asyncio.create_task(client.get(f"http://127.0.0.1:{server.port}/v1/events?wait=30"))
            await fake.waiting_for_events.wait()
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
        await fake.events_cancelled.wait()


async def test_a_client_that_hangs_up_ends_its_look_at_the_servers(app: FastAPI, fake: FakeUseCases) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def look(*_arguments: object, **_options: object) -> dict[str, object]:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return {}

    fake.verify = look  # type: ignore[method-assign]
    async with listening(app, ListenSettings(port=0)) as server:
        async with httpx2.AsyncClient(headers=BEARER, timeout=60) as client:
            asking = asyncio.create_task(client.post(f"http://127.0.0.1:{server.port}/v1/verify", json={}))
            await started.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(30):
            await cancelled.wait()


async def test_signals_stay_the_supervisors(app: FastAPI) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with listening(app, ListenSettings(port=0)):
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


async def test_a_taken_port_is_named_with_its_remedy(app: FastAPI, socket_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(AddressInUseError, match=f"127.0.0.1:{port}") as refused:
            async with listening(app, ListenSettings(port=port, socket_path=socket_path)):
                pytest.fail("it listens on a taken port")
    assert "service.listen" in refused.value.hint
    assert not await asyncio.to_thread(socket_path.exists)


@pytest.mark.parametrize("host", ["203.0.113.77", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_is_named(app: FastAPI, host: str) -> None:
    with pytest.raises(ConfigurationError, match=host) as refused:
        async with listening(app, ListenSettings(host=host, port=0)):
            pytest.fail("it listens on an address that is not ours")
    assert refused.value.code == "configuration", "starting again does not mend it"


async def test_a_socket_left_by_a_crash_is_replaced_and_a_file_is_not(app: FastAPI, socket_path: Path) -> None:
    def crash() -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(socket_path))

    await asyncio.to_thread(crash)
    async with listening(app, ListenSettings(port=None, socket_path=socket_path)) as server:
        assert server.port is None

    await asyncio.to_thread(socket_path.write_text, "somebody's notes")
    with pytest.raises(ConfigurationError, match="service socket"):
        async with listening(app, ListenSettings(port=None, socket_path=socket_path)):
            pytest.fail("it took the place of a file")
    assert await asyncio.to_thread(socket_path.read_text) == "somebody's notes"


async def test_a_path_too_long_for_a_socket_says_so(app: FastAPI, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / "service.sock"
    with pytest.raises(ConfigurationError) as refused:
        async with listening(app, ListenSettings(port=None, socket_path=path)):
            pytest.fail("it listens at a path that is too long")
    assert "shorter" in refused.value.hint


async def test_both_addresses_of_localhost(app: FastAPI) -> None:
    async with listening(app, ListenSettings(host="localhost", port=0)) as server, httpx2.AsyncClient() as client:
        assert (await client.get(f"http://localhost:{server.port}/health")).status_code == 200
