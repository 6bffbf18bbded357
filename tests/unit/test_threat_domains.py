"""Family domains: domains made to be mistaken for others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from threat_mail import OWN, PROVEN, found, mail

from mailmill.model import SenderHistory
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.evidence.brand_index import owner_of
from mailmill.processing.threat.evidence.hosts import (
    clean_host,
    ends_in,
    ip_of,
    organisation_of,
    parse_url,
    split_host,
)
from mailmill.processing.threat.evidence.impersonation import (
    brand_inside,
    brand_under_other_suffix,
    imitated,
    imitates,
    mixed_script_label,
    near_miss,
)
from mailmill.processing.threat.evidence.lookalike import edits
from mailmill.processing.threat.evidence.scripts import Restriction, restriction
from mailmill.processing.threat.families.domains import (
    brand_in_foreign_domain,
    looks_random,
    own_domain_abused,
)
from mailmill.processing.threat.families.links import is_free_hosting
from mailmill.processing.threat.knowledge.brands import BRANDS, read_brands


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
        ("lookalike_link", "paypa1-login.com"),
        ("lookalike_link", "vvalmart.com"),
        ("lookalike_link", "раypal.com"),
        ("one_letter_off", "amzaon.com"),  # neighbours swapped
        ("one_letter_off", "bankofamerlcca.com"),  # two edits of a long name
        ("brand_in_link", "paypal.top"),
        ("brand_in_link", "securepaypal.com"),
        ("brand_in_link", "netflixbilling2024.com"),
        ("brand_in_link", "dhl-tracking.net"),
        ("brand_in_link", "apple-id-verify.com"),
        ("brand_in_link", "ups-parcel-tracking.com"),
        ("brand_in_link", "chase.icu"),
        ("suffix_inside", "www.bigbank.com.check-point.net"),
        ("suffix_inside", "com-check.net"),
        ("suffix_inside", "login.bigbank.co.tide-tables.net"),
        ("unwieldy", "a.b.c.d.e.tide-tables.net"),
        ("unwieldy", f"{'long-' * 11}name.{'so-' * 9}long.tide-tables.net"),
        ("unwieldy", "login.secure.id.session.auth.tide-tables.co.uk"),
        ("random_name", "xkqjzvbtrwpl.com"),
        ("random_name", "a8d7f3k2m9q1.net"),
        ("random_name", "www.qwrtzpsdfghklm.de"),
        ("own_in_host", "mail.example.org.tide-tables.net"),
        ("own_in_host", "example-org.tide-tables.net"),
        ("own_in_host", "sso.harbour.example.org.tide-tables.net"),
        ("mixed_script", "аmazon.com"),
        ("mixed_script", "раураӏ.com"),
        ("mixed_script", "xn--80ak6aa92e.com"),  # "apple" in Cyrillic alone
        ("punycode", "xn--mnchen-3ya.de"),
        ("punycode", "xn--e1afmkfd.xn--p1ai"),
        ("punycode", "www.xn--caf-dma.com"),
        ("risky_suffix", "prize-desk.icu"),
        ("risky_suffix", "prize-desk.top"),
        ("risky_suffix", "prize-desk.cfd"),
    ],
)
def test_found(finding_id: str, host: str) -> None:
    assert f"domains.{finding_id}" in found(mail(html=link(host)), "domains")


@pytest.mark.parametrize(
    ("twin_of", "host"),
    [
        ("lookalike_link brand_in_link one_letter_off", "paypal.com"),
        ("brand_in_link", "www.paypal.com"),
        ("brand_in_link", "paypal.de"),
        ("lookalike_link", "mail.google.com"),
        ("brand_in_link", "docs.microsoft.com"),
        ("brand_in_link", "gitlab.meadow-farm.com"),  # software people run themselves
        ("one_letter_off", "correos.es"),
        ("random_name unwieldy", "meadow-farm.com"),
        ("own_in_host", "example.org"),
        ("brand_in_link", "amazon-adsystem.com"),
        ("one_letter_off lookalike_link", "netflix.com"),
        ("one_letter_off", "finance.com"),
        ("one_letter_off", "apples.com"),
        ("mixed_script punycode", "münchen.example.de"),
        ("one_letter_off", "nypost.com"),
        ("brand_in_link", "ryanairmail.com"),
        ("brand_in_link", "free-support.com"),
        ("brand_in_link", "delta.meadow-farm.com"),
        ("brand_in_link", "united.meadow-farm.org"),
        ("brand_in_link", "steam.meadow-farm.com"),
        ("brand_in_link", "sparkasse-musterstadt.de"),
        ("suffix_inside", "bigbank.co.uk"),
        ("suffix_inside unwieldy", "shop.bigbank.com.au"),
        ("random_name", "d3k81ch9hvuctc.cloudfront.net"),
        ("random_name", "a1b2c3d4.web.app"),
        ("random_name", "rechtsschutzversicherung.de"),
        ("random_name", "strengthsfinder.com"),
        ("mixed_script punycode", "пример.рф"),
        ("mixed_script punycode", "日本語ドメイン.jp"),
        ("mixed_script punycode", "한국abc.kr"),
        ("mixed_script punycode", "ελλάδα.gr"),
        ("own_in_host", "bestexample.org"),  # no label of it is the own,
        ("own_in_host", "example.organic-guide.net"),
        ("own_in_host", "www.example.org"),
        ("unwieldy", "a.b.c.d.tide-tables.net"),
        ("unwieldy", "a.b.c.d.e.meadow-farm.com"),
        ("suffix_inside", "community.tide-tables.net"),
        ("suffix_inside", "www.bigbank.com.meadow-farm.com"),  # the sender's own gateway,
        ("risky_suffix", "topdesk.com"),
        ("risky_suffix", "icu-nurses.org"),
        ("risky_suffix", "cfd.bigbank.co.uk"),
        ("random_name", "xkqjzv.com"),
        ("random_name", "sportsmarktplans.com"),
        ("random_name", "mgmt-prjct-wbsts.com"),
    ],
)
def test_benign_twin(twin_of: str, host: str) -> None:
    assert found(mail(html=link(host), text="Schöne Grüße aus München"), "domains") == set(), twin_of


@pytest.mark.parametrize(
    ("finding_id", "sender"),
    [
        ("lookalike_sender", "Help <help@paypa1.com>"),
        ("lookalike_sender", "Help <help@examp1e.org>"),
        ("lookalike_sender", "Help <help@arnazon.com>"),
        ("brand_in_sender", "Help <help@paypal.account-check.net>"),
        ("brand_in_sender", "Help <help@netflix-billing.net>"),
        ("brand_in_sender", "Help <help@secure-paypal.net>"),
        ("throwaway_sender", "Help <help@desk7.onmicrosoft.com>"),
        ("throwaway_sender", "Help <help@desk7.ddns.net>"),
        ("throwaway_sender", "Help <help@mail.desk7.web.app>"),
        ("own_under_other_suffix", "Help <help@example.net>"),
        ("own_under_other_suffix", "Help <help@mail.example.de>"),
        ("own_under_other_suffix", "Help <help@example.co.uk>"),
    ],
)
def test_found_in_the_sender(finding_id: str, sender: str) -> None:
    assert f"domains.{finding_id}" in found(mail(sender, results=PROVEN), "domains")


@pytest.mark.parametrize(
    ("twin_of", "sender"),
    [
        ("lookalike_sender brand_in_sender throwaway_sender", "Help <help@paypal.com>"),
        ("lookalike_sender brand_in_sender", "Help <help@e.netflix.com>"),
        ("lookalike_sender own_under_other_suffix", "Dana <x@example.org>"),
        ("throwaway_sender brand_in_sender", "Wp <a@wordpress.com>"),
        ("throwaway_sender", "Help <help@ddns-guide.net>"),
        ("own_under_other_suffix", "Dana <x@mail.example.org>"),
        ("own_under_other_suffix", "Help <help@exemplary.net>"),
    ],
)
def test_benign_sender(twin_of: str, sender: str) -> None:
    assert found(mail(sender), "domains") == set(), twin_of


def test_a_partner_may_bear_the_name_of_a_brand() -> None:
    partner = SenderHistory(known=True, account_messages=90, correspondents=("dhl-tracking.net",))
    message = mail("Desk <desk@dhl-tracking.net>")
    ids = [
        {one.id for one in brand_in_foreign_domain(prepare(message, own_address=OWN, history=history))}
        for history in (SenderHistory(), partner)
    ]
    assert ids == [{"domains.brand_in_sender"}, set()]


@pytest.mark.parametrize(("own", "abused"), [("dana@ott.de", False), ("dana@otter.de", True)])
def test_a_short_name_of_ones_own_stands_in_many_hosts(own: str, *, abused: bool) -> None:
    host = f"{own.partition('@')[2]}.tide-tables.net"
    prepared = prepare(mail(html=link(host)), own_address=own)
    assert bool(list(own_domain_abused(prepared))) is abused


@pytest.mark.parametrize("twin_of", ["throwaway_sender"])
@pytest.mark.parametrize("sender", ["Dana <dana@desk7.onmicrosoft.com>", "Pia <pia@desk7.ddns.net>"])
def test_members_of_a_list_write_from_anywhere(twin_of: str, sender: str) -> None:
    results = "spf=pass smtp.mailfrom=lists.example.com; dkim=none"
    message = mail(sender, results=results, headers=("List-Id: <tides.lists.example.com>",))
    assert f"domains.{twin_of}" not in found(message)


@pytest.mark.parametrize(
    ("label", "level"),
    [
        ("paypal", Restriction.ASCII),
        ("münchen", Restriction.SINGLE_SCRIPT),
        ("пример", Restriction.SINGLE_SCRIPT),
        ("abc日本ひらカタ", Restriction.HIGHLY_RESTRICTIVE),
        ("한국abc", Restriction.HIGHLY_RESTRICTIVE),
        ("abcไทย", Restriction.MODERATELY_RESTRICTIVE),
        ("pаypal", Restriction.UNRESTRICTED),
        ("googlε", Restriction.UNRESTRICTED),
        ("приветabc日本", Restriction.UNRESTRICTED),
    ],
)
def test_how_far_a_name_mixes_alphabets(label: str, level: Restriction) -> None:
    assert restriction(label) is level


@pytest.mark.parametrize(
    ("left", "right", "most", "count"),
    [
        ("netflix", "netflix", 1, 0),
        ("netflix", "netflxi", 1, 1),
        ("netflix", "netfliix", 1, 1),
        ("netflix", "netlix", 1, 1),
        ("netflix", "metflix", 1, 1),
        ("netflix", "metfliix", 1, None),
        ("netflix", "metfliix", 2, 2),
        ("", "ab", 2, 2),
        ("ab", "", 1, None),
        ("ca", "abc", 3, 3),  # the restricted distance: no part is edited twice
    ],
)
def test_edits(left: str, right: str, most: int, count: int | None) -> None:
    assert edits(left, right, most) == count


@given(st.text(alphabet="abcd", max_size=8), st.text(alphabet="abcd", max_size=8))
def test_edits_agree_with_the_plain_table(left: str, right: str) -> None:
    plain = plain_edits(left, right)
    for most in (1, 2, 3):
        assert edits(left, right, most) == (plain if plain <= most else None)


def plain_edits(left: str, right: str) -> int:
    """Damerau's restricted distance as the textbooks fill it in, without a band."""
    table = [[row + column for column in range(len(right) + 1)] for row in range(len(left) + 1)]
    for row in range(1, len(left) + 1):
        for column in range(1, len(right) + 1):
            change = left[row - 1] != right[column - 1]
            best = min(table[row - 1][column] + 1, table[row][column - 1] + 1, table[row - 1][column - 1] + change)
            if row > 1 and column > 1 and left[row - 1] == right[column - 2] and left[row - 2] == right[column - 1]:
                best = min(best, table[row - 2][column - 2] + 1)
            table[row][column] = best
    return table[len(left)][len(right)]


