"""What a person sees of an HTML body, and where its links go.

Law: the tree is walked iteratively and everything is capped (input, nodes, text, links), so the time is bounded for any
input. Text that a mail client would not show (``display:none``, zero font, zero size …) is kept apart from visible
text. Hidden here means stated on the element, or by a plain class rule of the message's own style sheet; the cascade is
not computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urljoin

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

MAX_HTML_CHARS = 1_000_000
MAX_NODES = 30_000
MAX_TEXT_CHARS = 200_000
MAX_LINKS = 500
MAX_LINK_TEXT_CHARS = 1_000
MAX_URL_CHARS = 4_000
MAX_STYLE_CHARS = 100_000
MAX_DEPTH = 2_000

# Below this many tags no nesting is dear enough to look at; above it, what the parser would copy is estimated first.
_TAGS_TO_CARE = 1_000
_MAX_COPIED_ELEMENTS = 1_000_000

_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figure",
        "figcaption",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "legend",
        "li",
        "main",
        "nav",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
        "br",
        "title",
    ]
)
_CELLS = frozenset({"td", "th"})
_NEVER_SHOWN = frozenset(
    {"head", "style", "script", "template", "noscript", "noframes", "object", "select", "textarea"}
)

_ZERO = r"0(?:\.0{1,9})?(?:px|pt|em|rem|%)?(?![\d.])"
_HIDING_DECLARATION = re.compile(
    r"(?:^|;)(?:display:none|visibility:(?:hidden|collapse)|opacity:0(?:\.0{0,9})?(?![\d.])|mso-hide:all"
    rf"|max-height:{_ZERO}|max-width:{_ZERO})"
)
_FONT_SIZE = re.compile(r"(?:^|;)font(?:-size)?:([^;]{0,60})")
_TINY_FONT = re.compile(rf"^(?:{_ZERO}|[01]px|[01]pt)")
_ZERO_BOX = re.compile(rf"(?:^|;)(?:height|width):{_ZERO}")
_OFF_SCREEN = re.compile(r"(?:^|;)(?:left|top|text-indent|margin-left):-\d{4,6}(?:px|em|pt)")
_BLANKS = re.compile(r"\s+")
_BRACE = re.compile(r"[{}]")
_CLASS_SELECTOR = re.compile(r"^(?:[a-z0-9]{1,20})?\.([\w-]{1,100})$", re.IGNORECASE)
_TAG = re.compile(r"<(/?)([a-z][a-z0-9]{0,15})", re.IGNORECASE)
_FORMATTING_TAG = re.compile(
    r"</?(?:b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?=[\s>/])[^<>]*>", re.IGNORECASE
)
_FORMATTING = frozenset(["b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"])
_CLOSED_BY_THE_PARSER = frozenset(
    [
        "area",
        "base",
        "br",
        "col",
        "dd",
        "dt",
        "embed",
        "hr",
        "img",
        "input",
        "li",
        "link",
        "meta",
        "option",
        "p",
        "param",
        "source",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "wbr",
    ]
)
_LINE_BLANKS = re.compile(r"[ \t\r\f\v\u00a0\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u2007\u202f]+")


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

    ``images`` counts pictures, ``image_sources`` holds the first of their sources; ``password_fields`` and ``forms``
    count fields and forms; ``scripts`` counts script elements and inline handlers; ``truncated`` says that a cap was
    met.
    """

    visible: str = ""
    hidden: str = ""
    links: tuple[HtmlLink, ...] = ()
    images: int = 0
    image_sources: tuple[str, ...] = ()
    forms: int = 0
    password_fields: int = 0
    scripts: int = 0
    truncated: bool = False


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
        "anchors", "base", "forms", "hidden", "hidden_length", "image_sources", "images", "nodes", "password_fields",
        "scripts", "truncated", "visible", "visible_length",
    )  # fmt: skip

    def __init__(self) -> None:
        self.visible: list[str] = []
        self.hidden: list[str] = []
        self.visible_length = 0
        self.hidden_length = 0
        self.anchors: list[_Anchor] = []
        self.base = ""
        self.images = 0
        self.image_sources: list[str] = []
        self.forms = 0
        self.password_fields = 0
        self.scripts = 0
        self.nodes = 0
        self.truncated = False

    def text(self, piece: str, *, hidden: bool, anchor: _Anchor | None) -> None:
        if not piece:
            return
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
        if len(self.anchors) >= MAX_LINKS:
            self.truncated = True
            return None
        anchor = _Anchor(target.strip()[:MAX_URL_CHARS], element, hidden, [])
        self.anchors.append(anchor)
        return anchor


def read_html(html: str) -> HtmlText:
    """Visible text, hidden text and links of an HTML body. Never raises on bad HTML; linear in the (capped) input."""
    return _read_html(html[:MAX_HTML_CHARS], len(html) > MAX_HTML_CHARS)


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
    _walk(root, _hidden_classes(tree), reading)
    return HtmlText(
        visible=tidy_lines("".join(reading.visible)),
        hidden=tidy_lines("".join(reading.hidden)),
        links=tuple(
            HtmlLink(
                target=_join(reading.base, anchor.target),
                text=_one_line("".join(anchor.pieces))[:MAX_LINK_TEXT_CHARS],
                element=anchor.element,
                image=anchor.image,
                hidden=anchor.hidden,
            )
            for anchor in reading.anchors
            if anchor.target
        ),
        images=reading.images,
        image_sources=tuple(reading.image_sources),
        forms=reading.forms,
        password_fields=reading.password_fields,
        scripts=reading.scripts,
        truncated=reading.truncated,
    )


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
            if blocks > MAX_DEPTH:
                html = html[: match.start()]
                break
    if most_formatting * tags > _MAX_COPIED_ELEMENTS:
        return _FORMATTING_TAG.sub("", html)
    return html


