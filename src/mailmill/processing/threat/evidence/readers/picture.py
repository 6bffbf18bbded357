"""Reader of pictures: the QR codes on them.

Decoded by Pillow; a picture of more pixels than it may have is not decoded at all, one of more than is needed to find a
code is made smaller. Of a moving picture the first frame is read.
"""

from __future__ import annotations

import io
import math
from typing import Final

from PIL import Image, ImageFile

from mailmill.processing.threat.evidence.inside import NOTHING, Inside, Target
from mailmill.processing.threat.evidence.readers.qr_codes import Code, codes_on, targets

MAX_PIXELS: Final = 25_000_000
"""Beyond it a picture is not read: as RGBA it would take 100 MB."""
MAX_JPEG_PIXELS: Final = 64_000_000
"""JPEGs are made smaller while they are decoded, and cameras make large ones."""
BOMB_PIXELS: Final = 250_000_000
"""Beyond it a picture was made to harm: no camera and no screen has so many."""
SEARCHED_PIXELS: Final = 2_000_000

# Formats that mail programs show. Pillow's others are not asked for: each is a parser more that a stranger can reach.
_FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
_MIN_SIDE: Final = 21


def read(_name: str, content: bytes) -> Inside:
    """QR codes as targets; ``seen`` has ``qr`` (what kinds of codes), ``too_large`` or ``bomb``. Raises what Pillow
    raises."""
    # Our own bound is checked before anything is decoded; Pillow's warning would be an error in strict surroundings.
    Image.MAX_IMAGE_PIXELS = None
    # Mail programs show as much of a cut picture as there is.
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
        width, height = picture.size
        if width * height > (MAX_JPEG_PIXELS if picture.format == "JPEG" else MAX_PIXELS):
            word = "bomb" if width * height > BOMB_PIXELS else "too_large"
            return Inside(seen={word: f"{width} x {height} pixels"})
        if min(width, height) < _MIN_SIDE:
            return NOTHING
        if picture.format == "JPEG":
            picture.draft("L", _fitting(width, height))
        codes = _search(picture)
    return _inside(codes, targets(codes, ""))


def _search(picture: Image.Image) -> list[Code]:
    """Transparent parts are looked at on white, and on black if there was nothing: codes in white on nothing exist."""
    if not picture.has_transparency_data:
        return codes_on(_smaller(picture, "L"))
    clear = _smaller(picture, "LA")
    for paper in (255, 0):
        page = Image.new("L", clear.size, paper)
        page.paste(clear.getchannel("L"), mask=clear.getchannel("A"))
        codes = codes_on(page)
        if codes:
            return codes
    return []


def _smaller(picture: Image.Image, mode: str) -> Image.Image:
    """Of at most ``SEARCHED_PIXELS``, in ``mode``; a palette can't be averaged, so it becomes grey first."""
    if picture.mode not in ("L", "LA", "RGB", "RGBA"):
        picture = picture.convert(mode)
    size = _fitting(*picture.size)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BOX)
    return picture.convert(mode)


def _fitting(width: int, height: int) -> tuple[int, int]:
    shrink = math.sqrt(SEARCHED_PIXELS / (width * height))
    if shrink >= 1:
        return (width, height)
    return (max(1, int(width * shrink)), max(1, int(height * shrink)))


def _inside(codes: list[Code], found: list[Target]) -> Inside:
    if not codes:
        return NOTHING
    return Inside(seen={"qr": ", ".join(dict.fromkeys(code.kind for code in codes))}, targets=tuple(found))
