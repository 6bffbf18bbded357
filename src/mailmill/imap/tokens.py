"""The general tokenizer: the parts of a response into nested values, without recursion.

=================  ====================================================
on the wire        value
=================  ====================================================
``NIL``            ``None``
atom, number       ``str`` (flags keep their backslash)
quoted string      ``bytes``, unescaped; 8-bit bytes are kept as they are
literal            ``bytes``, or the `Spooled` value of a streamed one
``( … )``          ``list``
=================  ====================================================

An atom that names a body section (``BODY[HEADER.FIELDS (DATE)]<0>``) is one value, brackets, spaces and all. Extra
spaces, and missing ones between values, are forgiven.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from mailmill.errors import LimitError
from mailmill.imap.wire import Parts, Spooled

Value: TypeAlias = "str | bytes | Spooled | list[Value] | None"

# All loops are possessive: a string that is never closed costs one pass, not an exponential search.
_TOKEN = re.compile(
    rb"""[ \t]*+(?:
        (?P<open>\()
      | (?P<close>\))
      | "(?P<quoted>(?:[^"\\]++|\\.)*+)"
      | (?P<section>(?:BODY|BINARY)[.A-Z]*+\[(?:[^\]"]++|"(?:[^"\\]++|\\.)*+")*+\](?:<\d{1,20}>)?)
      | (?P<atom>[^ \t()"]++)
    )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_BROKEN_SECTION = re.compile(rb"(?:BODY|BINARY)[.A-Z]*+\[", re.IGNORECASE)


def tokenize(parts: Parts, position: int = 0, *, nesting: int = 64) -> list[Value]:
    """The values of a response, from ``position`` in its first part on.

    Raises ValueError on what has no reading (an unclosed string or list, a stray parenthesis), LimitError on lists
    deeper than ``nesting``.
    """
    match_token = _TOKEN.match
    values: list[Value] = []
    outer: list[list[Value]] = []
    for index in range(0, len(parts), 2):
        text = parts[index]
        if not isinstance(text, bytes):
            raise TypeError("text parts are bytes")
        end = len(text)
        while position < end:
            token = match_token(text, position)
            if token is None:
                if text[position:].strip(b" \t"):
                    raise ValueError("a string is not closed")
                break
            position = token.end()
            kind = token.lastgroup
            if kind == "atom":
                atom = token["atom"]
                if atom in (b"NIL", b"nil", b"Nil"):
                    values.append(None)
                    continue
                if b"[" in atom and _BROKEN_SECTION.match(atom):
                    raise ValueError("a body section is not closed")
                values.append(atom.decode("latin-1"))
            elif kind == "quoted":
                quoted = token["quoted"]
                values.append(_ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted)
            elif kind == "open":
                if len(outer) >= nesting:
                    raise LimitError(f"lists are nested more than {nesting} deep")
                outer.append(values)
                inner: list[Value] = []
                values.append(inner)
                values = inner
            elif kind == "close":
                if not outer:
                    raise ValueError("a parenthesis closes nothing")
                values = outer.pop()
            else:
                values.append(token["section"].decode("latin-1"))
        position = 0
        if index + 1 < len(parts):
            values.append(parts[index + 1])
    if outer:
        raise ValueError("a list is not closed")
    return values
