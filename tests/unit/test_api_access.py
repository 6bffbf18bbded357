"""Who may look: tokens, links, sessions, hosts and origins."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from mailmill.api.access import (
    LINK_SECONDS,
    SESSION_COOKIE,
    SESSION_SECONDS,
    Access,
    host_name,
    is_loopback,
    same_origin,
)
from mailmill.api.gate import MAX_BODY_BYTES, judge

TOKEN = "tok-0123456789abcdef0123456789abcdef"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> Access:
    return Access(TOKEN, frozenset({"Mill.Example", "192.0.2.7"}), clock=clock)


def test_only_the_token_matches(access: Access) -> None:
    assert access.token_matches(TOKEN)
    for wrong in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\udcff"):
        assert not access.token_matches(wrong)


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(ValueError, match="empty token"):
        Access("")


def test_no_secret_is_kept(access: Access) -> None:
    secrets = {TOKEN, access.new_link_code(), access.new_session()}
    held = repr(vars(access)) + repr([vars(value) for value in vars(access).values() if hasattr(value, "__dict__")])
    assert not [secret for secret in secrets if secret in held]


def test_a_link_works_once(access: Access) -> None:
    code = access.new_link_code()
    assert len(code) >= 43  # 256 bits in base64
    session = access.redeem(code)
    assert session is not None and session != code and access.session_valid(session)
    assert access.redeem(code) is None
    assert access.redeem("unknown") is None


def test_a_link_ends_after_fifteen_minutes(access: Access, clock: Clock) -> None:
    late, in_time = access.new_link_code(), access.new_link_code()
    clock.now += LINK_SECONDS - 1
    assert access.redeem(in_time) is not None
    clock.now += 1
    assert access.redeem(late) is None


def test_a_session_ends_by_time_and_by_signing_out(access: Access, clock: Clock) -> None:
    first, second = access.new_session(), access.new_session()
    access.end_session(first)
    assert not access.session_valid(first)
    assert access.session_valid(second)
    clock.now += SESSION_SECONDS
    assert not access.session_valid(second)


def test_what_callers_make_us_remember_is_bounded(access: Access) -> None:
    codes = [access.new_link_code() for _ in range(500)]
    assert access.redeem(codes[0]) is None, "the oldest gave way"
    assert access.redeem(codes[-1]) is not None


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8025", "localhost"),
        ("localhost.:8025", "localhost"),
        ("127.0.0.1:8025", "127.0.0.1"),
        ("[::1]:8025", "::1"),
        ("", None),
        ("localhost:", None),
        ("user@localhost", None),
        ("localhost:8025/evil", None),
        ("localhost\\@evil.example", None),
        ("::1", None),
        ("a b", None),
    ],
)
def test_host_name(header: str, name: str | None) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "mill.example", "192.0.2.7"])
def test_our_names_are_allowed(access: Access, name: str) -> None:
    assert access.host_allowed(name)


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "192.0.2.8", "0.0.0.0", "mill.example.evil.example"]
)
def test_other_names_are_not(access: Access, name: str) -> None:
    assert not access.host_allowed(name)


def test_listening_everywhere_allows_addresses_but_no_names() -> None:
    everywhere = Access(TOKEN, frozenset({"0.0.0.0"}))
    assert everywhere.host_allowed("192.0.2.8")
    assert everywhere.host_allowed("2001:db8::1")
    assert not everywhere.host_allowed("evil.example")


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:8025", "localhost:8025", True),
        ("https://mill.example", "Mill.Example", True),
        ("http://localhost:9000", "localhost:8025", False),
        ("http://evil.example", "localhost:8025", False),
        ("null", "localhost:8025", False),
        ("file://localhost:8025", "localhost:8025", False),
        ("", "localhost:8025", False),
    ],
)
def test_same_origin(origin: str, host: str, same: bool) -> None:
    assert same_origin(origin, host) is same


@pytest.mark.parametrize(
    ("peer", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False), ("testclient", False)],
)
def test_is_loopback(peer: str, loopback: bool) -> None:
    assert is_loopback(peer) is loopback


# -- the gate's judgement ---------------------------------------------------------------------------------------------

BEARER = {"authorization": f"Bearer {TOKEN}"}


def verdict(
    access: Access, path: str = "/v1/status", method: str = "GET", peer: str = "192.0.2.9", **headers: str
) -> int:
    """The status of the refusal; 0 for none."""
    given = {"host": "localhost:8025"} | {name.replace("_", "-"): value for name, value in headers.items()}
    refusal = judge(access, method=method, path=path, headers=Headers(given), peer=peer)
    return 0 if refusal is None else refusal.status


def cookie(access: Access) -> dict[str, str]:
    return {"cookie": f"other=1; {SESSION_COOKIE}={access.new_session()}"}


def test_the_token_opens(access: Access) -> None:
    assert verdict(access, **BEARER) == 0
    assert verdict(access, authorization=f"bearer  {TOKEN}") == 0


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN])
def test_anything_else_does_not(access: Access, authorization: str) -> None:
    assert verdict(access, authorization=authorization) == 401


def test_a_wrong_token_is_not_saved_by_a_cookie(access: Access) -> None:
    assert verdict(access, authorization="Bearer wrong", **cookie(access)) == 401


@pytest.mark.parametrize(
    "path", ["/", "/v1/status", "/v1/accounts", "/openapi.json", "/metrics", "/logout", "/nothing", "/static"]
)
def test_closed_without_a_token(access: Access, path: str) -> None:
    assert verdict(access, path) == 401


@pytest.mark.parametrize("path", ["/health", "/ready", "/login", "/static/app.css"])
def test_open_without_a_token(access: Access, path: str) -> None:
    assert verdict(access, path) == 0


def test_metrics_are_open_to_this_machine_alone(access: Access) -> None:
    assert verdict(access, "/metrics", peer="127.0.0.1") == 0
    assert verdict(access, "/metrics", peer="192.0.2.9") == 401


@pytest.mark.parametrize(
    "header",
    [
        "forwarded", "via", "x_forwarded_for", "x_forwarded_host", "x_forwarded_proto", "x_real_ip",
        "cf_connecting_ip", "true_client_ip",
    ],
)  # fmt: skip
def test_metrics_that_a_proxy_asks_for_need_the_token(access: Access, header: str) -> None:
    assert verdict(access, "/metrics", peer="127.0.0.1", **{header: "203.0.113.4"}) == 401


@pytest.mark.parametrize("path", ["/health", "/login", "/v1/status"])
def test_a_rebound_name_is_refused_everywhere(access: Access, path: str) -> None:
    assert verdict(access, path, host="evil.example:8025", **BEARER) == 421
    assert verdict(access, path, host="bad host", **BEARER) == 400


def test_two_hosts_are_refused(access: Access) -> None:
    headers = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")])
    refusal = judge(access, method="GET", path="/health", headers=headers, peer=None)
    assert refusal is not None and refusal.status == 400


def test_a_session_opens_for_its_own_page(access: Access) -> None:
    assert verdict(access, **cookie(access)) == 0
    assert verdict(access, sec_fetch_site="same-origin", **cookie(access)) == 0
    assert verdict(access, method="POST", origin="http://localhost:8025", **cookie(access)) == 0
    assert verdict(access, cookie=f"{SESSION_COOKIE}=forged") == 401


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:9000", "null"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_session_is_of_no_use_to_another_page(access: Access, origin: str, method: str) -> None:
    assert verdict(access, method=method, origin=origin, **cookie(access)) == 403


def test_a_session_without_origin_changes_nothing(access: Access) -> None:
    assert verdict(access, method="POST", **cookie(access)) == 403


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_a_page_on_another_port_is_another_page(access: Access, site: str) -> None:
    assert verdict(access, sec_fetch_site=site, **cookie(access)) == 403
    assert verdict(access, "/", sec_fetch_site=site, **cookie(access)) == 0, "following a link to the page is fine"


def test_a_foreign_origin_may_not_post_even_with_the_token(access: Access) -> None:
    assert verdict(access, method="POST", origin="http://evil.example", **BEARER) == 403
    assert verdict(access, "/login", method="POST", origin="http://evil.example") == 403
    assert verdict(access, method="GET", origin="http://evil.example", **BEARER) == 0


def test_a_large_body_is_refused_by_its_announcement(access: Access) -> None:
    assert verdict(access, method="POST", content_length=str(MAX_BODY_BYTES), **BEARER) == 0
    assert verdict(access, method="POST", content_length=str(MAX_BODY_BYTES + 1), **BEARER) == 413
    assert verdict(access, method="POST", content_length="9" * 5000, **BEARER) == 413
