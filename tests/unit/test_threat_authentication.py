"""Family authentication: whose results are believed, and what they say."""

from __future__ import annotations

import pytest
from threat_mail import NOTHING, PROVEN, SERVER, found, mail

from mailmill.message_parser import parse_message
from mailmill.processing.threat.authentication_results import (
    parse_authentication_results,
    read_authentication,
    trusted_results,
)

FAILED = "spf=softfail smtp.mailfrom={d}; dkim=none; dmarc=fail header.from={d}"


def test_a_field_is_read_with_comments_quotes_and_versions() -> None:
    server, results = parse_authentication_results(
        'MX.Example.NET 1 (our (nested) server); spf=pass (a "quoted; word") smtp.mailfrom=bounce@news.example.com;'
        ' dkim/1=pass reason="good; header.d=evil.example" header.d = example.com header.i=@example.com ;'
        " dmarc=PASS header.from=example.com"
    )
    assert server == "mx.example.net"
    assert [(one.method, one.value) for one in results] == [("spf", "pass"), ("dkim", "pass"), ("dmarc", "pass")]
    assert results[1].property("header.d") == "example.com"
    assert results[1].property("reason") == "good; header.d=evil.example"


@pytest.mark.parametrize(
    "field", ["", ";", "mx; none", "mx; ;;; = ; =pass", "(((((", 'mx; "', "mx; spf", "mx;" + "(" * 9000, ";" * 9000]
)
def test_nonsense_gives_no_results_and_no_error(field: str) -> None:
    _, results = parse_authentication_results(field)
    assert all(one.method and one.value is not None for one in results)


def test_only_our_own_server_is_believed() -> None:
    forged = mail(
        results=None, headers=("Authentication-Results: mx.attacker.example; dmarc=pass header.from=meadow-farm.com",)
    )
    assert not read_authentication(forged, SERVER, "meadow-farm.com").known
    assert not read_authentication(mail(results=PROVEN), None, "meadow-farm.com").known


def test_a_forged_field_under_our_name_loses_to_the_one_above_it() -> None:
    message = mail(
        results=FAILED,
        headers=(f"Authentication-Results: {SERVER}; {PROVEN.format(d='meadow-farm.com')}",),
    )
    results = read_authentication(message, SERVER, "meadow-farm.com")
    assert (results.dmarc, results.spf, results.aligned) == ("fail", "softfail", False)


@pytest.mark.parametrize(
    ("results", "aligned"),
    [
        ("dkim=pass header.d=mail.meadow-farm.com", True),
        ("spf=pass smtp.mailfrom=bounce@bounces.meadow-farm.com", True),
        ("dmarc=pass header.from=meadow-farm.com", True),
        ("dkim=fail header.d=meadow-farm.com; spf=pass smtp.mailfrom=elsewhere-mail.net", False),
        ("dkim=pass header.d=other-place.net", False),
        ("dmarc=pass header.from=other-place.net", False),
        ("dmarc=bestguesspass header.from=meadow-farm.com", False),
    ],
)
def test_alignment_is_that_of_organisational_domains(results: str, *, aligned: bool) -> None:
    message = mail(results=results)
    # "example.com" is the organisation here: sub-domains of it align (RFC 9989, relaxed), other domains do not.
    assert read_authentication(message, SERVER, "meadow-farm.com").aligned is aligned


def test_two_customers_of_one_hosting_service_do_not_align() -> None:
    message = mail("A <a@one.github.io>", results="dkim=pass header.d=two.github.io")
    assert not read_authentication(message, SERVER, "one.github.io").aligned


LIST = ("List-Id: Tide tables <tides.lists.example.net>",)
BY_LIST = "spf=pass smtp.mailfrom=lists.example.net; dkim=fail header.d=meadow-farm.com; dmarc=fail header.from={d}"


@pytest.mark.parametrize(
    ("finding_id", "results", "headers"),
    [
        ("dmarc_failed", FAILED, ()),
        ("dmarc_failed", "spf=pass smtp.mailfrom=elsewhere-mail.net; dmarc=fail header.from={d}", ()),
        ("dmarc_failed", BY_LIST.replace("pass", "none"), LIST),
        ("spf_failed", "spf=fail smtp.mailfrom={d}; dkim=none", ()),
        ("spf_failed", "spf=hardfail smtp.mailfrom={d}; dkim=fail header.d={d}", ()),
        ("spf_softfailed", "spf=softfail smtp.mailfrom={d}; dkim=none", ()),
        ("spf_softfailed", None, ("Received-SPF: fail (not permitted) client-ip=192.0.2.1",)),
        ("nothing_passed", NOTHING, ()),
        ("nothing_passed", "spf=permerror smtp.mailfrom={d}; dkim=fail header.d={d}; dmarc=none", ()),
        ("unaligned", "spf=pass smtp.mailfrom=sender.example.net; dkim=none", ()),
        ("unaligned", "dkim=pass header.d=tenant.onmicrosoft.com", ()),
        ("dkim_failed", "dkim=fail header.d={d}", ()),
        ("dkim_failed", "dkim=fail header.d={d}; dkim=fail header.d=esp.example.net; spf=none", ()),
        ("several_senders", PROVEN, ("From: Second <second@other-place.net>",)),
    ],
)
def test_found(finding_id: str, results: str | None, headers: tuple[str, ...]) -> None:
    assert f"authentication.{finding_id}" in found(mail(results=results, headers=headers), "authentication")


@pytest.mark.parametrize(
    ("results", "headers"),
    [
        (PROVEN, ()),
        (BY_LIST, LIST),
        (
            "dkim=pass header.d={d}; spf=fail smtp.mailfrom=forwarder.example.net",
            (),
        ),  # forwarded: the signature survives
        ("dkim=fail header.d=esp.example.net; dkim=pass header.d={d}", ()),
        ("spf=pass smtp.mailfrom=bounces.{d}; dkim=none; dmarc=none", ()),
        (None, ()),
        (None, ("Received-SPF: pass (looks good)",)),
        (None, ("Authentication-Results: mx.attacker.example; dmarc=fail; spf=fail",)),
    ],
)
def test_benign_twin(results: str | None, headers: tuple[str, ...]) -> None:
    assert found(mail(results=results, headers=headers), "authentication") == set()


def test_several_from_addresses_need_a_sender_field() -> None:
    both = "Lena <lena@meadow-farm.com>, Max <max@hill.example.net>"
    assert "authentication.several_senders" in found(mail(both, results=None))
    assert found(mail(both, results=None, headers=("Sender: lena@meadow-farm.com",)), "authentication") == set()


def test_a_passed_received_spf_never_speaks_for_a_message() -> None:
    message = mail(results=None, headers=("Received-SPF: pass (ok)",))
    assert not read_authentication(message, SERVER, "meadow-farm.com").aligned


@pytest.mark.parametrize(
    ("server", "trusted"),
    [
        ("mx.example.org", True),
        ("example.org", True),
        ("mx.example.org.evil.example", False),
        ("badexample.org", False),
    ],
)
def test_a_domain_stands_for_its_hosts_and_for_nobody_else(server: str, trusted: bool) -> None:
    message = parse_message(f"Authentication-Results: {server}; spf=pass\r\nFrom: a@b.example\r\n\r\nx".encode())
    assert bool(trusted_results(message, "*.example.org")) is trusted
