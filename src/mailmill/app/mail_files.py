"""Mail from files: one message a file, folders of them, Maildir, mbox, a stream. Read as a stream, never a whole mbox.

Laws:

- What lies in a folder is mail if it looks so; what was named by hand is mail whatever it looks like. What cannot be
  read ends nothing: it comes out as :class:`NoMail` with the reason.
- A message is held alone, and cut one byte past ``Caps.message_bytes``, which the parser then says of it.
- In a folder only regular files are opened: a FIFO would wait for ever, a device might never end.

An mbox (RFC 4155) is cut at ``From `` lines: at the start or after an empty line, and with a time of day in them, for
not every writer quotes a paragraph that begins with that word. Of ``>From ``, ``>>From `` one mark is taken (mboxrd).
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from mailmill.message_parser import DEFAULT_CAPS

if TYPE_CHECKING:
    from typing_extensions import Buffer

STDIN: Final = "-"
MAX_MESSAGE_BYTES: Final = DEFAULT_CAPS.message_bytes + 1
MAX_DEPTH: Final = 40

_CHUNK_BYTES: Final = 64 << 10
_LOOK_BYTES: Final = 16 << 10

_POSTMARK_TIME = re.compile(rb"\b\d{1,2}:\d\d\b")
_QUOTED_FROM = re.compile(rb">{1,100}From ")
_FIELD = re.compile(rb"^([!-9;-~]{1,76})[ \t]{0,20}:", re.MULTILINE)
_OF_MAIL = frozenset(
    (
        b"from", b"to", b"subject", b"date", b"received", b"return-path", b"message-id", b"mime-version", b"reply-to",
        b"authentication-results", b"dkim-signature", b"delivered-to", b"x-original-to",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mail:
    """One message. ``name`` says where it is, for a person; ``number`` is its place in an mbox, from 1, else None."""

    name: str
    number: int | None
    raw: bytes

    @property
    def place(self) -> str:
        return self.name if self.number is None else f"{self.name}#{self.number}"

    @property
    def looks_like_mail(self) -> bool:
        """False for what was taken for mail because it was named by hand, and has nothing of it."""
        return looks_like_mail(self.raw[:_LOOK_BYTES])


@dataclass(frozen=True, slots=True)
class NoMail:
    """What holds no mail, or could not be read. ``failed`` is False for what merely lies among the mail."""

    name: str
    reason: str
    failed: bool


@dataclass(frozen=True, slots=True)
class MailFile:
    """A file that holds mail, or may. ``certain``: named by hand, in a Maildir, or called ``.eml`` or ``.mbox``.

    ``size_bytes`` is None where it ends when it ends.
    """

    path: str
    size_bytes: int | None
    certain: bool


def find_files(paths: Sequence[str]) -> Iterator[MailFile | NoMail]:
    """The files of ``paths`` in their order, folders recursively by name; ``-`` is the standard input."""
    for path in paths:
        if path == STDIN:
            yield MailFile(STDIN, None, certain=True)
            continue
        try:
            found = Path(path).stat()
        except (OSError, ValueError) as error:
            yield NoMail(path, _reason(error), failed=True)
            continue
        if stat.S_ISDIR(found.st_mode):
            yield from _in_folder(path, MAX_DEPTH)
        else:
            yield MailFile(path, found.st_size if stat.S_ISREG(found.st_mode) else None, certain=True)


def total_bytes(paths: Sequence[str]) -> int | None:
    """How much there is to read; None where that is not known before it is read."""
    total = 0
    for file in find_files(paths):
        if isinstance(file, MailFile):
            if file.size_bytes is None:
                return None
            total += file.size_bytes
    return total


def read_file(file: MailFile, stdin: BinaryIO | None = None) -> Iterator[Mail | NoMail]:
    """The messages of one file."""
    try:
        if file.path == STDIN:
            if stdin is None:
                raise ValueError("there is no standard input")
            yield from read_stream("(standard input)", stdin, certain=True)
        else:
            with Path(file.path).open("rb") as stream:
                yield from read_stream(file.path, stream, certain=file.certain)
    except (OSError, ValueError) as error:
        yield NoMail(file.path, _reason(error), failed=True)


def read_stream(name: str, stream: BinaryIO, *, certain: bool) -> Iterator[Mail | NoMail]:
    """The messages of a stream: an mbox if it begins as one, else one message. Raises OSError."""
    head = stream.read(_LOOK_BYTES)
    if not head.strip():
        yield NoMail(name, "it is empty", failed=certain)
    elif head.lstrip(b"\r\n").startswith(b"From "):
        yield from _read_mbox(name, io.BufferedReader(_Rejoined(head, stream), _CHUNK_BYTES))
    elif certain or looks_like_mail(head):
        yield Mail(name, None, head + stream.read(MAX_MESSAGE_BYTES - len(head)))
    else:
        yield NoMail(name, "it does not look like mail", failed=False)


def looks_like_mail(head: bytes) -> bool:
    """Whether a file that begins so is a message: it begins with a field, and one that mail has is among the first."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    block = start.partition(b"\n\n")[0]
    return _FIELD.match(block) is not None and any(name.lower() in _OF_MAIL for name in _FIELD.findall(block))


