"""Any bytes as a message.

What must hold: nothing is raised; every string can be shown and stored (no NUL, no lone surrogate, no control character
in a line); every cap is kept; what is given out is no more than what came in; the header alone gives the summary of the
whole; and the same bytes give the same value.
"""

from __future__ import annotations

from mailmill.message_parser import Caps, ParsedMessage, parse_headers, parse_message

CAPS = Caps(
    message_bytes=20_000,
    header_bytes=2_000,
    header_fields=50,
    depth=4,
    parts=20,
    delimiters=200,
    decoded_bytes=10_000,
    text_bytes=5_000,
)
_LAST_DATE = 253402400000.0  # some hours into the year 10000


def check(data: bytes) -> None:
    """Raises AssertionError where a law is broken, and whatever should never have been raised."""
    parsed = parse_message(data)
    check_strings(parsed)
    check_attachments(parsed)
    tight = parse_message(data, CAPS)
    check_strings(tight)
    check_attachments(tight)
    check_caps(tight, len(data))
    parse_headers(data)
    assert parse_message(data) == parsed


def check_strings(parsed: ParsedMessage) -> None:
    summary = parsed.summary
    people = (*summary.from_, *summary.to, *summary.cc, *summary.reply_to)
    lines = [
        summary.subject,
        summary.message_id_header,
        summary.in_reply_to,
        *summary.references,
        *(text for person in people for text in (person.name, person.address)),
        *(text for field in parsed.headers for text in field),
        *(text for a in parsed.attachments for text in (a.id, a.filename, a.content_type, a.content_id)),
        *parsed.defects,
    ]
    for line in lines:
        assert not any(ord(character) < 32 for character in line), line
    for text in (*lines, parsed.text_plain, parsed.text_html):
        text.encode("utf-8")
        assert "\0" not in text
    date = summary.date
    assert date is None or 0 <= date < _LAST_DATE


def check_attachments(parsed: ParsedMessage) -> None:
    ids = [attachment.id for attachment in parsed.attachments]
    assert len(ids) == len(set(ids)), "two parts with one path"
    for attachment in parsed.attachments:
        assert attachment.size_bytes == len(attachment.content) <= attachment.encoded_size_bytes
        assert all(number.isdecimal() for number in attachment.id.split("."))


def check_caps(parsed: ParsedMessage, size: int) -> None:
    assert len(parsed.headers) <= CAPS.header_fields
    assert len(parsed.attachments) <= CAPS.parts
    assert all(attachment.id.count(".") < CAPS.depth for attachment in parsed.attachments)
    assert sum(attachment.size_bytes for attachment in parsed.attachments) <= CAPS.decoded_bytes
    # Decoding gives at most one character for each byte; parts are joined by a line end.
    assert len(parsed.text_plain) <= CAPS.text_bytes + CAPS.parts
    assert len(parsed.text_html) <= CAPS.text_bytes + CAPS.parts
    assert len(parsed.text_plain) + len(parsed.text_html) <= size + CAPS.parts
