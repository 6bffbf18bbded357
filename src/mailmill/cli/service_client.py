"""HTTP to the running service through its socket, or to the application opened in this process: one code path.

A socket file says nothing by itself: after a crash it lies there and nobody listens. Connecting decides.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx2

from mailmill.cli.errors import NoAnswerError, ServiceError
from mailmill.errors import MailmillError, StoreInUseError
from mailmill.settings import Settings

JsonObject = dict[str, Any]
Scope = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]], Awaitable[None]]

BASE_URL = "http://localhost"
ANSWER_SECONDS = 60.0
PROBE_SECONDS = 5.0
HELD_SECONDS = 5.0
HELD_POLL_SECONDS = 0.1


class ServiceClient:
    """The HTTP API as the commands use it. ``service_runs``: a service of its own answers, not this process.

    Raises ServiceError (the service's own words) and NoAnswerError. Every method may be cancelled.
    """

    def __init__(self, http: httpx2.AsyncClient, *, service_runs: bool) -> None:
        self._http = http
        self.service_runs = service_runs

    async def get(self, path: str, /, **query: str | int | None) -> JsonObject:
        """GET ``path`` (already quoted, see ``route``); parameters that are None are left out."""
        return _object(await self._request("GET", path, query=query))

    async def get_bytes(self, path: str) -> bytes:
        return (await self._request("GET", path)).content

    async def post(self, path: str, body: JsonObject | None = None, *, unbounded: bool = False) -> JsonObject:
        """POST JSON. ``unbounded``: the answer comes when the work is done (a first sync takes its time)."""
        return _object(await self._request("POST", path, body=body or {}, unbounded=unbounded))

    async def change(
        self, method: str, path: str, body: JsonObject | None = None, /, **query: str | int | None
    ) -> JsonObject:
        """POST or DELETE what the mail server is to change. The service answers in time by itself; without one, the
        work is done here and takes what it takes.
        """
        return _object(await self._request(method, path, query=query, body=body, unbounded=not self.service_runs))

    async def delete(self, path: str, /, **query: str | int | None) -> JsonObject:
        """DELETE what is stored here. The answer comes when the work is done."""
        return _object(await self._request("DELETE", path, query=query, unbounded=True))

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: JsonObject | None = None,
        unbounded: bool = False,
    ) -> httpx2.Response:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            async with asyncio.timeout(None if unbounded else ANSWER_SECONDS):
                response = await self._http.request(method, path, params=given, json=body)
        except TimeoutError:
            raise NoAnswerError(
                f"the service did not answer {method} {path} within {ANSWER_SECONDS:g} s",
                hint="look at its log, or at: mailmill doctor",
            ) from None
        except httpx2.TransportError as error:
            raise NoAnswerError(
                "the connection to the service was cut before it answered",
                hint="was it stopped? its log says; then run the command again",
            ) from error
        if response.is_success:
            return response
        raise _error_of(response)


def route(*parts: str) -> str:
    """``/v1/…`` with each part quoted."""
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])


@asynccontextmanager
async def open_client(settings: Settings, *, makes_store: bool = True) -> AsyncIterator[ServiceClient]:
    """The client for ``settings``' data folder. Where no service runs, the application is opened here, without its
    background work, and closed at the end. Raises MailmillError; without ``makes_store`` also where the file of a
    database would have to be made first."""
    async with AsyncExitStack() as stack:
        yield await _choose(stack, settings, makes_store=makes_store)


async def _choose(stack: AsyncExitStack, settings: Settings, *, makes_store: bool) -> ServiceClient:
    socket_path = settings.service.socket_path
    if await service_runs(socket_path):
        return await stack.enter_async_context(_over_socket(socket_path))
    if not makes_store:
        from mailmill.app.store_presence import refuse_without_store

        await asyncio.to_thread(refuse_without_store, settings)
    loop = asyncio.get_running_loop()
    until = loop.time() + HELD_SECONDS
    while True:
        try:
            return await stack.enter_async_context(_in_process(settings))
        except StoreInUseError:
            # By a service that is just starting and does not listen yet, by one that is ending and does not any more,
            # or by another command.
            if loop.time() >= until:
                raise
        await asyncio.sleep(HELD_POLL_SECONDS)
        if await service_runs(socket_path):
            return await stack.enter_async_context(_over_socket(socket_path))


async def service_runs(socket_path: Path) -> bool:
    """Whether somebody listens on the socket. Raises MailmillError where it belongs to another user."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_unix_connection(str(socket_path))
    except PermissionError:
        raise MailmillError(
            f"the service's socket {socket_path} belongs to another user",
            hint="run the command as the user the service runs as",
        ) from None
    except BlockingIOError:  # its queue of connections is full: somebody is there
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


@asynccontextmanager
async def _over_socket(socket_path: Path) -> AsyncIterator[ServiceClient]:
    # Nothing here speaks TLS: reading the system's certificates would only take its time.
    nobody_trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with _http(httpx2.AsyncHTTPTransport(uds=str(socket_path), verify=nobody_trusted)) as http:
        yield ServiceClient(http, service_runs=True)


@asynccontextmanager
async def _in_process(settings: Settings) -> AsyncIterator[ServiceClient]:
    from mailmill.api.access import Access
    from mailmill.api.application import create_app
    from mailmill.app.application import open_application
    from mailmill.app.use_cases import UseCases

    async with open_application(settings, for_command=True, lock_wait_seconds=0.0) as application:
        # Nobody knows this token; requests pass as the socket's do.
        app = create_app(UseCases(application), Access(secrets.token_urlsafe(32)))
        transport = httpx2.ASGITransport(app=cast("Any", trusted(cast("AsgiApp", app))), raise_app_exceptions=True)
        async with _http(transport) as http:
            yield ServiceClient(http, service_runs=False)


def _http(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
    """No timeout of its own: ``ServiceClient`` bounds each request as a whole."""
    return httpx2.AsyncClient(transport=transport, base_url=BASE_URL, timeout=None, trust_env=False)


def trusted(app: AsgiApp) -> AsgiApp:
    """``app``, with each request marked as local: whoever may open the data folder may do all."""
    from mailmill.api.gate import LOCAL_PEER

    async def marked(scope: Scope, receive: Callable[..., Awaitable[Any]], send: Callable[..., Awaitable[Any]]) -> None:
        await app({**scope, LOCAL_PEER: True}, receive, send)

    return marked


def _object(response: httpx2.Response) -> JsonObject:
    try:
        value = response.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise NoAnswerError("the service's answer is not what mailmill sends", hint="is it of the same version?")
    return value


def _error_of(response: httpx2.Response) -> MailmillError:
    try:
        body = response.json()["error"]
        return ServiceError(str(body["code"]), str(body["message"]), hint=str(body.get("hint") or ""))
    except (ValueError, KeyError, TypeError):
        return ServiceError("error", f"the service answered {response.status_code}", hint="its log has the details")