def _in_folder(folder: str, depth: int) -> Iterator[MailFile | NoMail]:
    if depth == 0:
        yield NoMail(folder, f"folders deeper than {MAX_DEPTH} are not looked into", failed=True)
        return
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        yield NoMail(folder, _reason(error), failed=True)
        return
    maildir = {"cur", "new"} <= {entry.name for entry in found}
    for entry in found:
        try:
            is_folder, is_file = entry.is_dir(follow_symlinks=False), entry.is_file()
            size = entry.stat().st_size if is_file else 0
            is_looked_into = is_folder and _is_looked_into(entry, maildir=maildir)
        except OSError as error:
            yield NoMail(entry.path, _reason(error), failed=True)
            continue
        if is_looked_into:
            yield from _in_folder(entry.path, depth - 1)
        elif is_file and not maildir and not entry.name.startswith("."):
            certain = Path(folder).name in ("cur", "new") or entry.name.lower().endswith((".eml", ".mbox"))
            yield MailFile(entry.path, size, certain)


def _is_looked_into(entry: os.DirEntry[str], *, maildir: bool) -> bool:
    """In a Maildir ``tmp`` holds what is not delivered yet, and the dotted folders are its subfolders (Maildir++)."""
    if maildir:
        return entry.name in ("cur", "new") or (entry.name.startswith(".") and Path(entry.path, "cur").is_dir())
    return not entry.name.startswith(".")


class _Rejoined(io.RawIOBase):
    """A stream whose ``head`` was read already, from its beginning again."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        room = memoryview(buffer)
        piece, self._head = self._head[: len(room)], self._head[len(room) :]
        piece = piece or self._stream.read(len(room))
        room[: len(piece)] = piece
        return len(piece)


def _read_mbox(name: str, stream: BinaryIO) -> Iterator[Mail]:
    held = bytearray()
    number = 0
    begins = after_empty = True
    while piece := stream.readline(_CHUNK_BYTES):
        if begins and after_empty and piece.startswith(b"From ") and (not number or _POSTMARK_TIME.search(piece)):
            if number:
                yield Mail(name, number, _without_last_blank(held))
            number += 1
            held.clear()
            after_empty = False
        elif number:
            after_empty = begins and piece in (b"\n", b"\r\n")
            text = piece[1:] if begins and _QUOTED_FROM.match(piece) else piece
            held += text[: max(0, MAX_MESSAGE_BYTES - len(held))]
        begins = piece.endswith(b"\n")
    yield Mail(name, number, _without_last_blank(held))


def _without_last_blank(message: bytearray) -> bytes:
    """The empty line before the next ``From `` belongs to the mbox, not to the message."""
    for blank in (b"\r\n\r\n", b"\n\n"):
        if message.endswith(blank):
            return bytes(message[: -len(blank) // 2])
    return bytes(message)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
