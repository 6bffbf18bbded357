"""The two functions of the room."""

from __future__ import annotations

import re
from typing import Final

from mailmill.message_parser import mime
from mailmill.message_parser.addresses import parse_addresses
from mailmill.message_parser.charsets import clean, decode_body
from mailmill.message_parser.fields import Field, find_block, pick_fields, skip_block, split_fields, text
from mailmill.message_parser.structured import parse_date, parse_message_id, parse_message_ids
from mailmill.message_parser.values import DEFAULT_CAPS, Attachment, Caps, HeaderSummary, ParsedMessage
from mailmill.model import Address

MAX_DEFECTS: Final = 50
MAX_DETECTIONS: Final = 8
"""Parts of one message whose charset is guessed at length."""

_BLANK_LINES: Final = re.compile(rb"[\r\n]{1,100}(?=[!-9;-~]{1,100}:)")

_SUMMARY_FIELDS: Final = frozenset(
    ("subject", "from", "to", "cc", "reply-to", "date", "message-id", "in-reply-to", "references")
)
_SEVERAL: Final = frozenset(("to", "cc", "reply-to"))


def parse_headers(raw: bytes) -> HeaderSummary:
    """Read the header block at the start of ``raw`` (a whole message or the block alone). Never raises on bad mail."""
    start = _first_line(raw)
    block = find_block(raw, start, len(raw), DEFAULT_CAPS.header_bytes)
    if b"\n" not in raw[start : block.end]:
        raw, start = raw[start : DEFAULT_CAPS.header_bytes].replace(b"\r", b"\n"), 0
        block = find_block(raw, 0, len(raw), DEFAULT_CAPS.header_bytes)
    return _summarise(pick_fields(raw[start : block.end], _SUMMARY_FIELDS, DEFAULT_CAPS.header_fields))


def parse_message(raw: bytes, caps: Caps = DEFAULT_CAPS, *, keep_raw: bool = False) -> ParsedMessage:
    """Parse a whole message (RFC 5322, 2045–2049, 2231). Never raises on bad mail; work is linear in ``raw``."""
    defects: list[str] = []
    kept = raw if keep_raw else b""
    if len(raw) > caps.message_bytes:
        defects.append(f"larger than {caps.message_bytes} bytes: the rest was not read")
        raw = raw[: caps.message_bytes]
    start = _first_line(raw)
    block = find_block(raw, start, len(raw), caps.header_bytes)
    if b"\n" not in raw[start : block.end] and b"\r" in raw[start : block.end]:
        defects.append("lines end in a bare CR")
        raw, start = raw[start:].replace(b"\r", b"\n"), 0
        block = find_block(raw, start, len(raw), caps.header_bytes)
    if block.truncated:
        defects.append("the header is too long: the rest of it was not read")
    body = skip_block(raw, block.end, len(raw)) if block.truncated else block.body
    fields, junk = split_fields(raw[start : block.end], caps.header_fields)
    if junk:
        defects.append("some header lines are no fields")
    parts = mime.find_parts(raw, fields, body, caps, defects)
    charset = next((part.charset for part in parts if part.charset), "")
    plain, html, attachments = _read_parts(raw, parts, caps, defects)
    return ParsedMessage(
        summary=_summarise(fields, charset, defects),
        headers=tuple((name, text(value, charset)) for name, value in fields),
        text_plain=plain,
        text_html=html,
        attachments=attachments,
        defects=tuple(dict.fromkeys(defects))[:MAX_DEFECTS],
        raw=kept,
    )


def _first_line(raw: bytes) -> int:
    """Where the header begins: blank lines before a field, left over by some transports, don't count."""
    found = _BLANK_LINES.match(raw)
    return found.end() if found is not None else 0


def _summarise(fields: list[Field], charset: str = "", defects: list[str] | None = None) -> HeaderSummary:
    values: dict[str, str] = {}
    for name, value in fields:
        key = name.lower()
        if key in _SUMMARY_FIELDS:
            if key not in values:
                values[key] = value
            elif key in _SEVERAL:
                values[key] += ", " + value
            elif defects is not None:
                defects.append(f"several {key} fields: the first counts")  # RFC 5322 §3.6 allows one
    get = values.get

    def addresses(key: str) -> tuple[Address, ...]:
        value = get(key)
        return parse_addresses(value, charset) if value else ()

    date = get("date")
    return HeaderSummary(
        subject=text(get("subject", ""), charset),
        from_=addresses("from"),
        to=addresses("to"),
        cc=addresses("cc"),
        reply_to=addresses("reply-to"),
        date=parse_date(date) if date else None,
        message_id_header=parse_message_id(get("message-id", "")),
        in_reply_to=parse_message_id(get("in-reply-to", "")),
        references=parse_message_ids(get("references", "")),
    )


def _read_parts(
    raw: bytes, parts: list[mime.Part], caps: Caps, defects: list[str]
) -> tuple[str, str, tuple[Attachment, ...]]:
    """Decode the leaves: the joined text, the joined HTML, and everything else as attachments."""
    texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
    room = {"text/plain": caps.text_bytes, "text/html": caps.text_bytes}
    attachments = []
    left = caps.decoded_bytes
    doubtful = 0
    for part in parts:
        encoded = raw[part.start : part.end]
        content, odd = mime.decode_transfer(encoded, part.encoding)
        if odd:
            defects.append(odd)
        if len(content) > left:
            defects.append(f"decodes to more than {caps.decoded_bytes} bytes: the rest was left out")
            content = content[:left]
        left -= len(content)
        if _is_body(part):
            if len(content) > room[part.content_type]:
                defects.append(f"more than {caps.text_bytes} bytes of text: the rest was left out")
                content = content[: room[part.content_type]]
            room[part.content_type] -= len(content)
            shown, odd = decode_body(content, part.charset, detect=doubtful < MAX_DETECTIONS)
            if odd:
                doubtful += 1
                defects.append(odd)
            texts[part.content_type].append(shown.replace("\r\n", "\n"))
        else:
            attachments.append(_attachment(part, len(encoded), content))
    return "\n".join(texts["text/plain"]), "\n".join(texts["text/html"]), tuple(attachments)


def _is_body(part: mime.Part) -> bool:
    """Whether a leaf is text to read. A named text is a file, unless it is one of the alternatives or all there is."""
    if part.content_type not in ("text/plain", "text/html") or part.disposition == "attachment":
        return False
    return not part.filename or part.parent in ("", "alternative")


def _attachment(part: mime.Part, encoded_size: int, content: bytes) -> Attachment:
    return Attachment(
        id=part.path,
        filename=clean(part.filename),
        content_type=part.content_type,
        size_bytes=len(content),
        encoded_size_bytes=encoded_size,
        inline=part.disposition != "attachment",
        content_id=text(part.content_id).strip("<> "),
        content=content,
    )
