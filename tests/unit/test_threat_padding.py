"""Family padding, and what cannot be pushed out of sight: bodies, links and files behind a heap of nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from threat_mail import OWN, SERVER, context, found, mail, verdict

from mailmill.message_parser import ParsedMessage, parse_message
from mailmill.processing.html_text import MAX_HTML_CHARS, MAX_LINKS, MAX_NODES, read_html
from mailmill.processing.threat.context import MAX_FILES

LETTER = "<p>The boats are painted.</p><a href='https://tide-tables.example/x'>Tide tables</a>"
LONG = "".join(f"<p>The plan for pier {number} is ready and its boats are painted.</p>" for number in range(50))
HEAPS = (
    "<!--" + "x" * MAX_HTML_CHARS + "-->",
    "<style>" + ".x{color:red}" * (MAX_HTML_CHARS // 12) + "</style>",
    " " * MAX_HTML_CHARS,
    "<div hidden>" + "tides and boats " * (MAX_HTML_CHARS // 15) + "</div>",
)


def parts(count: int, kind: str = "text/plain", name: str = "") -> ParsedMessage:
    head = f"From: lena@meadow-farm.com\nTo: {OWN}\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
    disposition = f"Content-Disposition: attachment; filename={name}\n" if name else ""
    return parse_message((head + f"--b\nContent-Type: {kind}\n{disposition}\nx\n" * count + "--b--\n").encode())


def by_list(message: ParsedMessage) -> ParsedMessage:
    """The same, as a list sends it on whose own server was proven."""
    results = f"{SERVER}; spf=pass smtp.mailfrom=lists.example.net"
    headers = (("Authentication-Results", results), ("List-Id", "Tides <tides.lists.example.net>"))
    return replace(message, headers=(*headers, *message.headers))


@pytest.mark.parametrize("finding_id", ["text"])
@pytest.mark.parametrize(
    "html",
    [
        *HEAPS,
        "<i></i>" * MAX_NODES,
        "<a href=https://x.example></a>" * (MAX_LINKS + 1),
    ],
    ids=["comment", "style", "blanks", "hidden", "elements", "links"],
)
def test_padded_text(finding_id: str, html: str) -> None:
    assert found(mail(html=html + LETTER), "padding") == {f"padding.{finding_id}"}


@pytest.mark.parametrize("twin_of", ["text"])
@pytest.mark.parametrize(
    "html",
    [
        LONG + " " * MAX_HTML_CHARS,  # a long letter
        LETTER + "<img src='data:image/png;base64," + "A" * (MAX_HTML_CHARS // 2) + "'>",
        "<a href=https://x.example>read on</a>" * (MAX_LINKS - 1),
        "<div>" * 200 + LETTER,  # an answer to an answer to an answer …
        "",
    ],
    ids=["long", "picture", "digest", "thread", "plain"],
)
def test_text_that_is_not_padded(twin_of: str, html: str) -> None:
    assert found(mail(html=html, text="" if html else "x " * 500_000), "padding") == set(), twin_of


def header_lines(count: int) -> ParsedMessage:
    return mail(headers=tuple(f"X-{number}: {'x' * 900}" for number in range(count)))


def nested(depth: int) -> ParsedMessage:
    levels = "".join(f"--b{level}\nContent-Type: multipart/mixed; boundary=b{level + 1}\n\n" for level in range(depth))
    return parse_message(f"Content-Type: multipart/mixed; boundary=b0\n\n{levels}--b{depth}\n\nx\n".encode())


@pytest.mark.parametrize("finding_id", ["structure"])
@pytest.mark.parametrize(
    "message", [parts(2_100), header_lines(400), nested(50)], ids=["parts", "header lines", "multiparts"]
)
def test_padded_structure(finding_id: str, message: ParsedMessage) -> None:
    assert found(message, "padding") == {f"padding.{finding_id}"}


@pytest.mark.parametrize("twin_of", ["structure"])
@pytest.mark.parametrize(
    "message",
    [
        parts(300),
        header_lines(100),
        nested(5),
        parse_message(b"From: lena@meadow-farm.com\n\n" + b"--\n" * 1_000),
    ],
    ids=["parts", "header lines", "multiparts", "rules between paragraphs"],
)
def test_structure_that_is_not_padded(twin_of: str, message: ParsedMessage) -> None:
    assert found(message, "padding") == set(), twin_of


@pytest.mark.parametrize("finding_id", ["files"])
@pytest.mark.parametrize(
    ("kind", "name"), [("application/octet-stream", "a.bin"), ("image/png", "a.png"), ("text/plain", "a.txt")]
)
def test_padded_files(finding_id: str, kind: str, name: str) -> None:
    assert found(parts(MAX_FILES + 1, kind, name), "padding") == {f"padding.{finding_id}"}


@pytest.mark.parametrize("twin_of", ["files"])
@pytest.mark.parametrize(
    "message",
    [
        parts(MAX_FILES, "image/png", "a.png"),
        parts(MAX_FILES + 50, "message/rfc822"),
        by_list(parts(MAX_FILES + 1, "image/png", "a.png")),
    ],
    ids=["an album", "a digest", "by a list"],
)
def test_files_that_are_not_padding(twin_of: str, message: ParsedMessage) -> None:
    assert found(message, "padding") == set(), twin_of


@pytest.mark.parametrize("heap", HEAPS, ids=["comment", "style", "blanks", "hidden"])
def test_the_end_of_a_body_is_read(heap: str) -> None:
    text = read_html(heap + LETTER)
    assert text.truncated
    assert text.visible.endswith("The boats are painted.\nTide tables")
    assert [link.target for link in text.links] == ["https://tide-tables.example/x"]


def test_what_is_nested_too_deeply_is_read_flat() -> None:
    text = read_html("<div>" * 50_000 + LETTER + "<form action=https://x.example><input type=password></form>")
    assert text.visible == "The boats are painted.\nTide tables"
    assert [link.element for link in text.links] == ["a", "form"]
    assert text.password_fields == 1


@pytest.mark.parametrize(
    "heap",
    [
        "<a href=https://x.example></a>" * 2 * MAX_LINKS,
        "<div hidden>" + "<a href=https://x.example>x</a>" * 2 * MAX_LINKS + "</div>",
        "<a href=https://x.example></a>" * (MAX_LINKS - 1),  # fewer than are kept of a body, more than of a message
    ],
    ids=["empty", "hidden", "few"],
)
def test_links_that_somebody_sees_are_not_kept_out(heap: str) -> None:
    seen = {link.url.host for link in context(mail(html=heap + LETTER)).links}
    assert "tide-tables.example" in seen


def test_links_that_somebody_sees_are_bounded() -> None:
    assert len(read_html("<a href=https://x.example>x</a>" * 2 * MAX_LINKS).links) == MAX_LINKS


LURE = (
    "<p>Dear customer, your account has been suspended. Please verify your password within 24 hours.</p>"
    "<a href='https://paypal-login.lagoon-files.xyz/x'>https://www.paypal.com/signin</a>"
)
REFUSED = "spf=fail smtp.mailfrom={d}; dkim=none; dmarc=fail (p=reject) header.from={d}"
FORGED = f"Authentication-Results: {SERVER}; spf=pass smtp.mailfrom=paypal.com; dmarc=pass header.from=paypal.com"


@pytest.mark.parametrize(
    ("html", "headers"),
    [
        (LURE, ()),
        (LURE, (FORGED,)),
        (LURE, ("From: Lena Ott <lena@meadow-farm.com>",)),
        (LURE, ("List-Id: <crew.paypal.com>", "List-Post: <mailto:crew@paypal.com>")),
        (LURE, ("In-Reply-To: <1@meadow-farm.com>", "References: <1@meadow-farm.com>")),
        ("<div hidden>" + LONG + "</div>" + LURE, ()),
        *((heap + LURE, ()) for heap in HEAPS),
        ("<div>" * 3_000 + LURE, ()),
        ("<a href=https://x.example></a>" * 2 * MAX_LINKS + LURE, ()),
    ],
)
def test_no_trick_makes_it_less_than_malicious(html: str, headers: tuple[str, ...]) -> None:
    message = mail("PayPal <service@paypal.com>", subject="Your account", html=html, results=REFUSED, headers=headers)
    assert verdict(message) == "malicious"
