"""ENVELOPE (RFC 9051 §7.5.2): nested values into `Envelope`, strings decoded. Never trusted, only shown."""

from __future__ import annotations

from email.errors import HeaderParseError
from email.header import decode_header

from mailmill.imap.tokens import Value
from mailmill.model import Address, Envelope

_MAX_STRING_BYTES = 64 * 1024
_MAX_ADDRESSES = 10_000


def parse_envelope(value: Value) -> Envelope:
    """Raises ValueError where the ten fields are not there or an address is none."""
    if not isinstance(value, list) or len(value) < 10:
        raise ValueError("ENVELOPE has not ten fields")
    return Envelope(
        date=text(value[0]),
        subject=text(value[1]),
        from_=_addresses(value[2]),
        sender=_addresses(value[3]),
        reply_to=_addresses(value[4]),
        to=_addresses(value[5]),
        cc=_addresses(value[6]),
        bcc=_addresses(value[7]),
        in_reply_to=text(value[8]),
        message_id_header=text(value[9]),
    )


def text(value: Value) -> str:
    """An nstring as text: encoded words decoded, 8-bit bytes read as UTF-8 or else Latin-1, NIL empty.

    Cut at 64 KiB; raises ValueError on a list.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise ValueError("a string was expected")  # noqa: TRY004 - what a server sent has no Python type
    raw = value[:_MAX_STRING_BYTES].replace(b"\0", b"")
    try:
        plain = raw.decode("utf-8")
    except UnicodeDecodeError:
        plain = raw.decode("latin-1")
    return _decode_words(plain) if "=?" in plain else plain


def _decode_words(plain: str) -> str:
    try:
        chunks = decode_header(plain)
    except (HeaderParseError, ValueError):
        return plain
    decoded: list[str] = []
    for chunk, charset in chunks:
        if isinstance(chunk, str):
            decoded.append(chunk)
            continue
        try:
            decoded.append(chunk.decode(charset or "latin-1", "replace"))
        except (LookupError, ValueError):
            decoded.append(chunk.decode("utf-8", "replace"))
    return "".join(decoded).replace("\0", "")


def _addresses(value: Value) -> tuple[Address, ...]:
    if value is None or value == b"":
        return ()
    if not isinstance(value, list):
        raise ValueError("a list of addresses was expected")  # noqa: TRY004 - what a server sent has no Python type
    addresses = []
    for item in value[:_MAX_ADDRESSES]:
        if not isinstance(item, list) or len(item) < 4:
            raise ValueError("an address has not four fields")
        local, domain = text(item[2]), text(item[3])
        # Group syntax: a NIL domain opens a group by its name, NIL both closes it. Neither is a mailbox.
        if domain:
            addresses.append(Address(text(item[0]), f"{local}@{domain}"))
        elif local and item[0] is not None:
            addresses.append(Address(text(item[0]), local))
    return tuple(addresses)
