"""The names of servers whose Authentication-Results are believed."""

from __future__ import annotations

import pytest

from mailmill.app.believed_server import believed_server
from mailmill.settings import AccountSettings, check_authserv_id


@pytest.mark.parametrize(
    "name",
    [
        "mx.example.org",
        "MX-1.Example.org",
        "*.example.org",
        "microsoft",  # the header that names nobody
        "mailhub-1",
        "atlas101.free.example",
        "mx_in.example.org",
        "mx.bücher.example",
        "xn--bcher-kva.example",
        "203.0.113.9",
    ],
)
def test_names_of_servers(name: str) -> None:
    assert check_authserv_id(name) == check_authserv_id(f"  {name} ") == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "foo bar",
        "mx.example.org;",
        "mx.example.org; spf=pass",
        "mx.example.org:25",
        "https://mx.example.org",
        "dana@example.org",
        "*",
        "*.",
        "*.org",
        "mx.*.org",
        ".example.org",
        "mx..example.org",
        "-mx.example.org",
        "mx.example.org\nX: y",
        "x" * 64,
        "a." * 130 + "a",
    ],
)
def test_what_no_server_is_called(text: str) -> None:
    with pytest.raises(ValueError, match=r"wants a name such as mx\.example\.org"):
        check_authserv_id(text)


def account(host: str, **more: str) -> AccountSettings:
    login = {"username": "me@example.org", "password": "x"}
    return AccountSettings.model_validate({**login, "imap": {"host": host}, **more})


@pytest.mark.parametrize(
    ("host", "believed"),
    [
        ("imap.example.org", "*.example.org"),
        ("mx.mail.example.co.uk", "*.example.co.uk"),
        ("imap.gmail.com", "mx.google.com"),
        ("127.0.0.1", None),
        ("203.0.113.9", None),
        ("::1", None),
        ("2001:db8::25", None),
        ("[2001:db8::25]", None),
        ("fe80::1%eth0", None),
        ("localhost", None),
        ("localhost.localdomain", None),
        ("127.1", None),
        ("mail.local", None),
        ("imap.office.lan", None),
    ],
)
def test_who_is_believed_where_nothing_is_configured(host: str, believed: str | None) -> None:
    assert believed_server(account(host)) == believed


def test_what_is_configured_holds_for_an_address_too() -> None:
    assert believed_server(account("203.0.113.9", authserv_id="mx.example.org")) == "mx.example.org"
