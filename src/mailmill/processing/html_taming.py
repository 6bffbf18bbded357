"""Takes from an HTML text what would make an HTML5 parser slow or big. Pure and linear."""

from __future__ import annotations

import re

MAX_DEPTH = 2_000
_MAX_BLOCKS = 1_000  # each may hold elements that are no block of their own

# Below this many tags no nesting is dear enough to look at; above it, what the parser would copy is estimated first.
_TAGS_TO_CARE = 1_000
_MAX_COPIED_ELEMENTS = 1_000_000

_TAG = re.compile(r"<(/?)([a-z][a-z0-9]{0,15})", re.IGNORECASE)
_FORMATTING_TAG = re.compile(
    r"</?(?:b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?=[\s>/])[^<>]*>", re.IGNORECASE
)
_FORMATTING = frozenset(["b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"])
_ANY_TAG = re.compile(r"</?([a-z][a-z0-9]{0,15})[^<>]*>?", re.IGNORECASE)
# What is kept below so many blocks: none of these nests, and they are what a reader clicks on or fills in.
_KEPT_IN_THE_DEEP = frozenset(["a", "form", "script", "style", "title", "textarea"])
_CLOSED_BY_THE_PARSER = frozenset(
    [
        "area", "base", "br", "col", "dd", "dt", "embed", "hr", "img", "input", "li", "link", "meta", "option", "p",
        "param", "source", "tbody", "td", "tfoot", "th", "thead", "tr", "wbr",
    ]
)  # fmt: skip


def tame(html: str) -> str:
    """The same HTML without what makes an HTML5 parser slow or big; its length differs where something was taken away.

    The tree construction of HTML5 is quadratic in the depth of nested blocks, and copies every unclosed formatting
    element into every following paragraph (WHATWG HTML §13.2.4.3), so 1 MB can ask for gigabytes.
    """
    if html.count("<") < _TAGS_TO_CARE:
        return html
    blocks = formatting = most_formatting = tags = 0
    for match in _TAG.finditer(html):
        tags += 1
        name = match.group(2).lower()
        step = -1 if match.group(1) else 1
        if name in _FORMATTING:
            formatting = max(0, formatting + step)
            most_formatting = max(most_formatting, formatting)
        elif name not in _CLOSED_BY_THE_PARSER:
            blocks = max(0, blocks + step)
            if blocks > _MAX_BLOCKS:
                html = html[: match.start()] + _ANY_TAG.sub(_flat, html[match.start() :])
                break
    if most_formatting * tags > _MAX_COPIED_ELEMENTS:
        return _FORMATTING_TAG.sub("", html)
    return html


def _flat(tag: re.Match[str]) -> str:
    """A tag where nothing nests any more; what is left out parts words as its block would have."""
    name = tag.group(1).lower()
    return tag.group() if name in _CLOSED_BY_THE_PARSER or name in _KEPT_IN_THE_DEEP else " "
