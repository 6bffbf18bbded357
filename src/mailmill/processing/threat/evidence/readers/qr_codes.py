"""QR codes on a picture, and what a phone would do with them. Runs in the child process only.

Read by zxing-cpp, light on dark and turned ones too. Only QR codes: they are what cameras of phones open by themselves;
the Aztec and PDF417 codes of boarding passes hold no address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import zxingcpp
from PIL import Image

from mailmill.processing.threat.evidence.inside import Target

MAX_CODES: Final = 10
MAX_PAYLOAD_CHARS: Final = 4_000  # a QR code holds 4,296 letters (ISO/IEC 18004, version 40-L)
MIN_SIDE_PIXELS: Final = 21  # the modules of the smallest QR code

_FORMATS: Final = zxingcpp.BarcodeFormats([zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.MicroQRCode])

# What is to be paid, or shared with an authenticator; nothing a phone opens in a browser. EPC069-12 (BCD), Swiss QR
# (SPC), SPAYD, EMVCo (000201), Key URI of authenticators.
_PAYMENTS: Final = ("BCD\n", "BCD\r", "SPC\n", "SPC\r", "SPD*1.0*", "000201", "BITCOIN:", "ETHEREUM:", "LIGHTNING:")
_AUTHENTICATORS: Final = ("OTPAUTH:", "OTPAUTH-MIGRATION:", "FIDO:/")
_CARDS: Final = ("BEGIN:VCARD", "MECARD:", "BEGIN:VEVENT", "BEGIN:VCALENDAR")
_DIALS: Final = re.compile(r"^\s{0,5}(?:mailto|tel|sms|smsto|facetime|matmsg|wifi|javascript|data):", re.IGNORECASE)
_URL: Final = re.compile(r"(?:https?|ftp):[\\/]{0,4}[^\s\"<>]{1,2000}", re.IGNORECASE)
_BARE: Final = re.compile(
    r"^(?:[a-z0-9_\u00a1-\uffff-]{1,63}\.){1,8}[a-z\u00a1-\uffff]{2,24}(?::\d{1,5})?(?:[/?#]\S{0,2000})?$", re.I
)


@dataclass(frozen=True, slots=True)
class Code:
    """``kind`` is ``address``, ``payment``, ``authenticator``, ``card`` or ``text``; ``url`` what a phone would open,
    "" if nothing."""

    kind: str
    url: str


def codes_on(picture: Image.Image) -> list[Code]:
    """The QR codes of a grey picture ("L"), at most ``MAX_CODES``."""
    if min(picture.size) < MIN_SIDE_PIXELS:
        return []
    found = zxingcpp.read_barcodes(picture, formats=_FORMATS, text_mode=zxingcpp.TextMode.Plain)
    return [read_payload(one.text) for one in found[:MAX_CODES]]


def read_payload(payload: str) -> Code:
    """What a phone makes of a code's text: a bare ``host/path`` is opened like a URL, and so is a URL amid words."""
    text = payload[:MAX_PAYLOAD_CHARS].strip("\ufeff\x00 \t\r\n")
    upper = text[:40].upper()
    if upper.startswith(_PAYMENTS):
        return Code("payment", "")
    if upper.startswith(_AUTHENTICATORS):
        return Code("authenticator", "")
    if upper.startswith(_CARDS):
        return Code("card", "")
    if _DIALS.match(text):
        return Code("address", text)
    match = _URL.search(text)
    if match is not None:
        return Code("address", match.group())
    if _BARE.match(text):
        return Code("address", f"http://{text}")
    return Code("text", "")


def targets(codes: list[Code], where: str) -> list[Target]:
    return [Target("qr", code.url, where) for code in codes if code.url]
