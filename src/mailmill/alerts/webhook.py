"""One webhook: a signed POST (Standard Webhooks), bounded in time and in what is read of the answer.

Answers: 2xx is delivered, and nothing that comes after its status line changes that. 410 is permanent. All else, and no
answer, is tried again (Retry-After is honoured); redirects are not followed. What counts against the destination's
health is ``rules.is_refusal``'s to say.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx2
from standardwebhooks import Webhook

from mailmill.alerts.guarded_transport import GuardedTransport
from mailmill.errors import ConfigurationError, DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailmill.alerts.rules import Destination
    from mailmill.alerts.senders import Outgoing

MAX_ANSWER_BYTES: Final = 16 << 10
"""How much of an answer is read; a longer one costs its connection."""

BODY_SECONDS: Final = 1.0
SHOWN_ANSWER_CHARS: Final = 200
KEEP_ALIVE_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Answer:
    """What came so far of an answer; ``status`` is 0 before its status line."""

    status: int = 0
    headers: httpx2.Headers = field(default_factory=httpx2.Headers)
    body: bytearray = field(default_factory=bytearray)


class WebhookSender:
    """Posts to one URL, over connections that are kept. Raises ConfigurationError for a secret that is none.

    Makes no connection yet, but reads the trusted certificates from disk: not for the event loop. ``clock`` tells
    seconds since the epoch: its word is signed, and receivers refuse what is minutes off.
    """

    def __init__(self, destination: Destination, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._signer = Webhook(_signing_key(destination))
        self._url = destination.url
        self._host = urlsplit(destination.url).hostname or ""
        self._timeout_seconds = destination.timeout_seconds
        limits = httpx2.Limits(
            max_connections=destination.concurrency + 1,
            max_keepalive_connections=destination.concurrency,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
        )
        # No proxy from the environment: it would be the one to look up the name, past the guard.
        transport: httpx2.AsyncBaseTransport = httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)
        if not destination.allow_private:
            transport = GuardedTransport(transport)
        self._client = httpx2.AsyncClient(
            transport=transport,
            follow_redirects=False,
            trust_env=False,
            timeout=None,  # the whole exchange stands under asyncio.timeout
            headers={
                "content-type": "application/json",
                "user-agent": f"mailmill/{version('mailmill')}",
                "accept": "*/*",
                "accept-encoding": "identity",
            },
        )

    async def send(self, outgoing: Outgoing) -> int:
        """POST ``outgoing``; the HTTP status of success. Raises DeliveryError. Can be cancelled."""
        answer = _Answer()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._exchange(outgoing, answer)
        except TimeoutError as error:
            if not answer.status:
                raise DeliveryError(f"{self._host} did not answer within {self._timeout_seconds:g} s") from error
        except httpx2.HTTPError as error:
            if not answer.status:
                raise DeliveryError(f"{self._host}: {_reason(error)}") from error
        except httpx2.InvalidURL as error:
            raise DeliveryError("the destination's URL cannot be used", permanent=True) from error
        if 200 <= answer.status < 300:
            return answer.status
        raise _refused(self._host, answer, self._clock())

    async def _exchange(self, outgoing: Outgoing, answer: _Answer) -> None:
        now = datetime.fromtimestamp(self._clock(), UTC)
        headers = {
            "webhook-id": outgoing.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(outgoing.id, now, outgoing.body.decode()),
        }
        async with self._client.stream("POST", self._url, content=outgoing.body, headers=headers) as response:
            # The status is the answer, noted before anything else can go wrong. The rest is read so that the connection
            # can be used again, and for the words of a refusal; a body that drips, breaks or never ends must not turn a
            # 200 into a repeat.
            answer.status, answer.headers = response.status_code, response.headers
            with contextlib.suppress(TimeoutError, httpx2.HTTPError):
                async with asyncio.timeout(BODY_SECONDS):
                    async for piece in response.aiter_raw():
                        answer.body += piece
                        if len(answer.body) > MAX_ANSWER_BYTES:
                            break

    async def close(self) -> None:
        await self._client.aclose()


def _signing_key(destination: Destination) -> bytes:
    try:
        key = base64.b64decode(destination.secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ConfigurationError(
            f"the secret of destination {destination.name!r} is not a webhook secret",
            hint='make one with: echo "whsec_$(openssl rand -base64 32)"',
            key=f"destinations.{destination.name}.secret",
        )
    return key


def _refused(host: str, answer: _Answer, now: float) -> DeliveryError:
    status = answer.status
    said = answer.body[:MAX_ANSWER_BYTES].decode("utf-8", "replace")[: 2 * SHOWN_ANSWER_CHARS]
    shown = " ".join("".join(char if char.isprintable() else " " for char in said).split())[:SHOWN_ANSWER_CHARS]
    hint = ""
    if 300 <= status < 400:
        hint = "redirects are not followed: use the address it points to"
    elif status in (401, 403):
        hint = "check that the receiver verifies with this destination's secret"
    return DeliveryError(
        f"{host} answered {status}" + (f": {shown}" if shown else ""),
        hint=hint,
        status=status,
        permanent=status == 410,
        retry_after_seconds=_retry_after(answer.headers.get("retry-after", ""), now),
    )


def _retry_after(value: str, now: float) -> float | None:
    """Retry-After (RFC 9110 §10.2.3) in seconds from now: a number, or a date."""
    value = value.strip()
    if not value:
        return None
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value[:100]).timestamp() - now)
    except (ValueError, OverflowError, TypeError):
        return None


def _reason(error: httpx2.HTTPError) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
