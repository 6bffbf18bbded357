"""Family authentication: whose results are believed, and what they say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from threat_mail import NOTHING, PROVEN, SERVER, context, found, mail

from mailmill.message_parser import parse_message
from mailmill.processing.threat.evidence.authentication_results import (
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
        ("spf_failed", "spf=fail smtp.mailfrom=elsewhere-mail.net; dkim=none; dmarc=none", ()),
        ("spf_failed", "spf=hardfail smtp.mailfrom={d}; dkim=fail header.d={d}", ()),
        ("spf_softfailed", "spf=softfail smtp.mailfrom={d}; dkim=none", ()),
        ("spf_softfailed", None, ("Received-SPF: softfail (not permitted) client-ip=192.0.2.1",)),
        ("spf_softfailed", None, ("Received-SPF: fail (not permitted) client-ip=192.0.2.1",)),
        ("nothing_passed", NOTHING, ()),
        ("nothing_passed", "spf=neutral smtp.mailfrom={d}; dkim=none; dmarc=fail", ()),
        ("nothing_passed", "spf=permerror smtp.mailfrom={d}; dkim=fail header.d={d}; dmarc=none", ()),
        ("unaligned", "spf=pass smtp.mailfrom=sender.example.net; dkim=none", ()),
        ("unaligned", "spf=none smtp.mailfrom={d}; dkim=pass header.d=other-place.net; dmarc=none", ()),
        ("unaligned", "dkim=pass header.d=tenant.onmicrosoft.com", ()),
        ("dkim_failed", "dkim=fail header.d={d}", ()),
        ("dkim_failed", "spf=none smtp.mailfrom={d}; dkim=fail (body hash did not verify) header.d={d}", ()),
        ("dkim_failed", "dkim=fail header.d={d}; dkim=fail header.d=esp.example.net; spf=none", ()),
        ("several_senders", PROVEN, ("From: Second <second@other-place.net>",)),
        ("several_senders", PROVEN, ("From: Lena Ott <lena@meadow-farm.com>",)),
    ],
)
def test_found(finding_id: str, results: str | None, headers: tuple[str, ...]) -> None:
    assert f"authentication.{finding_id}" in found(mail(results=results, headers=headers), "authentication")


@pytest.mark.parametrize(
    ("twin_of", "results", "headers"),
    [
        ("dmarc_failed spf_failed nothing_passed", PROVEN, ()),
        ("dmarc_failed dkim_failed unaligned nothing_passed dmarc_unenforced", BY_LIST, LIST),
        (
            "spf_failed spf_softfailed",
            "dkim=pass header.d={d}; spf=fail smtp.mailfrom=forwarder.example.net",
            (),
        ),  # forwarded: the signature survives
        ("dkim_failed unaligned", "dkim=fail header.d=esp.example.net; dkim=pass header.d={d}", ()),
        ("nothing_passed unaligned", "spf=pass smtp.mailfrom=bounces.{d}; dkim=none; dmarc=none", ()),
        ("nothing_passed spf_softfailed dmarc_failed", None, ()),
        ("spf_softfailed", None, ("Received-SPF: pass (looks good)",)),
        (
            "dmarc_failed spf_failed dmarc_unenforced",
            None,
            ("Authentication-Results: mx.attacker.example; dmarc=fail; spf=fail",),
        ),
        ("dkim_failed", "dkim=temperror header.d={d}; spf=pass smtp.mailfrom={d}", ()),
        ("dmarc_unenforced", "spf=pass smtp.mailfrom={d}; dmarc=pass (p=none) header.from={d}", ()),
        ("unaligned", "spf=pass smtp.mailfrom=desk.example.net; dmarc=pass header.from=desk.example.net", ()),
        ("several_senders", PROVEN, ("Sender: Pia <pia@elsewhere.example>",)),
        ("several_senders", PROVEN, ("Reply-To: Max <max@hill.example.net>", "X-From: <second@elsewhere.example>")),
    ],
)
def test_benign_twin(twin_of: str, results: str | None, headers: tuple[str, ...]) -> None:
    assert found(mail(results=results, headers=headers), "authentication") == set(), twin_of


BOTH = "Lena <lena@meadow-farm.com>, Max <max@hill.example.net>"


@pytest.mark.parametrize("twin_of", ["nothing_passed"])
@pytest.mark.parametrize(
    "results",
    [
        "spf=pass; dkim=none; dmarc=none",  # of a domain that the server does not name
        "spf=none; dkim=pass (2048-bit key); dmarc=none",
        "spf=fail smtp.mailfrom={d}; dkim=pass header.d=desk.example.net; dmarc=fail",
    ],
)
def test_something_passed(twin_of: str, results: str) -> None:
    assert f"authentication.{twin_of}" not in found(mail(results=results))


@pytest.mark.parametrize("finding_id", ["several_senders"])
@pytest.mark.parametrize("sender", [BOTH, "Lena <lena@meadow-farm.com>, x@elsewhere.example, y@elsewhere.example"])
def test_several_from_addresses_need_a_sender_field(finding_id: str, sender: str) -> None:
    assert f"authentication.{finding_id}" in found(mail(sender, results=None))


@pytest.mark.parametrize(
    ("twin_of", "sender", "headers"),
    [
        ("several_senders", BOTH, ("Sender: lena@meadow-farm.com",)),
        ("several_senders", "Lena <lena@meadow-farm.com>, Pia <pia@news.meadow-farm.com>", ()),
        ("several_senders", "Lena <lena@meadow-farm.com>, Crew: ;", ()),
    ],
)
def test_several_who_write_together(twin_of: str, sender: str, headers: tuple[str, ...]) -> None:
    assert found(mail(sender, results=None, headers=headers), "authentication") == set(), twin_of


def test_a_signature_broken_on_its_way_is_not_the_absence_of_all_proof() -> None:
    assert found(mail(results="dkim=fail header.d={d}"), "authentication") == {"authentication.dkim_failed"}


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


# -- who is believed --------------------------------------------------------------------------------------------------

OURS = f"Authentication-Results: {SERVER}; "
OTHERS = "Authentication-Results: mx.attacker.example; spf=pass smtp.mailfrom=meadow-farm.com"


@pytest.mark.parametrize(
    ("fields", "aligned"),
    [
        ((OURS + "spf=pass smtp.mailfrom=meadow-farm.com",), True),
        # several filters of one server write a field each
        ((OURS + "dmarc=pass header.from=meadow-farm.com", OURS + "dkim=pass header.d=meadow-farm.com"), True),
        # a later hop of another name may stand above
        ((OTHERS, OURS + "dkim=pass header.d=meadow-farm.com"), True),
        # below what came from elsewhere, our name is a forgery
        ((OURS + "spf=none", OTHERS, OURS + "dkim=pass header.d=meadow-farm.com"), False),
        ((OURS + "spf=none", OTHERS, OURS + "dmarc=pass header.from=meadow-farm.com"), False),
        # right below our own, it contradicts that
        ((OURS + "dmarc=fail header.from=meadow-farm.com", OURS + "dkim=pass header.d=meadow-farm.com"), False),
        (
            (
                OURS + "spf=fail smtp.mailfrom=tide-tables.net; dkim=fail header.d=tide-tables.net",
                OURS + "dmarc=pass header.from=meadow-farm.com",
            ),
            False,
        ),
    ],
)
def test_only_the_topmost_run_of_our_own_is_believed(fields: tuple[str, ...], *, aligned: bool) -> None:
    message = mail(results=None, headers=fields)
    assert read_authentication(message, SERVER, "meadow-farm.com").aligned is aligned


def test_a_dmarc_pass_beside_a_signature_without_domain_is_believed() -> None:
    message = mail(results="spf=none; dkim=pass (2048-bit key); dmarc=pass header.from=meadow-farm.com")
    assert read_authentication(message, SERVER, "meadow-farm.com").aligned


MICROSOFT = (
    "Authentication-Results: spf={spf} (sender IP is 192.0.2.7)\r\n smtp.mailfrom={domain}; dkim={dkim} (signature was"
    " verified)\r\n header.d={domain};dmarc={dmarc} action={action}\r\n header.from=meadow-farm.com;"
    "compauth={compauth} reason=100"
)


def microsoft(*above: str, domain: str = "meadow-farm.com", action: str = "none", **results: str) -> bytes:
    given = {"spf": "pass", "dkim": "pass", "dmarc": "pass", "compauth": "pass"} | results
    field = MICROSOFT.format(domain=domain, action=action, **given)
    return "\r\n".join((*above, field, "From: Lena <lena@meadow-farm.com>", "", "x")).encode()


def test_exchange_online_names_no_server() -> None:
    results = read_authentication(parse_message(microsoft()), "microsoft", "meadow-farm.com")
    assert (results.known, results.spf, results.dmarc, results.compauth) == (True, "pass", "pass", "pass")
    assert (results.aligned, results.dkim) == (True, (("pass", "meadow-farm.com"),))
    assert read_authentication(parse_message(microsoft()), SERVER, "meadow-farm.com").known is False


@pytest.mark.parametrize(
    ("raw", "aligned", "policy"),
    [
        (microsoft(dmarc="bestguesspass"), True, "none"),  # by what it rests on
        (microsoft(dmarc="bestguesspass", domain="tide-tables.net"), False, "none"),
        (microsoft(spf="fail", dkim="none", dmarc="fail", action="oreject", compauth="fail"), False, "reject"),
        (microsoft(spf="none", dkim="none", dmarc="none", compauth="none"), False, "none"),
    ],
)
def test_what_exchange_online_says(raw: bytes, policy: str, *, aligned: bool) -> None:
    results = read_authentication(parse_message(raw), "microsoft", "meadow-farm.com")
    assert (results.aligned, results.dmarc_policy) == (aligned, policy)


@pytest.mark.parametrize(
    "above",
    [
        f"Authentication-Results: {SERVER}; spf=fail smtp.mailfrom=meadow-farm.com",
        "Authentication-Results: spf=none smtp.mailfrom=tide-tables.net; dkim=none; dmarc=none",
    ],
)
def test_a_nameless_field_that_is_not_the_topmost_is_not_believed(above: str) -> None:
    results = read_authentication(parse_message(microsoft(above)), "microsoft", "meadow-farm.com")
    assert not results.aligned


# -- forwarders -------------------------------------------------------------------------------------------------------

FORWARDED = (
    "arc={arc} (i=1); spf=pass smtp.mailfrom=hill.example.net; dkim=fail header.d={d}; dmarc=fail header.from={d}"
)
SAW = (
    "ARC-Authentication-Results: i=1; mx.google.com; dkim=pass header.i=@meadow-farm.com;"
    " dmarc={dmarc} header.from=meadow-farm.com"
)
SEAL = "ARC-Seal: i=1; a=rsa-sha256; t=1700000000; cv=none; d={d}; s=arc; b=AAAA"


def forwarded(arc: str = "pass", sealer: str = "google.com", saw: str = "pass", more: tuple[str, ...] = ()) -> set[str]:
    headers = (*more, SEAL.format(d=sealer), SAW.format(dmarc=saw))
    return found(mail(results=FORWARDED.replace("{arc}", arc), headers=headers), "authentication")


def test_a_known_forwarder_explains_a_failure() -> None:
    assert forwarded() == set()
    results = read_authentication(
        mail(
            results=FORWARDED.replace("{arc}", "pass"), headers=(SEAL.format(d="google.com"), SAW.format(dmarc="pass"))
        ),
        SERVER,
        "meadow-farm.com",
    )
    assert results.forwarded
    assert not results.aligned, "who forwards can change what it forwards"


@pytest.mark.parametrize(
    "findings",
    [
        lambda: forwarded(arc="fail"),
        lambda: forwarded(sealer="tide-tables.net"),
        lambda: forwarded(saw="fail"),
        lambda: forwarded(more=(SEAL.format(d="tide-tables.net").replace("i=1", "i=2"),)),
        lambda: forwarded(more=(SEAL.format(d="google.com"),)),
        lambda: forwarded(more=(SEAL.format(d="google.com").replace("i=1", "i=x"),)),
    ],
    ids=["chain broken", "unknown sealer", "it failed there too", "an unknown one after", "sealed twice", "no number"],
)
def test_a_chain_that_explains_nothing(findings: Callable[[], set[str]]) -> None:
    assert "authentication.dmarc_failed" in findings()


# -- policies, and domains that are nobody's --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dmarc", "finding_id"),
    [
        ("dmarc=fail (p=REJECT sp=REJECT dis=NONE) header.from={d}", "dmarc_failed"),
        ("dmarc=fail(p=quarantine,sp=none) header.from={d}", "dmarc_failed"),
        ("dmarc=fail header.from={d}", "dmarc_failed"),
        ("dmarc=fail policy.dmarc=none header.from={d}", "dmarc_unenforced"),
        ("dmarc=fail (p=none dis=none) header.from={d}", "dmarc_unenforced"),
        ("dmarc=fail action=none header.from={d}", "dmarc_unenforced"),
    ],
)
def test_what_the_domain_asks_for(dmarc: str, finding_id: str) -> None:
    ids = found(mail(results=f"spf=none; dkim=none; {dmarc}"), "authentication")
    assert {one for one in ids if "dmarc" in one} == {f"authentication.{finding_id}"}


@pytest.mark.parametrize("finding_id", ["public_suffix"])
@pytest.mark.parametrize("domain", ["co.uk", "com.br", "com"])
def test_a_public_suffix_sends_no_mail(finding_id: str, domain: str) -> None:
    assert f"authentication.{finding_id}" in found(mail(f"Lena <lena@{domain}>", results=NOTHING))


@pytest.mark.parametrize("twin_of", ["public_suffix"])
@pytest.mark.parametrize("domain", ["github.io", "gov.uk", "meadow-farm.co.uk", "localhost"])
def test_who_has_a_domain_sends_mail(twin_of: str, domain: str) -> None:
    assert f"authentication.{twin_of}" not in found(mail(f"Lena <lena@{domain}>", results=NOTHING))


@pytest.mark.parametrize("finding_id", ["composite_failed"])
@pytest.mark.parametrize(
    "results",
    [
        NOTHING,
        "spf=pass smtp.mailfrom=other-place.net; dkim=none; dmarc=none",
        "spf=softfail smtp.mailfrom={d}; dkim=fail header.d={d}; dmarc=fail",
    ],
)
def test_exchange_online_takes_it_for_a_forgery(finding_id: str, results: str) -> None:
    assert f"authentication.{finding_id}" in found(mail(results=results + "; compauth=fail reason=001"))


@pytest.mark.parametrize("twin_of", ["composite_failed"])
@pytest.mark.parametrize(
    ("results", "headers"),
    [
        (NOTHING + "; compauth=none reason=405", ()),
        (NOTHING + "; compauth=softpass reason=202", ()),
        (PROVEN + "; compauth=fail reason=001", ()),
        (BY_LIST + "; compauth=fail reason=001", LIST),
    ],
)
def test_exchange_online_does_not_take_it_for_a_forgery(twin_of: str, results: str, headers: tuple[str, ...]) -> None:
    assert f"authentication.{twin_of}" not in found(mail(results=results, headers=headers))


@pytest.mark.parametrize(
    ("sender", "headers", "results", "aligned"),
    [
        ("Lena <lena@meadow-farm.com>", ("From: x@elsewhere.example",), "dmarc=pass", False),
        ("Lena <lena@meadow-farm.com>, x@elsewhere.example", (), "dmarc=pass", False),
        ("Lena <lena@meadow-farm.com>", (), "dmarc=pass", True),
        ("Lena Ott, <lena@meadow-farm.com>", (), "dmarc=pass", True),
        ("Lena <lena@meadow-farm.com>, x@elsewhere.example", (), "dmarc=pass header.from=meadow-farm.com", True),
        ("Lena <lena@meadow-farm.com>, x@elsewhere.example", (), "dmarc=pass header.from=elsewhere.example", False),
    ],
)
def test_a_pass_that_names_nobody_proves_none_of_several_senders(
    sender: str, headers: tuple[str, ...], results: str, aligned: bool
) -> None:
    assert context(mail(sender, results=results, headers=headers)).authenticated is aligned


def test_what_dmarc_says_is_told_once() -> None:
    results = "spf=pass smtp.mailfrom=forwarder.example.net; dmarc=fail (p=reject) header.from={d}"
    assert found(mail(results=results), "authentication") == {"authentication.dmarc_failed"}
