"""What a person sees of an HTML body, and where its links go.

Law: the tree is walked iteratively and everything is capped (input, nodes, text, links), so the time is bounded for any
input. Text that a mail client would not show (``display:none``, zero font, zero size …) is kept apart from visible
text. Hidden here means stated on the element, or by a plain class rule of the message's own style sheet; the cascade is
not computed (:mod:`.html_style`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urljoin

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from mailmill.processing.html_style import (
    PLAIN,
    Paint,
    Sheets,
    font_is_tiny,
    is_hidden,
    paint_of,
    read_sheets,
    turns_letters,
)
from mailmill.processing.html_taming import MAX_DEPTH, tame
from mailmill.processing.html_tricks import CELLS, NO_TRICKS, TRICKY, HtmlTricks, TrickCollector
from mailmill.processing.text_lines import count_split_words, one_blank, one_line, tidy_lines

MAX_HTML_CHARS = 1_000_000
_TAIL_CHARS = 300_000
MAX_NODES = 30_000
MAX_TEXT_CHARS = 200_000
MAX_LINKS = 500
_WORTH_FORGETTING = 50
MAX_LINK_TEXT_CHARS = 1_000
MAX_URL_CHARS = 4_000

_BLOCKS = frozenset(
    [
        "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt",
        "fieldset", "figure", "figcaption", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr",
        "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "tbody", "tfoot",
        "thead", "tr", "ul", "br", "title",
    ]
)  # fmt: skip
_CELLS = frozenset({"td", "th"})
_CHANGES_LOOK = frozenset({"head", "pre", "svg"})
_NEVER_SHOWN = frozenset(
    {"head", "style", "script", "template", "noscript", "noframes", "object", "select", "textarea"}
)


@dataclass(frozen=True, slots=True)
class HtmlLink:
    """One way out of the message. ``element`` is ``a``, ``area`` or ``form``; ``text`` is what the reader sees of it.

    ``target`` is as written (joined with ``<base href>`` where there is one), at most ``MAX_URL_CHARS``. ``image`` says
    that a picture is (part of) what is clicked.
    """

    target: str
    text: str
    element: str
    image: bool
    hidden: bool


@dataclass(frozen=True, slots=True)
class HtmlText:
    """The reading of one HTML body. ``visible`` has a line per block; ``hidden`` is what a client would not show.

    ``images`` counts pictures, ``image_sources`` holds the first of their sources, ``image_texts`` what stands for
    those that show (``alt``); ``password_fields`` and ``forms``
    count fields and forms; ``scripts`` counts script elements and inline handlers; ``truncated`` says that a cap was
    met. ``data_images`` are the first pictures that stand in the HTML itself, as ``data:`` URIs; ``tricks`` is what
    else the body does.
    """

    visible: str = ""
    hidden: str = ""
    links: tuple[HtmlLink, ...] = ()
    images: int = 0
    image_sources: tuple[str, ...] = ()
    image_texts: tuple[str, ...] = ()
    data_images: tuple[str, ...] = ()
    forms: int = 0
    password_fields: int = 0
    scripts: int = 0
    truncated: bool = False
    tricks: HtmlTricks = NO_TRICKS


@dataclass(slots=True)
class _Anchor:
    target: str
    element: str
    hidden: bool
    pieces: list[str]
    length: int = 0
    image: bool = False


class _Reading:
    """The mutable side of one walk."""

    __slots__ = (
        "anchors", "base", "forms", "full", "hidden", "hidden_length", "image_sources", "image_texts", "images",
        "nodes", "password_fields", "scripts", "tricks", "truncated", "visible", "visible_length",
    )  # fmt: skip

    def __init__(self) -> None:
        self.visible: list[str] = []
        self.hidden: list[str] = []
        self.visible_length = 0
        self.hidden_length = 0
        self.anchors: list[_Anchor] = []
        self.full = False
        self.base = ""
        self.images = 0
        self.image_sources: list[str] = []
        self.image_texts: list[str] = []
        self.forms = 0
        self.password_fields = 0
        self.scripts = 0
        self.nodes = 0
        self.truncated = False
        self.tricks = TrickCollector()

    def text(
        self, piece: str, *, hidden: bool, anchor: _Anchor | None, unseen: bool = False, turned: bool = False
    ) -> None:
        if not piece:
            return
        self.tricks.text(piece, hidden=hidden, faint=unseen, turned=turned)
        if hidden:
            if self.hidden_length < MAX_TEXT_CHARS:
                self.hidden.append(piece)
                self.hidden_length += len(piece)
            return
        if self.visible_length < MAX_TEXT_CHARS:
            self.visible.append(piece)
            self.visible_length += len(piece)
        else:
            self.truncated = True
        if anchor is not None and anchor.length < MAX_LINK_TEXT_CHARS:
            anchor.pieces.append(piece)
            anchor.length += len(piece)

    def open_link(self, target: str, element: str, *, hidden: bool) -> _Anchor | None:
        if len(self.anchors) >= MAX_LINKS and not self._make_room():
            self.truncated = True
            return None
        anchor = _Anchor(target.strip()[:MAX_URL_CHARS], element, hidden, [])
        self.anchors.append(anchor)
        return anchor

    def _make_room(self) -> bool:
        """Forget the links that nobody sees where they are too many: they would keep out those that somebody does."""
        if self.full:
            return False
        seen = [one for one in self.anchors if not one.hidden and (one.pieces or one.image or one.element == "form")]
        self.full = len(seen) > MAX_LINKS - _WORTH_FORGETTING
        if not self.full:
            self.anchors = seen
            self.truncated = True
        return not self.full


def read_html(html: str) -> HtmlText:
    """Visible text, hidden text and links of an HTML body. Never raises on bad HTML; linear in the (capped) input.

    Of a body beyond ``MAX_HTML_CHARS`` the beginning and the end are read, so that what stands at its end cannot be
    pushed out of sight.
    """
    cut = len(html) > MAX_HTML_CHARS
    return _read_html(html[: MAX_HTML_CHARS - _TAIL_CHARS] + html[-_TAIL_CHARS:] if cut else html, cut)


# The three built-in processors read the same body one after the other; the cache spares two of the three walks.
@lru_cache(maxsize=8)
def _read_html(html: str, cut: bool) -> HtmlText:
    if not html.strip():
        return HtmlText(truncated=cut)
    tamed = tame(html)
    cut = cut or len(tamed) != len(html)
    try:
        tree = LexborHTMLParser(tamed)
    except (SelectolaxError, ValueError, UnicodeError):
        return HtmlText(truncated=True)
    reading = _Reading()
    reading.truncated = cut
    root = tree.root
    if root is None:
        return HtmlText(truncated=cut)
    _walk(root, read_sheets(sheet.text() for sheet in tree.css("style")), reading)
    visible = "".join(reading.visible)
    return HtmlText(
        visible=tidy_lines(visible),
        hidden=tidy_lines("".join(reading.hidden)),
        links=tuple(
            HtmlLink(
                target=_join(reading.base, anchor.target),
                text=one_line("".join(anchor.pieces))[:MAX_LINK_TEXT_CHARS],
                element=anchor.element,
                image=anchor.image,
                hidden=anchor.hidden,
            )
            for anchor in reading.anchors
            if anchor.target
        ),
        images=reading.images,
        image_sources=tuple(reading.image_sources),
        image_texts=tuple(reading.image_texts),
        forms=reading.forms,
        password_fields=reading.password_fields,
        scripts=reading.scripts,
        truncated=reading.truncated,
        data_images=tuple(reading.tricks.data_images),
        tricks=reading.tricks.result(count_split_words(visible)),
    )


class _Look(NamedTuple):
    """How text is shown somewhere in the tree, handed down from parent to child."""

    hidden: bool = False
    tiny: bool = False
    preformatted: bool = False
    turned: bool = False
    in_svg: bool = False
    paint: Paint = PLAIN


def _walk(root: LexborNode, sheets: Sheets, reading: _Reading) -> None:
    # A frame is (next node, how it is shown, link around it, text after the siblings).
    stack: list[tuple[LexborNode | None, _Look, _Anchor | None, str]]
    stack = [(root, _Look(), None, "")]
    while stack:
        node, look, anchor, closing = stack.pop()
        if node is None:
            reading.text(closing, hidden=look.hidden, anchor=anchor)
            continue
        reading.nodes += 1
        if reading.nodes > MAX_NODES:
            reading.truncated = True
            return
        stack.append((node.next if node is not root else None, look, anchor, closing))
        if node.is_text_node:
            text = node.text_content or ""
            reading.text(
                text if look.preformatted else one_blank(text),
                hidden=look.hidden or look.tiny,
                anchor=anchor,
                unseen=look.paint.unseen,
                turned=look.turned,
            )
            continue
        if not node.is_element_node:
            continue
        tag = (node.tag or "").lower()  # foreignObject is spelt so within SVG
        attributes = node.attributes
        if tag == "base" and not reading.base:
            reading.base = (attributes.get("href") or "").strip()[:MAX_URL_CHARS]
        if tag == "script":
            reading.scripts += 1
        child = node.first_child
        in_svg = look.in_svg or tag == "svg"
        if attributes or tag in TRICKY:
            empty = tag in CELLS and _is_empty(child)
            reading.tricks.element(tag, attributes, empty=empty, in_svg=in_svg)
        if tag in _NEVER_SHOWN and tag != "head":
            continue
        inner = look
        if attributes or tag in _CHANGES_LOOK or tag in sheets.painting:
            inner = _Look(
                look.hidden or tag == "head" or is_hidden(attributes, sheets),
                font_is_tiny(attributes, inherited=look.tiny),
                look.preformatted or tag == "pre",
                look.turned or turns_letters(tag, attributes),
                in_svg,
                paint_of(tag, attributes, sheets, look.paint),
            )
        inner_anchor = _element(tag, attributes, reading, anchor, hidden=inner.hidden)
        around = "\n" if tag in _BLOCKS else " " if tag in _CELLS else ""
        reading.text(around, hidden=inner.hidden, anchor=inner_anchor)
        if child is None:
            continue
        if len(stack) >= MAX_DEPTH:
            reading.truncated = True
            continue
        stack.append((child, inner, inner_anchor, around))


def _is_empty(child: LexborNode | None) -> bool:
    """Whether a first child is all there is, and blank."""
    if child is None:
        return True
    return child.is_text_node and child.next is None and not (child.text_content or "").strip()


def _element(
    tag: str, attributes: dict[str, str | None], reading: _Reading, anchor: _Anchor | None, *, hidden: bool
) -> _Anchor | None:
    """Counts what an element adds, and returns the link that its content belongs to."""
    if any(name.startswith("on") for name in attributes):
        reading.scripts += 1
    if tag in ("a", "area"):
        target = attributes.get("href") or ""
        return reading.open_link(target, tag, hidden=hidden) or anchor
    if tag == "form":
        reading.forms += 1
        reading.open_link(attributes.get("action") or "", tag, hidden=hidden)
    elif tag == "img":
        reading.images += 1
        if len(reading.image_sources) < MAX_LINKS:
            reading.image_sources.append((attributes.get("src") or "")[:MAX_URL_CHARS])
        if not hidden and len(reading.image_texts) < MAX_LINKS and (shown := attributes.get("alt")):
            reading.image_texts.append(one_line(shown[:200]))
        if anchor is not None:
            anchor.image = True
        if not hidden and (alternative := attributes.get("alt")) and anchor is not None:
            anchor.pieces.append(f" {alternative[:200]} ")
    elif tag == "input" and (attributes.get("type") or "").strip().lower() == "password":
        reading.password_fields += 1
    return anchor


def _join(base: str, target: str) -> str:
    if not base or ":" in target[:20] or target.startswith("#"):
        return target
    try:
        return urljoin(base, target)[:MAX_URL_CHARS]
    except ValueError:
        return target
