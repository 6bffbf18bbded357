"""The layers around every request: who may pass, and the headers that every answer carries.

Law: what is not named here as open needs the token or a session. ``judge`` decides on plain values; the layers act.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mailmill.api.access import SESSION_COOKIE, Access, host_name, is_loopback, same_origin
from mailmill.api.errors import error_response

MAX_BODY_BYTES = 1024 * 1024
MAX_MESSAGE_BYTES = 50 * 1024 * 1024
"""The largest body of a request that uploads a message."""

_UPLOAD_PATH = re.compile(r"/v1/account/[^/]+/messages")

LOCAL_PEER = "mailmill.local_peer"
"""Scope key: the request came over the service's own unix socket, whose file mode (0600) is the permission."""

_OPEN_PATHS = frozenset({"/health", "/ready", "/login"})
_OPEN_PREFIX = "/static/"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_FORWARDING_HEADERS = frozenset({"forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip"})
_FORWARDING_PREFIX = "x-forwarded-"

_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let in. ``to_login`` sends a browser to the login page instead of an error."""

    status: int
    code: str
    message: str
    hint: str = ""
    to_login: bool = False


_NEEDS_TOKEN = Refusal(
    401,
    "unauthorized",
    "this needs the API token",
    "send 'Authorization: Bearer <token>' (see data_dir/api-token), or open the link that `mailmill status` prints",
)
_WRONG_TOKEN = Refusal(401, "unauthorized", "the API token is wrong", "the token is in data_dir/api-token")
_CROSS_ORIGIN = Refusal(
    403, "crossOrigin", "requests from other sites are refused", "programs send the token, not a cookie"
)
_SIGN_IN = Refusal(401, "unauthorized", "sign in first", to_login=True)


def judge(access: Access, *, method: str, path: str, headers: Headers, peer: str | None) -> Refusal | None:
    """None to let the request in. ``peer`` is the address it came from."""
    hosts = headers.getlist("host")
    name = host_name(hosts[0]) if len(hosts) == 1 else None
    if name is None:
        return Refusal(400, "badHost", "the Host header is missing or malformed")
    if not access.host_allowed(name):
        return Refusal(
            421,
            "unknownHost",
            f"this service is not known as {name!r}",
            "add the name to service.allowed_hosts if it is yours",
        )
    length = headers.get("content-length", "")
    limit = max_body_bytes(method, path)
    if length.isascii() and length.isdigit() and int(length[:20]) > limit:
        return Refusal(413, "tooLarge", _too_large(limit))

    origin = headers.get("origin")
    foreign = origin is not None and not same_origin(origin, hosts[0])
    if foreign and method not in _SAFE_METHODS:
        return _CROSS_ORIGIN
    if path in _OPEN_PATHS or path.startswith(_OPEN_PREFIX):
        return None
    if path == "/metrics" and peer is not None and is_loopback(peer) and not _forwarded(headers):
        return None

    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        passes = scheme.lower() == "bearer" and access.token_matches(token.strip())
        return None if passes else _WRONG_TOKEN

    session = cookie_parser(headers.get("cookie", "")).get(SESSION_COOKIE)
    if session is None or not access.session_valid(session):
        return _SIGN_IN if path == "/" and method in _SAFE_METHODS else _NEEDS_TOKEN
    # A browser sends the cookie by itself, also for a page on another port of this host (ports do not make another
    # site): who asks is told by Origin, and by Sec-Fetch-Site where the browser sends it.
    if foreign or (origin is None and method not in _SAFE_METHODS):
        return _CROSS_ORIGIN
    if path != "/" and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return _CROSS_ORIGIN
    return None


def _forwarded(headers: Headers) -> bool:
    """Whether a proxy passed the request on: then the peer is the proxy, not who asks."""
    return any(name in _FORWARDING_HEADERS or name.startswith(_FORWARDING_PREFIX) for name in headers)


class Gate:
    """Asks ``judge`` about every request that did not come over the service's own socket."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and scope.get(LOCAL_PEER) is not True:
            client = scope.get("client")
            refusal = judge(
                self._access,
                method=scope["method"],
                path=scope["path"],
                headers=Headers(scope=scope),
                peer=client[0] if client else None,
            )
            if refusal is not None:
                await _refuse(refusal)(scope, receive, send)
                return
        limit = max_body_bytes(scope["method"], scope["path"]) if scope["type"] == "http" else MAX_BODY_BYTES
        await self._app(scope, _counted(receive, limit), send)


def max_body_bytes(method: str, path: str) -> int:
    """How large the body of a request may be."""
    return MAX_MESSAGE_BYTES if method == "POST" and _UPLOAD_PATH.fullmatch(path) else MAX_BODY_BYTES


def _too_large(limit: int) -> str:
    return f"the request is larger than {limit} bytes"


def _counted(receive: Receive, limit: int) -> Receive:
    """Stops a body that grows beyond the cap without having said so."""
    received_bytes = 0

    async def receive_counted() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > limit:
            raise HTTPException(413, _too_large(limit))
        return message

    return receive_counted


def _refuse(refusal: Refusal) -> ASGIApp:
    if refusal.to_login:
        return RedirectResponse("/login", status_code=303)
    headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else None
    return error_response(refusal.status, refusal.code, refusal.message, refusal.hint, headers=headers)


class SecurityHeaders:
    """Puts the same guard on every answer, errors included. A route may set a stricter policy of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Assets are revalidated by their ETag, everything else may hold mail and is never kept.
        cache = "no-cache" if scope["path"].startswith(_OPEN_PREFIX) else "no-store"

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", _CONTENT_SECURITY_POLICY)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["X-Frame-Options"] = "DENY"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
                headers["Cache-Control"] = cache
            await send(message)

        await self._app(scope, receive, send_guarded)
