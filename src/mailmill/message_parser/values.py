"""What the parser gives out, and the bounds it keeps. Frozen values; no string holds a NUL or a lone surrogate."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailmill.model import Address


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds on what one message may cost. What lies beyond is left out and named in ``ParsedMessage.defects``.

    ``message_bytes`` raw bytes looked at · ``header_bytes`` and ``header_fields`` per header block (message or part) ·
    ``depth`` nested multiparts · ``parts`` leaves · ``delimiters`` lines that begin with ``--`` looked at ·
    ``decoded_bytes`` of all contents together · ``text_bytes`` decoded into each of ``text_plain`` and ``text_html``.
    """

    message_bytes: int = 128 << 20
    header_bytes: int = 256 << 10
    header_fields: int = 1_000
    depth: int = 32
    parts: int = 2_000
    delimiters: int = 200_000
    decoded_bytes: int = 128 << 20
    text_bytes: int = 4 << 20


DEFAULT_CAPS = Caps()


@dataclass(frozen=True, slots=True)
class HeaderSummary:
    """What a listing shows of a message. ``date`` is the Date field in seconds since the epoch (UTC), or None.

    ``message_id_header``, ``in_reply_to`` and ``references`` keep their angle brackets.
    """

    subject: str = ""
    from_: tuple[Address, ...] = ()
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    date: float | None = None
    message_id_header: str = ""
    in_reply_to: str = ""
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A leaf that is not shown as text. ``id`` is its IMAP part path (RFC 9051 §6.4.5), e.g. ``2.1``.

    ``filename`` is what the sender wrote, without control characters: never use it as a path. ``size_bytes`` counts
    ``content``, ``encoded_size_bytes`` the bytes on the wire. ``inline`` is False only where the sender asked for an
    attachment. ``content_id`` comes without angle brackets.
    """

    id: str
    filename: str
    content_type: str
    size_bytes: int
    encoded_size_bytes: int
    inline: bool
    content_id: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """A whole message. ``headers`` stand in their order, unfolded and decoded; ``defects`` say in words what was odd.

    ``text_plain`` and ``text_html`` join the text parts that are not attachments; line ends are ``\\n``. The HTML is as
    the sender wrote it: sanitise before showing it. ``raw`` is what was read, where it was asked for, else empty.
    """

    summary: HeaderSummary
    headers: tuple[tuple[str, str], ...] = ()
    text_plain: str = ""
    text_html: str = ""
    attachments: tuple[Attachment, ...] = ()
    defects: tuple[str, ...] = ()
    raw: bytes = field(default=b"", repr=False, compare=False)

    def header(self, name: str) -> str | None:
        """The first field of this name (any case), or None."""
        wanted = name.lower()
        return next((value for field_name, value in self.headers if field_name.lower() == wanted), None)

    def header_all(self, name: str) -> tuple[str, ...]:
        """Every field of this name (any case), in order."""
        wanted = name.lower()
        return tuple(value for field_name, value in self.headers if field_name.lower() == wanted)
