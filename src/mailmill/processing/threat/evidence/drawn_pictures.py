"""Pictures that stand in the HTML itself, as ``data:`` URIs (RFC 2397), made attachments so that they are looked at
like any other. Pure."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from mailmill.message_parser import Attachment

MAX_PICTURES: Final = 5
_HEAD: Final = re.compile(
    r"^data:(image/(?:png|jpe?g|gif|webp|bmp|x-png|pjpeg))((?:;[\w=.-]{0,60}){0,5}),", re.IGNORECASE
)
_BLANKS: Final = re.compile(rb"[\s%]+")


def pictures_in(sources: Iterable[str]) -> Iterator[Attachment]:
    """An attachment for each of the first ``MAX_PICTURES`` picture URIs; what is no picture or no base64 is left
    out."""
    for number, source in enumerate(tuple(sources)[:MAX_PICTURES], 1):
        head = _HEAD.match(source)
        content = _decoded(source[head.end() :], "base64" in head.group(2).lower()) if head else b""
        if head is not None and content:
            yield Attachment(
                id=f"text.{number}",
                filename="",
                content_type=head.group(1).lower(),
                size_bytes=len(content),
                encoded_size_bytes=len(source),
                inline=True,
                content_id="",
                content=content,
            )


def _decoded(text: str, base64: bool) -> bytes:
    raw = unquote_to_bytes(text)
    if not base64:
        return raw
    packed = _BLANKS.sub(b"", raw).rstrip(b"=")
    # A tail of one letter holds no byte; browsers drop it.
    packed = packed[: len(packed) - 1] if len(packed) % 4 == 1 else packed
    try:
        return binascii.a2b_base64(packed + b"=" * (-len(packed) % 4))
    except binascii.Error:
        return b""
