"""Reader of PDFs: what they do by themselves, where they lead (links, QR codes), what they say, what they carry.

Pages are read and drawn by PDFium (through pypdfium2; built without V8, so no script of the file ever runs). Actions
are found in the raw bytes by :mod:`.pdf_names`, so also in files that PDFium refuses.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from mailmill.processing.threat.evidence.inside import MAX_MEMBERS, MAX_TARGETS, MAX_TEXT_CHARS, Inside, Target
from mailmill.processing.threat.evidence.readers.pdf_names import actions
from mailmill.processing.threat.evidence.readers.qr_codes import codes_on, targets

PAGES_READ: Final = 10
PAGES_DRAWN: Final = 3
DRAWN_PIXELS: Final = 1_500_000  # A4 at 125 dpi: 3 pixels for a module of a code 25 mm wide
MAX_SCALE: Final = 4.0
_MAX_LINKS_ON_PAGE: Final = 200
_MAX_URL_BYTES: Final = 4_000


def read(_name: str, content: bytes) -> Inside:
    """``seen``: the words of :func:`.pdf_names.actions`, ``encrypted`` (opens with a password only), ``single_page``,
    ``qr``, ``unreadable``; ``members``: embedded files; ``targets``: ``pdf_link`` (what is clicked), ``pdf_text``
    (URLs that viewers make links of), ``qr``."""
    seen = actions(content)
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pdfium.FPDF_ERR_PASSWORD or "password" in str(error).lower():
            seen["encrypted"] = "opens with a password only"
        else:
            seen["unreadable"] = str(error)[:100]
        return Inside(seen=seen)
    with document:
        return _read_pages(document, seen)


def _read_pages(document: pypdfium2.PdfDocument, seen: dict[str, str]) -> Inside:
    found: dict[Target, None] = {}
    kinds: dict[str, None] = {}
    pieces: list[str] = []
    pages = len(document)
    if pages == 1:
        seen["single_page"] = "one page"
    for index in range(min(pages, PAGES_READ)):
        where = f"page {index + 1}"
        try:
            page = document[index]
        except pypdfium2.PdfiumError:
            continue
        found.update(dict.fromkeys(_links(document, page, where)))
        found.update(dict.fromkeys(_words(page, where, pieces)))
        if index < PAGES_DRAWN:
            codes = codes_on(_drawn(page))
            kinds.update(dict.fromkeys(code.kind for code in codes))
            found.update(dict.fromkeys(targets(codes, where)))
        page.close()
    if kinds:
        seen["qr"] = ", ".join(kinds)
    ordered = sorted(found, key=lambda one: ("qr", "pdf_link", "pdf_text").index(one.origin))
    return Inside(
        seen=seen,
        members=tuple(_embedded(document)),
        targets=tuple(ordered[:MAX_TARGETS]),
        text="\n".join(pieces)[:MAX_TEXT_CHARS],
    )


def _drawn(page: pypdfium2.PdfPage) -> Image.Image:
    width, height = page.get_size()
    area = max(1.0, width * height)
    scale = min(MAX_SCALE, math.sqrt(DRAWN_PIXELS / area))
    if not width > 0 or not height > 0 or width * scale < 1 or height * scale < 1:
        return Image.new("L", (1, 1))
    bitmap = page.render(scale=scale, grayscale=True, may_draw_forms=False, limit_image_cache=True)
    picture: Image.Image = bitmap.to_pil().convert("L")
    bitmap.close()
    return picture


def _links(document: pypdfium2.PdfDocument, page: pypdfium2.PdfPage, where: str) -> Iterator[Target]:
    """Link annotations with a URI action (ISO 32000-1 §12.6.4.7)."""
    position = ctypes.c_int(0)
    link = pdfium.FPDF_LINK()
    for _ in range(_MAX_LINKS_ON_PAGE):
        if not pdfium.FPDFLink_Enumerate(page, position, link):
            return
        action = pdfium.FPDFLink_GetAction(link)
        if not action or pdfium.FPDFAction_GetType(action) != pdfium.PDFACTION_URI:
            continue
        size = pdfium.FPDFAction_GetURIPath(document, action, None, 0)
        if not 1 < size <= _MAX_URL_BYTES:
            continue
        buffer = ctypes.create_string_buffer(size)
        pdfium.FPDFAction_GetURIPath(document, action, buffer, size)
        yield Target("pdf_link", buffer.value.decode("utf-8", "replace").strip(), where)


def _words(page: pypdfium2.PdfPage, where: str, pieces: list[str]) -> Iterator[Target]:
    """Adds the page's words to ``pieces``, as long as there is room, and gives the URLs among them."""
    room = MAX_TEXT_CHARS - sum(map(len, pieces))
    text = page.get_textpage()
    try:
        count = min(text.count_chars(), room)
        if count > 0:
            pieces.append(text.get_text_range(0, count).replace("\r\n", "\n").replace("\x00", ""))
        yield from (Target("pdf_text", url, where) for url in _urls_in(text))
    finally:
        text.close()


def _urls_in(text: Any) -> Iterator[str]:
    links = pdfium.FPDFLink_LoadWebLinks(text)
    if not links:
        return
    try:
        for index in range(min(pdfium.FPDFLink_CountWebLinks(links), MAX_TARGETS)):
            size = pdfium.FPDFLink_GetURL(links, index, None, 0)
            if not 1 < size <= _MAX_URL_BYTES:
                continue
            buffer = (ctypes.c_ushort * size)()
            pdfium.FPDFLink_GetURL(links, index, buffer, size)
            url = bytes(buffer).decode("utf-16-le", "replace").rstrip("\x00").strip()
            if url and not url.startswith("mailto:"):
                yield url
    finally:
        pdfium.FPDFLink_CloseWebLinks(links)


def _embedded(document: pypdfium2.PdfDocument) -> Iterator[str]:
    for index in range(min(document.count_attachments(), MAX_MEMBERS)):
        name = document.get_attachment(index).get_name()
        if name:
            yield name