def _walk(root: LexborNode, hidden_classes: frozenset[str], reading: _Reading) -> None:
    # A frame is (next node, box hidden?, font too small to read?, link around it, inside <pre>?, text after the
    # siblings).
    stack: list[tuple[LexborNode | None, bool, bool, _Anchor | None, bool, str]]
    stack = [(root, False, False, None, False, "")]
    while stack:
        node, hidden, tiny, anchor, preformatted, closing = stack.pop()
        if node is None:
            reading.text(closing, hidden=hidden, anchor=anchor)
            continue
        reading.nodes += 1
        if reading.nodes > MAX_NODES:
            reading.truncated = True
            return
        stack.append((node.next if node is not root else None, hidden, tiny, anchor, preformatted, closing))
        if node.is_text_node:
            text = node.text_content or ""
            reading.text(text if preformatted else _BLANKS.sub(" ", text), hidden=hidden or tiny, anchor=anchor)
            continue
        if not node.is_element_node:
            continue
        tag = node.tag or ""
        attributes = node.attributes
        if tag == "base" and not reading.base:
            reading.base = (attributes.get("href") or "").strip()[:MAX_URL_CHARS]
        if tag == "script":
            reading.scripts += 1
        if tag in _NEVER_SHOWN and tag != "head":
            continue
        inner_hidden = hidden or tag == "head" or _is_hidden(attributes, hidden_classes)
        inner_tiny = _font_is_tiny(attributes, inherited=tiny)
        inner_anchor = _element(tag, attributes, reading, anchor, hidden=inner_hidden)
        around = "\n" if tag in _BLOCKS else " " if tag in _CELLS else ""
        reading.text(around, hidden=inner_hidden, anchor=inner_anchor)
        child = node.first_child
        if child is None:
            continue
        if len(stack) >= MAX_DEPTH:
            reading.truncated = True
            continue
        stack.append((child, inner_hidden, inner_tiny, inner_anchor, preformatted or tag == "pre", around))


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
        if anchor is not None:
            anchor.image = True
        if not hidden and (alternative := attributes.get("alt")) and anchor is not None:
            anchor.pieces.append(f" {alternative[:200]} ")
    elif tag == "input" and (attributes.get("type") or "").strip().lower() == "password":
        reading.password_fields += 1
    return anchor


def _is_hidden(attributes: dict[str, str | None], hidden_classes: frozenset[str]) -> bool:
    if not attributes:
        return False
    if "hidden" in attributes:
        return True
    style = attributes.get("style")
    if style and _style_hides(style):
        return True
    classes = attributes.get("class") if hidden_classes else None
    return bool(classes) and any(name in hidden_classes for name in (classes or "").split()[:20])


def _font_is_tiny(attributes: dict[str, str | None], *, inherited: bool) -> bool:
    """``font-size:0`` is inherited, and set back by any child that states a size (layout tables live on that)."""
    style = attributes.get("style")
    if not style:
        return inherited
    sizes = _FONT_SIZE.findall("".join(style[:2_000].lower().split()))
    return _TINY_FONT.match(sizes[-1]) is not None if sizes else inherited


def _style_hides(style: str) -> bool:
    plain = "".join(style[:2_000].lower().split())
    if _HIDING_DECLARATION.search(plain) or _OFF_SCREEN.search(plain):
        return True
    return "overflow:hidden" in plain and _ZERO_BOX.search(plain) is not None


def _hidden_classes(tree: LexborHTMLParser) -> frozenset[str]:
    """Classes that a top-level rule of the style sheets hides; rules inside ``@media`` do not count."""
    found: set[str] = set()
    budget = MAX_STYLE_CHARS
    for sheet in tree.css("style"):
        text = sheet.text()[:budget]
        budget -= len(text)
        found.update(_hiding_rules(text))
        if budget <= 0:
            break
    return frozenset(found)


def _hiding_rules(sheet: str) -> set[str]:
    found: set[str] = set()
    depth = 0
    start = 0
    selector = ""
    for brace in _BRACE.finditer(sheet):
        piece = sheet[start : brace.start()]
        start = brace.end()
        if brace.group() == "{":
            depth += 1
            selector = piece
            continue
        if depth == 1 and not selector.lstrip().startswith("@") and _style_hides(piece):
            for one in selector.split(",")[:50]:
                match = _CLASS_SELECTOR.match(one.rpartition("*/")[2].strip())
                if match:
                    found.add(match.group(1))
        depth = max(0, depth - 1)
    return found


def _join(base: str, target: str) -> str:
    if not base or ":" in target[:20] or target.startswith("#"):
        return target
    try:
        return urljoin(base, target)[:MAX_URL_CHARS]
    except ValueError:
        return target


def _one_line(text: str) -> str:
    return _BLANKS.sub(" ", _LINE_BLANKS.sub(" ", text)).strip()


def tidy_lines(text: str) -> str:
    """The same text with runs of blanks (invisible ones too) as one space, lines stripped, empty lines dropped."""
    lines = (_LINE_BLANKS.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)
