"""The page, and how a browser is let in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from mailmill.api.access import LINK_SECONDS, SESSION_COOKIE, SESSION_SECONDS, Access
from mailmill.api.assets import Assets
from mailmill.api.door import ERRORS, PROTECTED, answers
from mailmill.api.errors import error_response
from mailmill.api.schemas import LoginLink, TokenLogin

router = APIRouter()


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    return await _assets(request).response("index.html")


@router.get("/static/{name}", include_in_schema=False)
async def asset(request: Request, name: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    return await _assets(request).response(name, if_none_match=if_none_match)


@router.get("/login", include_in_schema=False)
async def login(request: Request, code: Annotated[str | None, Query(max_length=200)] = None) -> Response:
    """With a one-time code: signs the browser in. Without: the form for the token."""
    if code is None:
        return await _assets(request).response("login.html")
    session = _access(request).redeem(code)
    if session is None:
        return await _assets(request).response("link_stale.html", status=410)
    return _signed_in(RedirectResponse("/", status_code=303), session)


@router.post("/login", include_in_schema=False)
async def login_with_token(request: Request, form: TokenLogin) -> Response:
    access = _access(request)
    if not access.token_matches(form.token.strip()):
        return error_response(401, "unauthorized", "that is not the API token", "it is in data_dir/api-token")
    return _signed_in(Response(status_code=204), access.new_session())


@router.post("/logout", include_in_schema=False)
async def logout(request: Request) -> Response:
    _access(request).end_session(request.cookies.get(SESSION_COOKIE, ""))
    response = Response(status_code=204)
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")
    return response


@router.post(
    "/v1/login-link",
    tags=["service"],
    summary="A one-time link to the page",
    dependencies=PROTECTED,
    responses=answers(LoginLink, ERRORS),
)
async def login_link(request: Request) -> Response:
    """Lets another browser in without showing it the token."""
    code = _access(request).new_link_code()
    return JSONResponse({"path": f"/login?code={code}", "expiresSeconds": LINK_SECONDS})


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


def _assets(request: Request) -> Assets:
    assets: Assets = request.app.state.assets
    return assets


def _signed_in(response: Response, session: str) -> Response:
    response.set_cookie(SESSION_COOKIE, session, max_age=SESSION_SECONDS, path="/", httponly=True, samesite="strict")
    return response
