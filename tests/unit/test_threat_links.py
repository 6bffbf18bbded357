"""Family links: what a link shows, and where it leads."""

from __future__ import annotations

import base64

import pytest
from threat_mail import OWN, PROVEN, found, mail

from mailmill.processing.threat.links import shown_host

OWN_BASE64 = base64.b64encode(OWN.encode()).decode()


@pytest.mark.parametrize(
    ("finding_id", "html"),
    [
        ("text_differs_from_target", '<a href="https://tide-tables.net/x">https://www.bigbank.com/login</a>'),
        ("text_differs_from_target", '<a href="https://tide-tables.net/x"><b>bigbank.com</b></a>'),
        # an attacker who authenticates a domain of his own gets no leave to show a brand's
        ("text_differs_from_target", '<a href="https://meadow-farm.com/x">www.paypal.com</a>'),
        ("ip_host", '<a href="http://203.0.113.9/x">open</a>'),
        ("ip_host", '<a href="http://3405803785/x">open</a>'),
        ("userinfo", '<a href="https://www.bigbank.com@tide-tables.net/">open</a>'),
        ("userinfo", '<a href="https://bigbank.com%2flogin:x@tide-tables.net/">open</a>'),
        ("script_or_data", '<a href="data:text/html;base64,PHNjcmlwdD4=">open</a>'),
        ("script_or_data", "<a href=\"java\nscript:document.write(atob('PHA+'))\">open</a>"),
        ("free_hosting", '<a href="https://login-page.web.app/x">open</a>'),
        ("free_hosting", '<form action="https://x.formstack.com/forms/y"><input type=password></form>'),
        ("shortener", '<a href="https://bit.ly/3abc">open</a>'),
        ("shortener", '<a href="https://t.co/3abc">open</a>'),
        ("recipient_in_fragment", f'<a href="https://tide-tables.net/#{OWN}">open</a>'),
        ("recipient_in_fragment", f'<a href="https://tide-tables.net/x#u={OWN_BASE64}">open</a>'),
    ],
)
def test_found(finding_id: str, html: str) -> None:
    assert f"links.{finding_id}" in found(mail(html=html), "links")


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://login.bigbank.com/x">www.bigbank.com</a>',
        '<a href="https://click.meadow-farm.com/t/1">www.bigshop.com/meadow</a>',  # the sender's own click tracking
        '<a href="https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Fbigbank.com%2F">bigbank.com</a>',
        '<a href="https://gate.filter.net/?u=https%3A%2F%2Fwww.bigbank.com%2Fa">www.bigbank.com</a>',
        '<a href="https://urldefense.proofpoint.com/v2/url?u=x">github.com</a>',
        '<a href="https://tide-tables.net/x">report.pdf</a>',
        '<a href="https://tide-tables.net/x">Read more at Bigbank</a>',
        '<a href="https://tide-tables.net/x">3.5.1</a>',
        '<a href="http://192.168.1.1/">the router</a>',
        '<a href="http://127.0.0.1:8025/">the page</a>',
        '<a href="https://lena@meadow-farm.com/">open</a>',
        '<a href="mailto:lena@meadow-farm.com">lena@meadow-farm.com</a>',
        '<a href="tel:+4912345">call</a>',
        '<a href="javascript:void(0)">menu</a>',
        '<img src="data:image/png;base64,AAAA"><a href="data:image/png;base64,AAAA">picture</a>',
        '<a href="https://bit.ly/">the shortener\'s own page</a>',
        '<a href="https://tide-tables.net/#contact">open</a>',
        f'<a href="https://tide-tables.net/unsubscribe?mail={OWN}">unsubscribe</a>',
    ],
)
def test_benign_twin(html: str) -> None:
    assert found(mail(html=html, results=PROVEN), "links") == set()


def test_a_service_may_link_to_its_own_pages() -> None:
    page = '<a href="https://shop.myshopify-pages.web.app/x">open</a>'
    assert "links.free_hosting" not in found(
        mail("S <s@shop.myshopify-pages.web.app>", html=page, results="dkim=pass header.d={d}")
    )


def test_plain_text_shows_its_targets_itself() -> None:
    text = "Fetch it from http://203.0.113.9/build and https://bit.ly/3abc please"
    assert found(mail(text=text), "links") == set()


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://www.bigbank.com/login", "www.bigbank.com"),
        ("www.bigbank.com", "www.bigbank.com"),
        ("→ bigbank.com", "bigbank.com"),
        ("bigbank.com/login?x=1", "bigbank.com"),
        ("Bigbank", ""),
        ("see bigbank.com for more", ""),
        ("setup.py", ""),
        ("notes.md", ""),
        ("v1.2.3", ""),
        ("lena@bigbank.com", ""),
    ],
)
def test_what_a_text_shows(text: str, host: str) -> None:
    assert shown_host(text) == host
