"""DKIM checked by ourselves: what holds, what does not, what a sender cannot make of it. No network: keys are here."""

from __future__ import annotations

import base64
import sys

import dkim
import dns.resolver
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from threat_mail import OWN, SERVER

from mailmill.errors import ConfigurationError
from mailmill.message_parser import parse_message
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.evidence import dkim_check
from mailmill.processing.threat.evidence.authentication_results import Authentication, with_signatures
from mailmill.processing.threat.evidence.dkim_check import DkimCheck

KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)
PUBLIC = base64.b64encode(
    KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
RECORD = f"v=DKIM1; k=rsa; p={PUBLIC}"
RAW = (
    b"From: Lena <lena@meadow-farm.com>\r\nTo: dana@harbour.example.org\r\nSubject: The plan\r\n"
    b"\r\nSee you on Monday.\r\n"
)


def signed(raw: bytes = RAW, *, domain: bytes = b"meadow-farm.com", length: bool = False) -> bytes:
    field: bytes = dkim.sign(raw, b"s1", domain, PRIVATE, include_headers=[b"from", b"to", b"subject"], length=length)
    return field + raw


class Dns:
    """Records by name; counts what is asked."""

    def __init__(self, records: dict[str, str] | None = None) -> None:
        self.records = {"s1._domainkey.meadow-farm.com": RECORD} if records is None else records
        self.asked: list[str] = []

    def __call__(self, name: str, seconds: float) -> str:
        assert 0 < seconds <= dkim_check.QUERY_SECONDS
        self.asked.append(name)
        if name not in self.records:
            raise OSError("the server does not answer")
        return self.records[name]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_signature_that_holds() -> None:
    assert DkimCheck(Dns()).verify(signed()) == ("meadow-farm.com",)


@pytest.mark.parametrize(
    "raw",
    [
        RAW,
        b"",
        b"\r\n\r\n",
        signed().replace(b"Monday", b"Tuesday"),
        signed().replace(b"Lena <", b"Boss <"),
        signed().replace(b"s=s1", b"s=s2"),
        signed().replace(b"bh=", b"bh=AAAA"),
        signed().replace(b"d=meadow-farm.com", b"d="),
        signed(length=True),
        signed(length=True) + b"And a page more.\r\n",
        b"DKIM-Signature: " + b"a" * 9_000 + b"\r\n" + RAW,
        b"DKIM-Signature: v=1; h=from; d=meadow-farm.com; s=s1; bh=; b=\r\n" + RAW,
        signed() + b"x" * dkim_check.MAX_BYTES,
        signed() + b" " * (dkim_check.MAX_BYTES - 2_000),
        signed() + b"\r\n" * 1_000_000 + b"x",
        b"X: a\r\n" + b" b\r\n" * 500_000 + signed(),
    ],
    ids=[
        "none", "empty", "no header", "body changed", "From changed", "no key", "nonsense", "no domain",
        "covers a length", "more than it covers", "endless", "empty values", "too large", "blanks", "lines", "folded",
    ],
)  # fmt: skip
def test_what_does_not_hold_is_no_error(raw: bytes) -> None:
    assert DkimCheck(Dns()).verify(raw) == ()


def test_a_signature_that_leaves_out_from() -> None:
    body = RAW.replace(b"From:", b"Sender: x@meadow-farm.com\r\nFrom:")
    field = signed(body).split(b"From:", 1)[0]
    assert DkimCheck(Dns()).verify(field.replace(b"h=from : to", b"h=to") + RAW) == ()


@pytest.mark.parametrize(
    "record",
    [
        "",
        "v=DKIM1; p=",
        "v=DKIM2; p=AAAA",
        "p=%%%",
        f"v=DKIM1; k=ed25519; p={PUBLIC}",
        "ö",
        RECORD + "; n=" + "x" * 2000,
    ],
)
def test_a_key_that_is_none(record: str) -> None:
    assert DkimCheck(Dns({"s1._domainkey.meadow-farm.com": record})).verify(signed()) == ()


def test_keys_are_remembered_and_misses_for_a_short_time() -> None:
    dns, clock = Dns(), Clock()
    check = DkimCheck(dns, clock=clock)
    for _ in range(3):
        assert check.verify(signed())
    assert len(dns.asked) == 1
    clock.now += dkim_check.CACHE_SECONDS
    assert check.verify(signed())
    assert len(dns.asked) == 2
    gone = Dns({})
    check = DkimCheck(gone, clock=clock)
    for _ in range(3):
        assert check.verify(signed()) == ()
    assert len(gone.asked) == 1
    clock.now += dkim_check.MISS_SECONDS
    gone.records = {"s1._domainkey.meadow-farm.com": RECORD}
    assert check.verify(signed()) == ("meadow-farm.com",)


def test_a_sender_decides_neither_how_many_keys_are_asked_for_nor_how_long() -> None:
    raw = RAW
    for number in range(40):
        raw = signed(RAW, domain=f"d{number}.meadow-farm.com".encode()).removesuffix(RAW) + raw
    dns = Dns({})
    DkimCheck(dns).verify(raw)
    assert len(dns.asked) == dkim_check.MAX_SIGNATURES

    clock = Clock()

    def slow(_name: str, _seconds: float) -> str:
        clock.now += 3.0
        raise OSError

    DkimCheck(slow, clock=clock).verify(raw)
    assert clock.now - 100.0 <= dkim_check.TOTAL_SECONDS + 3.0


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dkim", None)
    with pytest.raises(ConfigurationError) as refused:
        DkimCheck(Dns())
    assert "mailmill[dkim]" in refused.value.hint


def test_without_a_server_to_ask_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> None:
        raise dns.resolver.NoResolverConfiguration("cannot open /etc/resolv.conf")

    monkeypatch.setattr(dns.resolver, "Resolver", nowhere)
    with pytest.raises(ConfigurationError, match=r"cannot be checked: .*resolv\.conf"):
        DkimCheck()


# -- what it is worth -------------------------------------------------------------------------------------------------


def test_it_authenticates_where_the_server_says_nothing() -> None:
    context = prepare(parse_message(RAW), own_address=OWN, authserv_id=None, signatures=("mail.meadow-farm.com",))
    assert context.authenticated
    other = prepare(parse_message(RAW), own_address=OWN, authserv_id=SERVER, signatures=("tide-tables.net",))
    assert not other.authenticated
    assert other.relations == {"tide-tables.net"}


def test_it_does_not_outdo_what_the_server_refused() -> None:
    refused = Authentication(known=True, dmarc="fail")
    assert not with_signatures(refused, ["meadow-farm.com"], "meadow-farm.com").aligned
    assert with_signatures(refused, [], "meadow-farm.com") is refused
