"""Errors on the way out: which HTTP status each has, and the one JSON shape that all have.

Law: the table from ``MailmillError`` to HTTP status lives here alone; a test fails where a new error is missing in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mailmill import errors

_log = structlog.get_logger(__name__)

# The nearest class on an error's line of descent decides. What an IMAP server does to us is 502, never 401: a client
# must not take the mail server's refusal for its own.
STATUS: Mapping[type[errors.MailmillError], int] = {
    errors.MailmillError: 500,
    errors.ConfigurationError: 400,
    errors.AddressInUseError: 503,
    errors.InvalidRequestError: 400,
    errors.NotFoundError: 404,
    errors.RawExpiredError: 410,
    errors.ConflictError: 409,
    errors.CursorAheadError: 409,
    errors.CursorTooOldError: 410,
    errors.RefusedError: 502,
    errors.StoreError: 503,
    errors.StoreInUseError: 503,
    errors.LeaseLostError: 503,
    errors.MasterKeyError: 503,
    errors.DatabaseUnavailableError: 503,
    errors.StorageFullError: 507,
    errors.StorageUnavailableError: 503,
    errors.StorageRefusedError: 503,
    errors.ImapError: 502,
    errors.ConnectError: 502,
    errors.CertificateError: 502,
    errors.AuthenticationError: 502,
    errors.InsecureError: 502,
    errors.ConnectionLostError: 502,
    errors.ProtocolError: 502,
    errors.ContradictionError: 502,
    errors.LimitError: 502,
    errors.CommandError: 502,
    errors.ArgumentError: 400,
    errors.UnsupportedError: 502,
    errors.PoolTimeoutError: 503,
    errors.MessageTooLargeError: 422,
    errors.ProcessorError: 500,
    errors.NotStartedError: 503,
    errors.DeliveryError: 502,
}

_HTTP_CODES = {
    400: "badRequest",
    404: "notFound",
    405: "methodNotAllowed",
    413: "tooLarge",
    415: "unsupportedMediaType",
}
_HTTP_HINTS = {404: "the endpoints are listed in /openapi.json", 405: "the endpoints are listed in /openapi.json"}
_RETRY_AFTER_SECONDS = 5


def status_of(error: errors.MailmillError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_response(
    status: int, code: str, message: str, hint: str = "", *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The one shape of every error."""
    body = {"error": {"code": code, "message": message, "hint": hint}}
    return JSONResponse(body, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Gives ``app`` the handlers. What none of them takes is caught by ``UnexpectedErrors`` around it."""
    app.add_exception_handler(errors.MailmillError, _on_mailmill_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_mailmill_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.MailmillError)
    status = status_of(error)
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if status == 503 else None
    return error_response(status, error.code, str(error), error.hint, headers=headers)


async def _on_invalid_request(_request: Request, error: Exception) -> Response:
    """Names the field and what was wrong with it; never repeats the value, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where, *path = first["loc"]
    if first["type"] == "json_invalid":
        return error_response(400, "invalidRequest", "the request body is not valid JSON")
    field = ".".join(str(part) for part in path) or str(where)
    hint = (
        "send it as application/json" if where == "body" and not path else "the fields are described in /openapi.json"
    )
    return error_response(400, "invalidRequest", f"{field}: {first['msg']}", hint)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    code = _HTTP_CODES.get(status, "http")
    phrase = str(error.detail or HTTPStatus(status).phrase)
    return error_response(
        status, code, phrase[:1].lower() + phrase[1:], _HTTP_HINTS.get(status, ""), headers=error.headers
    )


class UnexpectedErrors:
    """The last net: what nobody foresaw is logged with its traceback and answered without it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_watched)
        except Exception:
            # The path only: a query may hold a login code.
            _log.exception("request failed", method=scope["method"], path=scope["path"])
            if started:
                raise  # the server cuts the connection, so the half answer cannot be taken for a whole one
            answer = error_response(
                500, "internal", "something went wrong inside the service", "its log has the details"
            )
            await answer(scope, receive, send)
