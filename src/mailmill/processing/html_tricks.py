"""What an HTML body does beyond showing text: fields, scripts, frames, refreshes, letters turned around, cells that
paint a picture. Collected during the one walk of :mod:`.html_text`; everything is capped.

Nothing here is a judgement: honest mail has forms and hidden words too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from mailmill.processing.html_style import stated_ground

MAX_FIELDS: Final = 50
MAX_FRAMES: Final = 20
MAX_DATA_IMAGES: Final = 5
MAX_URL_CHARS: Final = 4_000
MAX_FAINT_CHARS: Final = 20_000
_MAX_SECTIONS: Final = 200

CELLS: Final = frozenset({"td", "th", "div", "span", "i", "b", "rect"})
"""Elements that a picture could be painted with."""

TRICKY: Final = frozenset({"script", "foreignobject", "input", "textarea", "select", "td", "th"})
"""Elements that tell something without any attribute."""

Attributes = Mapping[str, str | None]

_FRAMES: Final = {"iframe": "src", "frame": "src", "object": "data", "embed": "src", "portal": "src", "applet": "code"}
_FIELD_NAMES: Final = ("type", "name", "id", "placeholder", "autocomplete", "aria-label")
# Data for machines, not run by anything: JSON-LD and microdata of receipts, tickets, actions; AMP's own library.
_DATA_SCRIPTS: Final = re.compile(r"json|ld\+|template|text/(?:plain|html|x-)", re.IGNORECASE)
_REFRESH_URL: Final = re.compile(r"url\s{0,5}=\s{0,5}['\"]?([^'\"]{1,2000})", re.IGNORECASE)
_STYLE_PICTURE: Final = re.compile(r"url\(\s{0,5}['\"]?(data:image/[^'\")]{1,1000000})", re.IGNORECASE)
_HREF: Final = re.compile(
    r"\bhref\s{0,5}=\s{0,5}(?:\"([^\"]{1,2000})|'([^']{1,2000})|([^\s\"'>]{1,2000}))", re.IGNORECASE
)
_DARK: Final = 100  # of 255: what a camera takes for black
_LIGHT: Final = 170


@dataclass(frozen=True, slots=True)
class HtmlTricks:
    """``faint`` is text in the colour of its ground (it stands in the visible text too). ``broken_words`` counts places
    where hidden text stands between two letters of a word, ``split_words`` words with invisible characters inside,
    ``turned`` Latin letters that are forced right to left.

    ``fields`` are input fields (type, name … in lower case); ``frames`` what frames and objects load; ``refresh`` where
    the page goes by itself; ``base`` its ``<base href>``. ``programs`` counts scripts that would run and handlers,
    ``svg_programs`` those in inline SVG. ``dark_cells``, ``light_cells``, ``flips`` count painted empty cells and the
    changes between them, ``shadows`` the most shadows of one element: pictures drawn without a picture.
    """

    faint: str = ""
    broken_words: int = 0
    split_words: int = 0
    turned: int = 0
    fields: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    refresh: str = ""
    base: str = ""
    programs: int = 0
    svg_programs: int = 0
    dark_cells: int = 0
    light_cells: int = 0
    flips: int = 0
    shadows: int = 0


NO_TRICKS: Final = HtmlTricks()


class TrickCollector:
    """The mutable side of :class:`HtmlTricks` during one walk."""

    __slots__ = (
        "_between", "_dark", "_faint_length", "_last_is_letter", "base", "broken_words", "dark_cells", "data_images",
        "faint", "fields", "flips", "frames", "light_cells", "programs", "refresh", "shadows", "svg_programs", "turned",
    )  # fmt: skip

    def __init__(self) -> None:
        self.faint: list[str] = []
        self._faint_length = 0
        self.data_images: list[str] = []
        self.fields: list[str] = []
        self.frames: list[str] = []
        self.refresh = ""
        self.base = ""
        self.programs = 0
        self.svg_programs = 0
        self.dark_cells = 0
        self.light_cells = 0
        self.flips = 0
        self.shadows = 0
        self.turned = 0
        self.broken_words = 0
        self._dark: bool | None = None
        self._last_is_letter = False
        self._between = False

    def result(self, split_words: int) -> HtmlTricks:
        return HtmlTricks(
            faint=" ".join("".join(self.faint).split()),
            broken_words=self.broken_words,
            split_words=split_words,
            turned=self.turned,
            fields=tuple(self.fields),
            frames=tuple(self.frames),
            refresh=self.refresh,
            base=self.base,
            programs=self.programs,
            svg_programs=self.svg_programs,
            dark_cells=self.dark_cells,
            light_cells=self.light_cells,
            flips=self.flips,
            shadows=self.shadows,
        )

    def text(self, piece: str, *, hidden: bool, faint: bool, turned: bool) -> None:
        """A piece of text in its order, block ends as line ends."""
        if not piece:
            return
        if hidden:
            self._between = self._between or any(one.isalnum() for one in piece[:100])
            return
        if self._between and self._last_is_letter and piece[0].isalpha():
            self.broken_words += 1
        self._between = False
        self._last_is_letter = piece[-1].isalpha()
        if turned:
            self.turned += sum(one.isascii() and one.isalpha() for one in piece)
        if faint and self._faint_length < MAX_FAINT_CHARS:
            self.faint.append(piece[:MAX_FAINT_CHARS])
            self._faint_length += len(piece)

    def element(self, tag: str, attributes: Attributes, *, empty: bool, in_svg: bool) -> None:
        """``empty``: there is no text and no element in it."""
        runs = int(tag == "script" and not _is_data(attributes))
        for name in attributes:
            if name.startswith("on") and len(name) > 4:
                runs += 1
        self.programs += runs
        if in_svg:
            self.svg_programs += runs + (tag == "foreignobject")
        style = attributes.get("style")
        if style and "box-shadow" in style:
            self.shadows = max(self.shadows, style.count(","))
        if style and "data:image" in style:
            self._add_images(match.group(1) for match in _STYLE_PICTURE.finditer(style))
        if tag in CELLS:
            if empty:
                self._cell(tag, attributes)
        elif tag == "img":
            source = (attributes.get("src") or "").strip()
            if source[:11].lower() == "data:image/":
                self._add_images([source])
        elif tag in ("input", "textarea", "select"):
            self._field(tag, attributes)
        elif tag in _FRAMES:
            source = attributes.get(_FRAMES[tag]) or attributes.get("srcdoc") or ""
            if source.strip() and len(self.frames) < MAX_FRAMES:
                self.frames.append(source.strip()[:MAX_URL_CHARS])
        elif tag == "meta":
            self._meta(attributes)
        elif tag == "base" and not self.base:
            self.base = (attributes.get("href") or "").strip()[:MAX_URL_CHARS]

    def _field(self, tag: str, attributes: Attributes) -> None:
        words = " ".join((attributes.get(name) or "")[:100] for name in _FIELD_NAMES).lower()
        if len(self.fields) < MAX_FIELDS and (attributes.get("type") or "").strip().lower() != "hidden":
            self.fields.append(" ".join(words.split()) or tag)

    def _meta(self, attributes: Attributes) -> None:
        if (attributes.get("http-equiv") or "").strip().lower() != "refresh" or self.refresh:
            return
        match = _REFRESH_URL.search((attributes.get("content") or "")[:MAX_URL_CHARS])
        if match is not None:
            self.refresh = match.group(1).strip()

    def _cell(self, tag: str, attributes: Attributes) -> None:
        ground = stated_ground(attributes)
        if ground is None:
            dark = False if tag == "td" else None
        else:
            light = ((ground >> 16 & 255) * 299 + (ground >> 8 & 255) * 587 + (ground & 255) * 114) // 1_000
            dark = True if light < _DARK else False if light > _LIGHT else None
        if dark is None:
            return
        self.dark_cells += dark
        self.light_cells += not dark
        self.flips += self._dark is not None and dark != self._dark
        self._dark = dark

    def _add_images(self, sources: Iterator[str] | list[str]) -> None:
        for source in sources:
            if len(self.data_images) >= MAX_DATA_IMAGES:
                return
            self.data_images.append(source)


def outlook_links(html: str) -> list[str]:
    """Targets within conditional comments that classic Outlook alone reads (``<!--[if mso]> … <![endif]-->``)."""
    found: list[str] = []
    position = 0
    for _ in range(_MAX_SECTIONS):
        start = html.find("<!--[if", position)
        opened = html.find("]>", start, start + 200) if start >= 0 else -1
        if opened < 0:
            if start < 0:
                break
            position = start + 7
            continue
        condition = html[start + 7 : opened]
        end = html.find("<![endif]", opened)
        if end < 0:
            break
        position = end
        if "!" in condition or html.startswith("<!-->", opened + 2) or html.startswith("-->", opened + 2):
            continue
        for match in islice(_HREF.finditer(html, opened, end), _MAX_SECTIONS - len(found)):
            tag = html.rfind("<", opened, match.start())
            if html[tag + 1 : tag + 5].lower() != "link":  # of fonts and styles
                found.append(match.group(1) or match.group(2) or match.group(3) or "")
    return found


def _is_data(attributes: Attributes) -> bool:
    kind = attributes.get("type") or ""
    return bool(_DATA_SCRIPTS.search(kind[:100])) or "cdn.ampproject.org" in (attributes.get("src") or "")[:200]
