"""A message's HTML made fit to be shown: sanitised, and bounded in time and size for whatever a stranger wrote.

Laws: what the sanitiser gets is capped and tamed, so that its work is bounded; it runs in threads of its own, so that
hostile HTML keeps nothing else from running; nobody waits for it longer than ``TIMEOUT_SECONDS``.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import nh3

from mailmill.processing.html_taming import tame

MAX_HTML_CHARS: Final = 256 << 10
_UNSEEN: Final = {"script", "style", "title"}
TIMEOUT_SECONDS: Final = 5.0
_THREADS: Final = 2


def safe_html(html: str) -> tuple[str, bool]:
    """(sanitised HTML, whether something of it was cut away because it was too much). Blocks, for 2 s at worst."""
    tamed = tame(html[:MAX_HTML_CHARS])
    return nh3.clean(tamed, clean_content_tags=_UNSEEN), len(tamed) != len(html)


class Sanitizer:
    """``safe_html`` off the loop. Belongs to one event loop; ``close`` it at the end."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="mailmill-html")

    async def clean(self, html: str) -> tuple[str, bool]:
        """As ``safe_html``; ("", True) for HTML that takes too long (the wait for a thread counts) or breaks it."""
        if not html:
            return "", False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, _contained, html)
        except TimeoutError:
            return "", True

    def close(self) -> None:
        """Begin nothing more. What runs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _contained(html: str) -> tuple[str, bool]:
    try:
        return safe_html(html)
    except BaseException:  # noqa: BLE001 - a panic in Rust is a bare BaseException; a message is not worth a request's task
        return "", True
