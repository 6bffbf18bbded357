"""Which login, what a refusal means, who is spoken to in the clear, what is known of providers."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path

import pytest

from mailmill.errors import (
    ArgumentError,
    AuthenticationError,
    CertificateError,
    CommandError,
    ConfigurationError,
    ConnectError,
    InsecureError,
)
from mailmill.imap import auth, providers, tls
from mailmill.imap.commands import encode
from mailmill.imap.responses import Tagged
from mailmill.model import Credentials, Endpoint, Tls

ME = Credentials("me@example.org", "p\r\nass wörd")


def test_sasl_plain_carries_any_password():
    login = auth.choose(ME, frozenset({"AUTH=PLAIN", "SASL-IR"}), encrypted=True)
    [line] = encode("A1", login.command)
    verb, mechanism, token = line.split()[1:]
    assert (verb, mechanism) == (b"AUTHENTICATE", b"PLAIN")
    assert base64.b64decode(token) == b"\0me@example.org\0p\r\nass w\xc3\xb6rd"
    assert login.answer is None


def test_without_sasl_ir_the_token_waits_for_the_server():
    login = auth.choose(ME, frozenset({"AUTH=PLAIN"}), encrypted=True)
    assert encode("A1", login.command) == [b"A1 AUTHENTICATE PLAIN\r\n"]
    assert login.answer is not None
    assert login.answer.decode() not in repr(login)


def test_login_where_there_is_no_sasl():
    plain = Credentials("me", 'quo"te\\')
    assert encode("A1", auth.choose(plain, frozenset(), encrypted=True).command) == [
        b'A1 LOGIN "me" "quo\\"te\\\\"\r\n'
    ]
    with pytest.raises(ArgumentError):
        auth.choose(ME, frozenset(), encrypted=True)
    with pytest.raises(ArgumentError):
        auth.choose(Credentials("me", "nul\0"), frozenset({"AUTH=PLAIN"}), encrypted=True)


def test_logindisabled_is_respected():
    with pytest.raises(AuthenticationError, match="no password login"):
        auth.choose(ME, frozenset({"LOGINDISABLED", "AUTH=XOAUTH2"}), encrypted=True)
    with pytest.raises(InsecureError):
        auth.choose(ME, frozenset({"LOGINDISABLED"}), encrypted=False)


@pytest.mark.parametrize("code", ["AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "", "ALERT"])
def test_a_refusal_is_about_the_credentials(code: str):
    error = auth.refusal(Tagged("A1", "NO", code, "", "no"), "LOGIN", ME, providers.GENERIC)
    assert isinstance(error, AuthenticationError)
    assert (error.server_code, error.server_text) == (code, "no")


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "THROTTLED"])
def test_a_refusal_for_now_is_not(code: str):
    error = auth.refusal(Tagged("A1", "NO", code, "", "later"), "LOGIN", ME, providers.GENERIC)
    assert isinstance(error, CommandError)
    assert error.response_code == code


def test_a_providers_own_words_for_later():
    tagged = Tagged("A1", "NO", "ALERT", "", "Too many simultaneous connections. (Failure)")
    gmail = providers.lookup("imap.gmail.com")
    assert isinstance(auth.refusal(tagged, "LOGIN", ME, gmail), CommandError)
    assert isinstance(auth.refusal(tagged, "LOGIN", ME, providers.GENERIC), AuthenticationError)


def test_a_server_that_echoes_the_password_does_not_bring_it_into_errors():
    me = Credentials("me", "hunter2")
    token = base64.b64encode(b"\0me\0hunter2").decode()
    error = auth.refusal(
        Tagged("A1", "BAD", "", "", f"unknown: LOGIN me hunter2 {token}"), "LOGIN", me, providers.GENERIC
    )
    assert isinstance(error, AuthenticationError)
    for text in (str(error), error.hint, error.server_text, repr(error), repr(me)):
        assert "hunter2" not in text
        assert token not in text


# -- plain text and certificates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["imap.example.org", "192.0.2.1", "127.evil.example", "2001:db8::1", "localhost.example"]
)
def test_plain_text_leaves_this_machine_only_where_allowed(host: str):
    with pytest.raises(InsecureError, match="unencrypted"):
        tls.refuse_plain_text(Endpoint(host, 143, Tls.NONE))
    tls.refuse_plain_text(Endpoint(host, 143, Tls.NONE, allow_insecure=True))
    tls.refuse_plain_text(Endpoint(host, 143, Tls.STARTTLS))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST.", "mail.localhost"])
def test_plain_text_on_this_machine(host: str):
    tls.refuse_plain_text(Endpoint(host, 143, Tls.NONE))


def test_a_certificate_failure_names_host_and_remedy():
    error = ssl.SSLCertVerificationError("x")
    error.verify_message = "self-signed certificate"
    failure = tls.connect_failure(Endpoint("imap.example.org", 993), error)
    assert isinstance(failure, CertificateError)
    assert "imap.example.org:993" in str(failure)
    assert "self-signed" in str(failure)
    assert "ca_file" in failure.hint


def test_tls_to_a_plain_port_names_the_setting():
    failure = tls.connect_failure(Endpoint("imap.example.org", 143), ssl.SSLError(1, "wrong version number"))
    assert type(failure) is ConnectError
    assert "tls" in failure.hint


async def test_a_ca_file_that_is_none(tmp_path: Path):
    await asyncio.to_thread((tmp_path / "ca.pem").write_text, "no certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(ConfigurationError, match=name) as caught:
            await tls.client_context(str(tmp_path / name))
        assert caught.value.key == "ca_file"


async def test_the_context_verifies_and_is_shared():
    context = await tls.client_context(None)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert await tls.client_context(None) is context


# -- providers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("imap.gmail.com", "gmail"),
        ("IMAP.GMAIL.COM.", "gmail"),
        ("outlook.office365.com", "microsoft365"),
        ("imap.gmx.net", "gmx"),
        ("imap.mail.yahoo.com", "yahoo"),
        ("notgmail.com", "generic"),
        ("gmail.com.evil.example", "generic"),
    ],
)
def test_providers_by_host(host: str, name: str):
    assert providers.lookup(host).name == name


def test_providers_by_what_they_say():
    assert providers.lookup("mail.corp.example", greeting="Gimap ready for requests").name == "gmail"
    assert providers.lookup("x", server_id={"name": "Microsoft.Exchange.Imap4.Imap4Server"}).name == "microsoft365"


def test_every_provider_is_probed_before_rfc_2177s_limit():
    assert all(0 < provider.idle_probe_seconds < 29 * 60 for provider in providers.PROVIDERS)
    assert providers.GENERIC.idle_probe_seconds == 540
    assert providers.lookup("imap.gmail.com").idle_probe_seconds == 270
    assert providers.lookup("imap.gmail.com").max_connections == 15
