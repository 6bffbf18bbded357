"""HTTP clients for an application in this process."""

from __future__ import annotations

import httpx2
from fastapi import FastAPI

TOKEN = "tok-0123456789abcdef0123456789abcdef"


def client(app: FastAPI, *, token: str | None = TOKEN, peer: str = "127.0.0.1", **headers: str) -> httpx2.AsyncClient:
    """Talks to ``app`` as ``peer`` would; ``token`` None: shows nothing."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False, client=(peer, 50_000))
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost:8025", headers=headers)
