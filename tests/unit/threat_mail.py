"""Small mail for the tests of the threat engine: raw bytes, read by the real parser."""

from __future__ import annotations

import base64

from mailmill.message_parser import ParsedMessage, parse_message
from mailmill.processing.threat.context import ThreatContext, prepare
from mailmill.processing.threat.engine import DETECTORS, scan

OWN = "dana@harbour.example.org"
SERVER = "mx.harbour.example.org"

PROVEN = "spf=pass smtp.mailfrom={d}; dkim=pass header.d={d}; dmarc=pass header.from={d}"
NOTHING = "spf=none smtp.mailfrom={d}; dkim=none header.d=none; dmarc=none header.from={d}"


def mail(
    sender: str = "Lena Ott <lena@meadow-farm.com>",
    *,
    subject: str = "The plan for Monday",
    text: str = "",
    html: str = "",
    results: str | None = PROVEN,
    headers: tuple[str, ...] = (),
    attachments: tuple[tuple[str, str, bytes], ...] = (),
) -> ParsedMessage:
    """A message from ``sender`` (a From field as written).

    ``results`` are our server's (``{d}`` is From's domain; None: no field); ``attachments`` are (name, type, content).
    """
    domain = sender.rpartition("@")[2].strip("> ")
    lines = [f"From: {sender}", f"To: {OWN}", f"Subject: {subject}", "Message-ID: <1@meadow-farm.com>"]
    if results is not None:
        lines.insert(0, f"Authentication-Results: {SERVER}; {results.format(d=domain)}")
    lines.extend(headers)
    lines.extend(["MIME-Version: 1.0", 'Content-Type: multipart/mixed; boundary="b"', ""])
    body = "\n".join(lines)
    if text or not html:
        body += f"\n--b\nContent-Type: text/plain; charset=utf-8\n\n{text or 'See you on Monday at ten.'}\n"
    if html:
        body += f"\n--b\nContent-Type: text/html; charset=utf-8\n\n{html}\n"
    for name, content_type, content in attachments:
        encoded = base64.encodebytes(content).decode()
        body += (
            f"\n--b\nContent-Type: {content_type}\nContent-Disposition: attachment; filename*=utf-8''{_percent(name)}\n"
            f"Content-Transfer-Encoding: base64\n\n{encoded}"
        )
    return parse_message((body + "\n--b--\n").replace("\n", "\r\n").encode())


def context(message: ParsedMessage) -> ThreatContext:
    return prepare(message, own_address=OWN, authserv_id=SERVER)


def found(message: ParsedMessage, family: str = "") -> set[str]:
    """Ids of all findings (of a family) before they are weighed."""
    prepared = context(message)
    return {
        one.id for detector in DETECTORS for one in detector(prepared) if not family or one.id.startswith(f"{family}.")
    }


def verdict(message: ParsedMessage) -> str:
    return scan(message, own_address=OWN, authserv_id=SERVER).verdict.value


def _percent(name: str) -> str:
    return "".join(f"%{byte:02X}" for byte in name.encode())
