"""Is it alive, is it ready, how is it doing."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from mailmill.api.door import ERRORS, PROTECTED, Door, answers
from mailmill.api.schemas import Health, Ready, Status

router = APIRouter(tags=["service"])

_PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/health", summary="Is the process alive?", responses=answers(Health))
async def health(door: Door) -> Response:
    """Answers without a token, and without asking the database: a liveness probe."""
    return JSONResponse(await door.health())


@router.get(
    "/ready",
    summary="Can it do its work?",
    responses=answers(Ready, {503: {"model": Ready, "description": "Not now; the answer says what is missing."}}),
)
async def ready(door: Door) -> Response:
    """Answers without a token: a readiness probe. An account that cannot log in does not make the service unready."""
    is_ready, answer = await door.ready()
    return JSONResponse(answer, status_code=200 if is_ready else 503)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text format."}, 401: ERRORS[401]},
)
async def metrics(door: Door) -> Response:
    """Needs no token from this machine itself (unless a proxy forwarded the request)."""
    return Response(await door.metrics(), headers={"Content-Type": _PROMETHEUS_TEXT})


@router.get(
    "/v1/status", summary="Figures over all accounts", dependencies=PROTECTED, responses=answers(Status, ERRORS)
)
async def status(door: Door) -> Response:
    return JSONResponse(await door.status())
