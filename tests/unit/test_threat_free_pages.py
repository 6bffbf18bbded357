"""Pages that anybody can put up: who is taken there, by whom, and with what; and honest mail that leads there too."""

from __future__ import annotations

import pytest
from threat_mail import NOTHING, OWN, found, mail, verdict

STOLEN = "Karin Lund <info@lund-joinery.com>"


def _html(href: str, label: str = "Open", text: str = "") -> str:
    return f'<p>{text}</p><p><a href="{href}">{label}</a></p>'


@pytest.mark.parametrize(
    "href",
    [
        f"https://mail-check.pages.dev/?u={OWN}",
        f"https://storage.googleapis.com/check/index.html#{OWN}",
        f"https://cloudflare-ipfs.com/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG/{OWN}",
        f"https://box.duckdns.org/in/{OWN}",
    ],
)
def test_an_address_carried_to_anybodys_page(href: str) -> None:
    assert "links.recipient_on_free_page" in found(mail(STOLEN, html=_html(href)))


@pytest.mark.parametrize(
    "href",
    [
        f"https://meadow-farm.com/orders?u={OWN}",
        "https://our-demo.pages.dev/?page=2",
        f"https://our-list.pages.dev/unsubscribe?u={OWN}",
    ],
)
def test_an_address_in_honest_links(href: str) -> None:
    assert "links.recipient_on_free_page" not in found(mail(html=_html(href)))


def test_a_sender_who_lives_on_the_page_itself_is_no_stranger() -> None:
    sender = "Builds <builds@ours.github.io>"
    assert "links.recipient_on_free_page" not in found(mail(sender, html=_html(f"https://ours.github.io/?u={OWN}")))


SERVICE = [
    ("Your mailbox is full. Increase your storage here.", "https://mail-space.weebly.com/"),
    ("Your account has been suspended. Verify your identity.", "https://check-in.vercel.app/"),
    ("You have a new voice message. Play the message.", "https://qrco.de/abc1"),
    ("Please sign in with your work email to view the document.", "https://docs.google.com/forms/d/e/1FA/viewform"),
    ("Your parcel is held because of unpaid customs fees. Pay the fee here.", "https://post-fee.netlify.app/"),
]


@pytest.mark.parametrize(("text", "href"), SERVICE)
def test_a_service_on_anybodys_page(text: str, href: str) -> None:
    message = mail(STOLEN, html=_html(href, text=text))
    assert "impersonation.service_on_free_page" in found(message)
    assert verdict(message) != "clean"


@pytest.mark.parametrize(
    ("text", "hrefs"),
    [
        ("Your account has been suspended. Verify your identity.", ["https://lund-joinery.com/account"]),
        ("Your mailbox is full. Increase your storage here.", ["https://lund-joinery.com/q", "https://x.pages.dev/"]),
        ("Here is the first draft of your new site, have a look.", ["https://first-draft.vercel.app/"]),
        ("Please fill in our form, so that we know who comes.", ["https://docs.google.com/forms/d/e/1FA/viewform"]),
    ],
)
def test_a_service_at_home_and_a_draft_on_a_free_page(text: str, hrefs: list[str]) -> None:
    message = mail(STOLEN, html="".join(_html(href, text=text) for href in hrefs))
    assert "impersonation.service_on_free_page" not in found(message)
    assert verdict(message) == "clean"


@pytest.mark.parametrize(
    ("text", "finding_id"),
    [
        (f"Keep it: https://mail-keep.pages.dev/?u={OWN}", "links.recipient_on_free_page"),
        ("See https://paper.weebly.com/in", "links.free_hosting"),
        ("The statement: https://box.duckdns.org/a", "links.dynamic_address"),
    ],
)
def test_written_out_in_a_plain_letter(text: str, finding_id: str) -> None:
    assert finding_id in found(mail(STOLEN, text=text, results=NOTHING))


@pytest.mark.parametrize(
    "headers",
    [("In-Reply-To: <7@meadow-farm.com>",), ("References: <7@meadow-farm.com>",), ("List-Id: <ours.meadow-farm.com>",)],
)
def test_answers_and_lists_mention_pages(headers: tuple[str, ...]) -> None:
    text = "I read it on https://some-words.blogspot.com/2026/05/bees.html"
    assert "links.free_hosting" not in found(mail(text=text, headers=headers))


def test_many_pages_written_out_are_a_list_of_them() -> None:
    text = "\n".join(f"https://page{number}.blogspot.com/" for number in range(6))
    assert "links.free_hosting" not in found(mail(text=text))


@pytest.mark.parametrize(
    ("text", "href"),
    [
        ("The schedule is in the archive, the password is 4471.", "https://store.s3.amazonaws.com/Schedule.zip"),
        ("Descargue la factura. La clave del archivo es 2026.", "https://facturas.example/F-2291.rar"),
        ("Passwort zum Entpacken: R4002, Datei siehe Link.", "https://ablage.example/Rechnung.7z"),
    ],
)
def test_a_locked_archive_behind_a_link(text: str, href: str) -> None:
    assert "links.locked_archive" in found(mail(STOLEN, html=_html(href, text=text)))


@pytest.mark.parametrize(
    ("text", "href"),
    [
        ("The photos of the party.", "https://store.s3.amazonaws.com/Photos.zip"),
        ("The files are here. The password comes by telephone.", "https://store.s3.amazonaws.com/Files.zip"),
        ("Das Archiv liegt bereit, das Passwort ist telefonisch zu erfragen.", "https://ablage.example/Plan.7z"),
        ("The archive is ready; the password is your customer number.", "https://store.example/Plan.zip"),
        ("Your password was changed.", "https://store.example/settings"),
        ("The archive, the password is 4471.", "https://lund-joinery.com/files/Plan.zip"),
    ],
)
def test_archives_without_a_password_and_ones_own(text: str, href: str) -> None:
    assert "links.locked_archive" not in found(mail(STOLEN, html=_html(href, text=text)))
