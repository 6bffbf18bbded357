"""What styles do to a text: hide it, or paint it in the colour of its ground. Pure; patterns linear, inputs capped.

The cascade is not computed. Hiding counts where it is stated on the element, or by a plain class rule outside
``@media``. Colours count where they are stated on elements only: what a style sheet may paint is unknown, never
guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

MAX_STYLE_CHARS: Final = 100_000
_MAX_DECLARATIONS_CHARS: Final = 2_000
_MAX_NAMES: Final = 2_000

Attributes = Mapping[str, str | None]

_ZERO = r"0(?:\.0{1,9})?(?:px|pt|em|rem|%)?(?![\d.])"
_HIDING_DECLARATION = re.compile(
    r"(?:^|;)(?:display:none|visibility:(?:hidden|collapse)|opacity:0(?:\.0{0,9})?(?![\d.])|mso-hide:all"
    r"|clip:rect\((?:0(?:px)?,?){4}\)|clip-path:(?:inset\((?:100|50)%\)|circle\(0\))|(?:-webkit-)?transform:scale\(0\)"
    rf"|max-height:{_ZERO}|max-width:{_ZERO})"
)
_FONT_SIZE = re.compile(r"(?:^|;)font(?:-size)?:([^;]{0,60})")
_TINY_FONT = re.compile(rf"^(?:{_ZERO}|[012]px|[01]pt|[01]%|0?\.\d{{1,6}}p[xt]|0?\.0\d{{0,6}}r?em)")
_ZERO_BOX = re.compile(rf"(?:^|;)(?:height|width):{_ZERO}")
_OFF_SCREEN = re.compile(r"(?:^|;)(?:left|top|text-indent|margin-left|margin-top):-(?:\d{4,6}|999)(?:px|em|pt)")
_BIDI_OVERRIDE = re.compile(r"unicode-bidi:(?:bidi-override|isolate-override)")
_BRACE = re.compile(r"[{}]")
_CLASS_SELECTOR = re.compile(r"^(?:[a-z0-9]{1,20})?\.([\w-]{1,100})$", re.IGNORECASE)
_LAST_COMPOUND = re.compile(
    r"([a-z][a-z0-9]{0,15}|\*)?((?:[.#][\w-]{1,100}){0,5})(?:[:\[][^\s>+~]{0,100})?$", re.IGNORECASE
)
_SELECTOR_NAME = re.compile(r"[.#][\w-]{1,100}")

_BACKGROUND = re.compile(r"(?:^|;)background(?:-color)?:([^;]{0,200})")
_COLOUR = re.compile(r"(?:^|;)color:([^;]{0,60})")
_HEX = re.compile(r"#([0-9a-f]{8}|[0-9a-f]{6}|[0-9a-f]{3,4})(?![0-9a-f])")
_RGB = re.compile(r"rgba?\((\d{1,3})[, ](\d{1,3})[, ](\d{1,3})(?:[,/](\d?\.?\d{0,6}))?")
_NAMED: Final = {
    "white": 0xFFFFFF, "black": 0x000000, "red": 0xFF0000, "blue": 0x0000FF, "green": 0x008000, "yellow": 0xFFFF00,
    "gray": 0x808080, "grey": 0x808080, "silver": 0xC0C0C0, "whitesmoke": 0xF5F5F5, "snow": 0xFFFAFA,
    "ivory": 0xFFFFF0, "ghostwhite": 0xF8F8FF, "lightgray": 0xD3D3D3, "lightgrey": 0xD3D3D3, "navy": 0x000080,
}  # fmt: skip
_NAME = re.compile(r"[a-z]{3,12}")
_SAME_COLOUR: Final = 12  # of 255 in each channel: nobody sees a difference so small


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours (0xRRGGBB) of a text and its ground; None where a style sheet or a picture may have set them."""

    ground: int | None
    ink: int | None

    @property
    def unseen(self) -> bool:
        """Ink and ground are the same colour, as far as an eye can tell."""
        ground, ink = self.ground, self.ink
        if ground is None or ink is None:
            return False
        return all(abs((ground >> shift & 255) - (ink >> shift & 255)) <= _SAME_COLOUR for shift in (0, 8, 16))


PLAIN: Final = Paint(0xFFFFFF, 0x000000)
UNKNOWN: Final = Paint(None, None)


@dataclass(frozen=True, slots=True)
class Sheets:
    """What a message's style sheets say: classes that hide, and names (``td``, ``.x``, ``#y``, ``*``) that paint."""

    hiding: frozenset[str] = frozenset()
    painting: frozenset[str] = frozenset()


def read_sheets(sheets: Iterable[str]) -> Sheets:
    """Read style sheets, the first ``MAX_STYLE_CHARS`` of them."""
    hiding: set[str] = set()
    painting: set[str] = set()
    budget = MAX_STYLE_CHARS
    for sheet in sheets:
        text = sheet[:budget]
        budget -= len(text)
        _read_rules(text, hiding, painting)
        if budget <= 0:
            break
    return Sheets(frozenset(hiding), frozenset(painting))


def is_hidden(attributes: Attributes, sheets: Sheets) -> bool:
    """The element's box is not shown; so is nothing in it."""
    if not attributes:
        return False
    if "hidden" in attributes:
        return True
    style = attributes.get("style")
    if style and style_hides(style):
        return True
    classes = attributes.get("class") if sheets.hiding else None
    return bool(classes) and any(name in sheets.hiding for name in (classes or "").split()[:20])


