"""What the routes share: how they reach the application, and the answers that OpenAPI describes for all of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer

from mailmill.api.contract import UseCases
from mailmill.api.schemas import ErrorAnswer


async def _door(request: Request) -> UseCases:
    use_cases: UseCases = request.app.state.use_cases
    return use_cases


Door = Annotated[UseCases, Depends(_door)]
"""A route's parameter for the application. ``async``, or FastAPI would take a thread for it."""

AccountName = Annotated[str, Path(description="The account's name, as in the configuration.", max_length=200)]
MessageId = Annotated[
    str, Path(description="The message's id; it stays the same when the message moves.", max_length=200)
]

PROTECTED = [Security(HTTPBearer(auto_error=False, description="The token in `data_dir/api-token`."))]
"""Only describes: the token is judged by ``gate``, before any route."""

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The request makes no sense; the message names the field."},
    401: {"model": ErrorAnswer, "description": "No token, or a wrong one."},
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such thing."}}

CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "It does not fit what is there; the hint says what to do first."}
}


def answers(model: type[Any], *more: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: 200 with ``model``, and the errors named."""
    described: dict[int | str, dict[str, Any]] = {200: {"model": model}}
    for errors in more:
        described |= errors
    return described
