"""Where a link really leads: gateways that wrapped it, redirectors that pass on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmill.processing.threat.evidence.hosts import parse_url
from mailmill.processing.threat.evidence.recipient_marks import carries
from mailmill.processing.threat.evidence.targets import behind_gateways, is_gateway, redirect_target

TARGET = "https://tide-tables.net/a"


def behind(raw: str) -> str:
    url = parse_url(raw)
    assert url is not None
    found = behind_gateways(url)
    return f"{found.scheme}://{found.host}{found.path}"


def passes_on(raw: str, *, generic: bool = False) -> str:
    url = parse_url(raw)
    assert url is not None
    target = redirect_target(url, generic=generic)
    return f"{target.scheme}://{target.host}{target.path}" if target else ""


@pytest.mark.parametrize(
    "wrapped",
    [
        "https://nam02.safelinks.protection.outlook.com/?url=https%3A%2F%2Ftide-tables.net%2Fa&data=05%7C01",
        "https://NAM02.safelinks.protection.outlook.com/ap/x?URL=https%3A%2F%2Ftide-tables.net%2Fa",
        "https://urldefense.proofpoint.com/v1/url?u=https://tide-tables.net/a&k=x",
        "https://urldefense.proofpoint.com/v2/url?u=https-3A__tide-2Dtables.net_a&d=DwMF&c=x",
        "https://urldefense.com/v3/__https://tide-tables.net/a__;!!Abc!x$",
        "https://urldefense.com/v3/__https:/*tide-tables.net/a__;Lw!!Abc!x$",
        "https://linkprotect.cudasvc.com/url?a=https%3a%2f%2ftide-tables.net%2fa&c=E,1,x&typo=1",
        "https://secure-web.cisco.com/1Abc_x/https%3A%2F%2Ftide-tables.net%2Fa",
        "https://eu-central-1.protection.sophos.com/?d=tide-tables.net&u=aHR0cHM6Ly90aWRlLXRhYmxlcy5uZXQvYQ==&i=x",
        "https://url.avanan.click/v2/___https://tide-tables.net/a___.YXAz",
        # one gateway around the other
        "https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Furldefense.com%2Fv3%2F__https%3A%2F%2F"
        "tide-tables.net%2Fa__%3B!!Abc!x%24",
    ],
)
def test_behind_gateways(wrapped: str) -> None:
    assert behind(wrapped) == TARGET


def test_a_run_of_stars() -> None:
    # "**B" stands for three characters of what follows in base64.
    assert behind("https://urldefense.com/v3/__https://tide-tables.net/**B__;Ljo9!!x$") == "https://tide-tables.net/.:="


def test_a_gateway_that_tells_the_domain_alone() -> None:
    assert behind("https://protect-eu.mimecast.com/s/AbcD?domain=tide-tables.net") == "http://tide-tables.net/"


@pytest.mark.parametrize(
    "raw",
    [
        "https://protect-eu.mimecast.com/s/AbcD",
        "https://urldefense.com/v3/x",
        "https://nam02.safelinks.protection.outlook.com/?url=tide",
        "https://url.emailprotection.link/?bAbc",
    ],
)
def test_a_gateway_that_tells_nothing(raw: str) -> None:
    url = parse_url(raw)
    assert url is not None
    assert behind_gateways(url) == url
    assert is_gateway(url)


@pytest.mark.parametrize("raw", ["https://notmimecast.com/s/x?domain=a.net", "https://outlook.com/?url=https://a.net"])
def test_no_gateway(raw: str) -> None:
    url = parse_url(raw)
    assert url is not None
    assert behind_gateways(url) == url
    assert not is_gateway(url)


@pytest.mark.parametrize(
    "raw",
    [
        "https://www.google.com/url?q=https://tide-tables.net/a&sa=D",
        "https://www.google.co.uk/url?sa=t&url=https%3A%2F%2Ftide-tables.net%2Fa",
        "https://www.google.com/amp/s/tide-tables.net/a",
        "https://tide--tables-net.translate.goog/a?_x_tr_sl=auto",
        "https://www.youtube.com/redirect?event=x&q=https%3A%2F%2Ftide-tables.net%2Fa",
        "https://www.bing.com/ck/a?!&&p=x&u=a1aHR0cHM6Ly90aWRlLXRhYmxlcy5uZXQvYQ&ntb=1",
        "https://l.facebook.com/l.php?u=https%3A%2F%2Ftide-tables.net%2Fa&h=AT0",
        "https://www.linkedin.com/redir/redirect?url=https%3A%2F%2Ftide-tables.net%2Fa",
        "https://adclick.g.doubleclick.net/pcs/click?xai=A&adurl=https://tide-tables.net/a",
        "https://web.archive.org/web/2020/https://tide-tables.net/a",
        # a redirector behind another, and double encoding
        "https://www.youtube.com/redirect?q=https%3A%2F%2Fwww.google.com%2Furl%3Fq%3Dhttps%253A%252F%252Ftide-tables.net%252Fa",
        "https://www.google.com/url?q=https%253A%252F%252Ftide-tables.net%252Fa",
    ],
)
def test_redirectors(raw: str) -> None:
    assert passes_on(raw) == TARGET


@pytest.mark.parametrize(
    "raw",
    [
        "https://www.google.com/search?q=tide+tables",
        "https://www.google.com/maps?q=https",
        "https://www.youtube.com/watch?v=x",
        "https://www.linkedin.com/in/lena?url=https://tide-tables.net",
        "https://tide-tables.net/?url=https://a.net",
        "https://www.google.com/url?q=",
        "https://www.google.com/url?q=harbour",
    ],
)
def test_no_redirectors(raw: str) -> None:
    assert passes_on(raw) == ""


def test_any_host_may_name_a_target_where_that_is_asked() -> None:
    assert passes_on("https://gate.net/?next=https%3A%2F%2Ftide-tables.net%2Fa", generic=True) == TARGET
    assert passes_on("https://gate.net/?next=%2Fhome", generic=True) == ""


def test_redirectors_in_a_circle_end() -> None:
    inner = "https://www.google.com/url?q=https://www.google.com/url"
    assert passes_on(inner).startswith("https://www.google.com/url")


@given(st.text(max_size=600))
def test_any_address_can_be_looked_at(text: str) -> None:
    for start in ("https://urldefense.com/v3/__", "https://urldefense.proofpoint.com/v2/url?u=", "https://www.google.com/url?q=",
                  "https://x.translate.goog/", "https://protection.sophos.com/?u=", ""):  # fmt: skip
        url = parse_url(start + text)
        if url is not None:
            behind_gateways(url)
            redirect_target(url, generic=True)


@pytest.mark.parametrize(
    "text",
    [
        "dana@harbour.example.org",
        "e=DANA%40harbour.example.org",
        "%2564ana%40harbour.example.org",
        "/x/ZGFuYUBoYXJib3VyLmV4YW1wbGUub3Jn",
        "u=ZGFuYUBoYXJib3VyLmV4YW1wbGUub3Jn%3D&x",
        "64616e6140686172626f75722e6578616d706c652e6f7267",
        "harbour.example.org/dana",
    ],
)
def test_a_part_that_carries_the_recipient(text: str) -> None:
    assert carries(text, ("a@b.net", "dana@harbour.example.org")) == "dana@harbour.example.org"


@pytest.mark.parametrize("text", ["", "contact", "example.org", "dana", "d4n4", "QUJDREVGR0g=", "@", "%" * 5_000])
def test_a_part_that_carries_nobody(text: str) -> None:
    assert carries(text, ("dana@harbour.example.org", "", "nobody")) == ""


@pytest.mark.parametrize("start", ["/v1/__", "/v2/___", "/v3/__"])
def test_a_wrapping_that_never_ends_is_read_once(start: str) -> None:
    """Each beginning would be read to the end, for every link: a message of them took seconds."""
    starts = parse_url(f"https://urldefense.com{start * 600}")
    assert starts is not None
    assert behind_gateways(starts) == starts
    ends = parse_url(f"https://urldefense.com{start}https://tide-tables.example/x__;!!{start * 500}")
    assert ends is not None
    assert behind_gateways(ends).host == "tide-tables.example"
