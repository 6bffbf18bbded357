"""The names of servers whose Authentication-Results are believed."""

from __future__ import annotations

import pytest

from mailmill.settings import check_authserv_id


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