@given(st.text(max_size=400))
def test_any_host_can_be_looked_at(host: str) -> None:
    for look in (imitated, near_miss, brand_inside, brand_under_other_suffix, mixed_script_label, looks_random):
        look(host)
    imitates(host, "meadow-farm.com")


@pytest.mark.parametrize(
    ("host", "end"),
    [
        ("a.b.web.app", "web.app"),
        ("web.app", "web.app"),
        ("notweb.app", ""),
        ("app", ""),
        ("a." * 100_000 + "web.app", "web.app"),
    ],
)
def test_ends(host: str, end: str) -> None:
    assert ends_in(host, {"web.app", "x.web"}) == end


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("paypal.com", "paypal"),
        ("www.paypal.se", "paypal"),
        ("paypal.co.jp", "paypal"),
        ("hmrc.gov.uk", "hmrc"),
        ("paypal.top", ""),
        ("paypal.tk", ""),
        ("x.github.io", ""),
        ("bucket.s3.amazonaws.com", ""),
        ("paypal.com.tide-tables.net", ""),
        ("localhost", ""),
        ("", ""),
    ],
)
def test_whose_host_it_is(host: str, owner: str) -> None:
    brand = owner_of(host)
    assert (brand.name if brand else "") == owner


@pytest.mark.parametrize(
    "line",
    ["paypal", "paypal |", "| paypal.com", "paypal, | paypal.com", "paypal | a.com | sometimes", "~ | a.com"],
)
def test_a_line_that_is_no_brand(line: str) -> None:
    with pytest.raises(ValueError, match="no brand"):
        read_brands(line)


def test_a_table_of_brands() -> None:
    (one, two) = read_brands("# a\n\nPaypal, ~Pal | paypal.com\n   paypal.de | everywhere\nott | ott.de\n")
    assert (one.name, one.distinctive, one.ambiguous, one.everywhere) == ("paypal", ("paypal",), ("pal",), True)
    assert (one.domains, two.domains) == (("paypal.com", "paypal.de"), ("ott.de",))


def test_the_brands_are_written_cleanly() -> None:
    names = [name for brand in BRANDS for name in brand.names]
    assert [name for name in set(names) if names.count(name) > 1] == []
    for brand in BRANDS:
        for domain in brand.domains:
            assert clean_host(domain) == domain, brand
            assert "." in domain, brand
            assert not is_free_hosting(domain) or domain in ("wordpress.com", "dropbox.com"), brand
        assert owner_of(brand.domains[0]) is not None, brand


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
