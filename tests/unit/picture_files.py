"""Pictures with QR codes and small PDFs for the tests: codes by zxing-cpp's writer, PDFs by hand."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import zxingcpp
from PIL import Image, ImageOps


def qr(text: str, *, scale: int = 4) -> Image.Image:
    """A grey picture of a QR code, its quiet zone around it."""
    code = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.QRCode)
    grid = memoryview(zxingcpp.write_barcode_to_image(code, scale=scale))
    return Image.frombytes("L", (grid.shape[1], grid.shape[0]), bytes(grid))


def modules(text: str) -> list[list[bool]]:
    """The code's modules, row by row; True is dark."""
    picture = qr(text, scale=1)
    return [[picture.getpixel((x, y)) == 0 for x in range(picture.width)] for y in range(picture.height)]


def as_file(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def on_photo(code: Image.Image, size: tuple[int, int] = (900, 700)) -> Image.Image:
    """A code somewhere on a busy picture, as on a photographed poster."""
    photo = Image.radial_gradient("L").resize(size).convert("L")
    photo.paste(code, (size[0] // 3, size[1] // 4))
    return photo


def inverted(picture: Image.Image) -> Image.Image:
    return ImageOps.invert(picture)


def pdf(
    *,
    text: str = "",
    links: Sequence[str] = (),
    picture: Image.Image | None = None,
    pages: int = 1,
    catalog: str = "",
    objects: Sequence[bytes] = (),
    packed: Sequence[bytes] = (),
) -> bytes:
    """A PDF of ``pages`` alike. ``catalog`` is put into the catalog, ``objects`` get the numbers from 50 on, ``packed``
    go into an object stream (numbers from 70 on)."""
    numbered: dict[int, bytes] = {}
    names = []
    for page in range(pages):
        base = 100 + page * 40
        names.append(f"{base} 0 R")
        annotations = " ".join(f"{base + 2 + index} 0 R" for index in range(len(links)))
        image = "/XObject << /Im 90 0 R >>" if picture else ""
        numbered[base] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {base + 1} 0 R /Annots [{annotations}] "
            f"/Resources << /Font << /F1 80 0 R >> {image} >> >>"
        ).encode()
        lines = "".join(f"({_escaped(line)}) Tj 0 -14 Td " for line in text.split("\n"))
        drawn = "q 240 0 0 240 150 300 cm /Im Do Q" if picture else ""
        numbered[base + 1] = _stream(f"BT /F1 11 Tf 50 780 Td {lines}ET {drawn}".encode())
        for index, link in enumerate(links):
            numbered[base + 2 + index] = (
                f"<< /Type /Annot /Subtype /Link /Rect [50 {100 + index * 20} 300 {115 + index * 20}] "
                f"/A << /S /URI /URI ({_escaped(link)}) >> >>"
            ).encode()
    numbered[1] = f"<< /Type /Catalog /Pages 2 0 R {catalog} >>".encode()
    numbered[2] = f"<< /Type /Pages /Count {pages} /Kids [{' '.join(names)}] >>".encode()
    numbered[80] = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    if picture is not None:
        head = (
            f"/Type /XObject /Subtype /Image /Width {picture.width} /Height {picture.height} /ColorSpace /DeviceGray "
            "/BitsPerComponent 8 /Filter /FlateDecode"
        )
        numbered[90] = _stream(zlib.compress(picture.tobytes()), head)
    numbered.update({50 + index: body for index, body in enumerate(objects)})
    if packed:
        numbered[69] = _object_stream(packed)
    return _assembled(numbered)


def locked_pdf() -> bytes:
    """A PDF that opens with a user password only (standard security handler, revision 2, RC4 of 40 bits)."""
    security = (f"<< /Filter /Standard /V 1 /R 2 /Length 40 /P -4 /O <{'a1' * 32}> /U <{'5c' * 32}> >>").encode()
    return pdf(text="Secret", objects=[security]).replace(
        b"/Root 1 0 R",
        b"/Root 1 0 R /Encrypt 50 0 R /ID [<00112233445566778899aabbccddeeff> <00112233445566778899aabbccddeeff>]",
    )


def _stream(content: bytes, head: str = "") -> bytes:
    return f"<< {head} /Length {len(content)} >>\nstream\n".encode() + content + b"\nendstream"


def _object_stream(packed: Sequence[bytes]) -> bytes:
    offsets = []
    body = b""
    for index, one in enumerate(packed):
        offsets.append(f"{70 + index} {len(body)}")
        body += one + b" "
    first = " ".join(offsets).encode() + b" "
    head = f"/Type /ObjStm /N {len(packed)} /First {len(first)} /Filter /FlateDecode"
    return _stream(zlib.compress(first + body), head)


def _assembled(numbered: dict[int, bytes]) -> bytes:
    out = b"%PDF-1.7\n"
    places: dict[int, int] = {}
    for number, body in sorted(numbered.items()):
        places[number] = len(out)
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    size = max(places) + 1
    out += f"xref\n0 {size}\n0000000000 65535 f \n".encode()
    for number in range(1, size):
        out += f"{places[number]:010} 00000 n \n".encode() if number in places else b"0000000000 65535 f \n"
    return out + f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