def font_is_tiny(attributes: Attributes, *, inherited: bool) -> bool:
    """``font-size:0`` is inherited, and set back by any child that states a size (layout tables live on that)."""
    style = attributes.get("style")
    if not style:
        return inherited
    sizes = _FONT_SIZE.findall(_tight(style))
    return _TINY_FONT.match(sizes[-1]) is not None if sizes else inherited


def style_hides(style: str) -> bool:
    plain = _tight(style)
    if _HIDING_DECLARATION.search(plain) or _OFF_SCREEN.search(plain):
        return True
    return "overflow:hidden" in plain and _ZERO_BOX.search(plain) is not None


def turns_letters(tag: str, attributes: Attributes) -> bool:
    """Right to left by force (``<bdo dir=rtl>``, ``unicode-bidi: bidi-override``): what is written is not what is
    read."""
    style = attributes.get("style") or ""
    plain = _tight(style) if "bidi" in style.lower() else ""
    forced = tag == "bdo" or _BIDI_OVERRIDE.search(plain) is not None
    return forced and ((attributes.get("dir") or "").strip().lower() == "rtl" or "direction:rtl" in plain)


def paint_of(tag: str, attributes: Attributes, sheets: Sheets, inherited: Paint) -> Paint:
    """The paint within an element."""
    if not attributes and tag not in sheets.painting:
        return inherited
    paint = UNKNOWN if _may_be_painted(tag, attributes, sheets) else inherited
    ground, ink = paint.ground, paint.ink
    if "background" in attributes:
        ground = None
    if (named := attributes.get("bgcolor")) is not None:
        ground = colour(_tight(named), bare=True)
    if tag == "a":
        ink = None
    if tag in ("font", "body") and (named := attributes.get("color" if tag == "font" else "text")):
        ink = colour(_tight(named), bare=True)
    style = attributes.get("style")
    if style:
        ground, ink = _declared(style, ground, ink)
    return paint if (ground, ink) == (paint.ground, paint.ink) else Paint(ground, ink)


def stated_ground(attributes: Attributes) -> int | None:
    """The colour that the element itself states for its ground."""
    named = attributes.get("bgcolor") or attributes.get("fill")
    if named:
        return colour(_tight(named), bare=True)
    style = attributes.get("style")
    return _declared(style, None, None)[0] if style else None


@lru_cache(maxsize=1_024)
def colour(text: str, *, bare: bool = False) -> int | None:
    """0xRRGGBB of the first colour in lower-case text without blanks; None for what is none (or lets through).

    ``bare``: hex digits may come without ``#``, as in old attributes.
    """
    if "url(" in text or "gradient" in text:
        return None
    match = _HEX.search(f"#{text}" if bare and not text.startswith("#") else text)
    if match is not None:
        digits = match.group(1)
        if len(digits) in (4, 8) and set(digits[len(digits) * 3 // 4 :]) == {"0"}:
            return None
        wide = "".join(one * 2 for one in digits[:3]) if len(digits) < 6 else digits[:6]
        return int(wide, 16)
    match = _RGB.search(text)
    if match is not None:
        red, green, blue = (min(255, int(one)) for one in match.groups()[:3])
        alpha = match.group(4)
        return None if alpha and alpha.strip("0.") == "" else red << 16 | green << 8 | blue
    name = _NAME.search(text)
    return _NAMED.get(name.group()) if name else None


@lru_cache(maxsize=1_024)
def _declared(style: str, ground: int | None, ink: int | None) -> tuple[int | None, int | None]:
    plain = _tight(style)
    for value in _BACKGROUND.findall(plain):
        if value.startswith(("transparent", "none", "inherit", "initial")):
            continue
        ground = colour(value)
    for value in _COLOUR.findall(plain):
        if not value.startswith("inherit"):
            ink = colour(value)
    if "background-image" in plain:
        ground = None
    return ground, ink


def _may_be_painted(tag: str, attributes: Attributes, sheets: Sheets) -> bool:
    names = sheets.painting
    if not names:
        return False
    if tag in names or "*" in names:
        return True
    identity = attributes.get("id")
    if identity and f"#{identity[:100]}" in names:
        return True
    classes = attributes.get("class")
    return bool(classes) and any(f".{name}" in names for name in (classes or "").split()[:20])


def _read_rules(sheet: str, hiding: set[str], painting: set[str]) -> None:
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
        outside_media = depth == 1 and not selector.lstrip().startswith("@")
        if outside_media and style_hides(piece):
            hiding.update(_class_names(selector))
        if "color" in piece or "background" in piece:
            _add_painted(selector, painting)
        depth = max(0, depth - 1)


def _class_names(selector: str) -> Iterable[str]:
    for one in selector.split(",")[:50]:
        match = _CLASS_SELECTOR.match(one.rpartition("*/")[2].strip())
        if match:
            yield match.group(1)


def _add_painted(selector: str, painting: set[str]) -> None:
    for one in selector.rpartition("*/")[2].split(",")[:50]:
        if len(painting) >= _MAX_NAMES:
            return
        last = one.strip()[-300:].replace(">", " ").split(" ")[-1]
        match = _LAST_COMPOUND.match(last)
        if match is None:
            continue
        names = _SELECTOR_NAME.findall(match.group(2))
        if names:
            painting.update(names)
        elif match.group(1):
            painting.add(match.group(1).lower())


@lru_cache(maxsize=1_024)
def _tight(style: str) -> str:
    return "".join(style[:_MAX_DECLARATIONS_CHARS].lower().split())
