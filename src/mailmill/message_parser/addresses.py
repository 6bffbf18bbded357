"""Address fields → addresses (RFC 5322 §3.4 and §4.4), in one pass without recursion.

Lenient where mail is: semicolons separate, a colon in a display name is no group unless a semicolon ends it, a quote or
comment that never ends is read as text. Encoded-words are decoded last, so that an encoded comma separates nothing and
an encoded ``<a@b>`` is a name, never an address.
"""

from __future__ import annotations

import re
from typing import Final

from mailmill.message_parser.fields import repair, text
from mailmill.model import Address

MAX_ADDRESSES: Final = 2_000
"""How many addresses of one field are read."""

_SIMPLE: Final = re.compile(r'(?:"([^"\\]*)"[ \t]*|([^"<>()\[\]\\,:;]*))<([^<>()\[\]\s,;:"\\]+)>')
_BARE: Final = re.compile(r'[^"<>()\[\]\s,;:\\]+@[^"<>()\[\]\s,;:\\@]+')
_TOKEN: Final = re.compile(r'<([^<>]*+)>?|\[[^\[\]]*+\]?|([,;:])|[^"<(,;:\[]++|.', re.DOTALL)
_QUOTED: Final = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_COMMENT_MARK: Final = re.compile(r"\\.|[()]", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ROUTE: Final = re.compile(r"@[^:<>]*:")


def parse_addresses(raw: str, charset: str = "") -> tuple[Address, ...]:
    """The addresses of a raw field value, groups flattened, in order."""
    if (found := _SIMPLE.fullmatch(raw)) is not None:
        return (Address(_name(found[1] or found[2] or "", charset), text(found[3], charset)),)
    if _BARE.fullmatch(raw) is not None:
        return (Address("", text(raw, charset)),)
    return _Reader(raw, charset).read()


def _name(raw: str, charset: str) -> str:
    name = text(raw, charset)
    return " ".join(name.split()) if "  " in name else name


class _Reader:
    """The state of one pass: what of the current mailbox has been seen so far."""

    __slots__ = ("angle", "charset", "comment", "found", "pieces", "raw")

    def __init__(self, raw: str, charset: str) -> None:
        self.raw = raw
        self.charset = charset
        self.found: list[Address] = []
        self.pieces: list[str] = []  # words and quoted strings, the latter still in quotes
        self.angle: str | None = None
        self.comment = ""

    def read(self) -> tuple[Address, ...]:
        raw = self.raw
        at, size = 0, len(raw)
        # A quote or comment that never ends costs one look to the end; after that its kind is plain text, or a field
        # of nothing but openings would be read once per opening.
        quotes = comments = True
        last_semicolon = raw.rfind(";")
        while at < size and len(self.found) < MAX_ADDRESSES:
            char = raw[at]
            if char == '"' and quotes:
                quoted = _QUOTED.match(raw, at)
                quotes = quoted is not None
                if quoted is not None:
                    self.pieces.append(quoted[0])
                    at = quoted.end()
                    continue
            elif char == "(" and comments:
                end = self._comment_end(at)
                comments = end > 0
                if comments:
                    self.comment = self.comment or raw[at + 1 : end - 1]
                    at = end
                    continue
            token = _TOKEN.match(raw, at)
            if token is None:  # cannot be: the last alternative takes any character
                break
            at = token.end()
            if (separator := token[2]) is not None:
                if separator != ":":
                    self._flush()
                elif at <= last_semicolon and self.angle is None and not any("@" in piece for piece in self.pieces):
                    self.pieces.clear()  # the name of a group
                else:
                    self.pieces.append(separator)
            elif token[1] is not None:
                self._take_angle(token[1])
            elif char != '"':
                self.pieces.append(token[0])
        self._flush()
        return tuple(self.found[:MAX_ADDRESSES])

    def _comment_end(self, at: int) -> int:
        depth = 0
        for mark in _COMMENT_MARK.finditer(self.raw, at):
            if mark[0] == "(":
                depth += 1
            elif mark[0] == ")":
                depth -= 1
                if depth == 0:
                    return mark.end()
        return 0

    def _take_angle(self, inside: str) -> None:
        if self.angle is not None:
            if "@" in self.angle:
                self._flush()
            else:
                self.pieces.append(f"<{self.angle}>")
        self.angle = inside

    def _flush(self) -> None:
        pieces, angle, comment = self.pieces, self.angle, self.comment
        self.pieces, self.angle, self.comment = [], None, ""
        if angle is None:
            address, phrase = _bare_address(pieces)
        else:
            address, phrase = (
                _ROUTE.sub("", angle.strip(), count=1) if angle.lstrip().startswith("@") else angle,
                pieces,
            )
        name = _name("".join(_unquote(piece) for piece in phrase), self.charset)
        if not name and comment:
            name = _name(_ESCAPED.sub(r"\1", comment), self.charset)
        # White space is dropped from an address, and kept in a quoted local part.
        address = (" " if '"' in address else "").join(text(repair(address, self.charset)).split())
        if name or address:
            self.found.append(Address(name, address))


def _bare_address(pieces: list[str]) -> tuple[str, list[str]]:
    """The address among words without angle brackets, and the words that are left."""
    for index, piece in enumerate(pieces):
        if "@" not in piece or piece.startswith('"'):
            continue
        if piece.startswith("@") and index:  # "quoted local part"@domain
            return "".join(pieces[index - 1 :]), pieces[: index - 1]
        words = piece.split()
        address = next(word for word in words if "@" in word)
        if pieces[index + 1 :] and pieces[index + 1].startswith("["):  # local@[127.0.0.1]
            return address + pieces[index + 1], pieces[:index]
        words.remove(address)
        return address, [*pieces[:index], " ".join(words), *pieces[index + 1 :]]
    phrase = "".join(pieces).strip()
    if phrase.isascii() and "=?" not in phrase and '"' not in phrase and " " not in phrase:
        return phrase, []
    return "", pieces


def _unquote(piece: str) -> str:
    if not piece.startswith('"'):
        return piece
    inside = piece[1:-1]
    return _ESCAPED.sub(r"\1", inside) if "\\" in inside else inside
