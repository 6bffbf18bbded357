"""Family domains: domains made to be mistaken for others."""

from __future__ import annotations

import pytest
from threat_mail import PROVEN, found, mail

from mailmill.processing.threat.hosts import ip_of, organisation_of, parse_url, split_host


def link(host: str) -> str:
    return f'<p>Look <a href="https://{host}/x">here</a></p>'


@pytest.mark.parametrize(
    ("finding_id", "host"),
    [
        ("lookalike_link", "paypa1.com"),
        ("lookalike_link", "rnicrosoft.com"),
        ("lookalike_link", "g00gle-docs.g00gle.net"),
        ("lookalike_link", "xn--pypal-4ve.com"),  # Cyrillic а
        ("lookalike_link", "ex4mple.org"),  # the account's own example.org
        ("one_letter_off", "netfliix.com"),
        ("one_letter_off", "linkedn.com"),
        ("brand_in_link", "paypal.com.account-check.net"),
        ("brand_in_link", "secure-netflix-login.com"),
        ("mixed_script", "аmazon.com"),
        ("mixed_script", "xn--80ak6aa92e.com"),  # "apple" in Cyrillic alone
        ("punycode", "xn--mnchen-3ya.de"),
        ("punycode", "xn--e1afmkfd.xn--p1ai"),
        ("risky_suffix", "prize-desk.top"),
        ("risky_suffix", "prize-desk.cfd"),
    ],
)
def test_found(finding_id: str, host: str) -> None:
    assert f"domains.{finding_id}" in found(mail(html=link(host)), "domains")


@pytest.mark.parametrize(
    "host",
    [
        "paypal.com",
        "www.paypal.com",
        "paypal.de",
        "mail.google.com",
        "docs.microsoft.com",
        "gitlab.meadow-farm.com",  # software people run themselves
        "correos.es",
        "meadow-farm.com",
        "example.org",
        "amazon-adsystem.com",
        "netflix.com",
        "finance.com",
        "apples.com",
        "münchen.example.de",
    ],
)
def test_benign_twin(host: str) -> None:
    assert found(mail(html=link(host), text="Schöne Grüße aus München"), "domains") == set()


@pytest.mark.parametrize(
    ("finding_id", "sender"),
    [
        ("lookalike_sender", "Help <help@paypa1.com>"),
        ("lookalike_sender", "Help <help@examp1e.org>"),
        ("brand_in_sender", "Help <help@paypal.account-check.net>"),
        ("brand_in_sender", "Help <help@netflix-billing.net>"),
    ],
)
def test_found_in_the_sender(finding_id: str, sender: str) -> None:
    assert f"domains.{finding_id}" in found(mail(sender, results=PROVEN), "domains")


@pytest.mark.parametrize("sender", ["Help <help@paypal.com>", "Help <help@e.netflix.com>", "Dana <x@example.org>"])
def test_benign_sender(sender: str) -> None:
    assert found(mail(sender), "domains") == set()


@pytest.mark.parametrize(
    ("host", "organisation"),
    [
        ("a.b.example.co.uk", "example.co.uk"),
        ("EXAMPLE.com.", "example.com"),
        ("me.github.io", "me.github.io"),
        ("192.0.2.1", "192.0.2.1"),
        ("localhost", "localhost"),
        ("", ""),
        ("bad host", ""),
        ("xn--mnchen-3ya.de", "münchen.de"),
        ("xn--" + "9" * 60, "xn--" + "9" * 60),
    ],
)
def test_organisations(host: str, organisation: str) -> None:
    assert organisation_of(host) == organisation


def test_a_host_is_split_at_the_public_suffix() -> None:
    assert split_host("www.shop.example.co.uk") == ("www.shop", "example", "co.uk")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("0xC0000207", ""),  # clean_host lowers it first
        ("0xc0000207", "192.0.2.7"),
        ("3221225991", "192.0.2.7"),
        ("0300.0.02.07", "192.0.2.7"),
        ("192.0.519", "192.0.2.7"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("256.1.1.1", ""),
        ("1.2.3.4.5", ""),
        ("example.com", ""),
        ("99999999999", ""),
        ("[::zz]", ""),
    ],
)
def test_addresses_in_any_notation(host: str, address: str) -> None:
    assert ip_of(host) == address


@pytest.mark.parametrize(
    ("raw", "host", "userinfo"),
    [
        ("https://example.com/a?b#c", "example.com", ""),
        ("HTTPS:\\\\Example.COM\\a", "example.com", ""),
        ("ht\ntps://exam\tple.com", "example.com", ""),
        ("https:example.com", "example.com", ""),
        ("//example.com/x", "example.com", ""),
        ("https://bank.example@evil.example:8080/x", "evil.example", "bank.example"),
        ("https://a@b@evil.example", "evil.example", "a@b"),
        ("https://ex%61mple.com", "example.com", ""),
        ("https://exam\u200bple.com", "example.com", ""),
        ("https://example。com", "example.com", ""),
        ("https://[2001:db8::1]:80/", "[2001:db8::1]", ""),
    ],
)
def test_urls_are_read_as_browsers_do(raw: str, host: str, userinfo: str) -> None:
    url = parse_url(raw)
    assert url is not None
    assert (url.host, url.userinfo) == (host, userinfo)


@pytest.mark.parametrize("raw", ["", "page.html", "#top", "https://", "https:///", "http://a b/", "http://:80/"])
def test_what_is_no_url(raw: str) -> None:
    assert parse_url(raw) is None
