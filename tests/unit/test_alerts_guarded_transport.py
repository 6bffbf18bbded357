"""No call into our own network, also not through a name that changes its mind."""

from __future__ import annotations

import httpx2
import pytest

from mailmill.alerts.guarded_transport import GuardedTransport, is_public
from mailmill.errors import DeliveryError


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "239.255.255.250", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001::1",
        "::7f00:1", "not an address", "",
    ],
)  # fmt: skip
def test_inside(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_outside(address: str) -> None:
    assert is_public(address)


class Inner(httpx2.AsyncBaseTransport):
    """Remembers where it was sent; ``down`` addresses refuse the connection."""

    def __init__(self, *down: str) -> None:
        self.requests: list[httpx2.Request] = []
        self.down = down

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.host in self.down:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(204)

    @property
    def hosts(self) -> list[str]:
        return [request.url.host for request in self.requests]


class Names:
    """A resolver whose answer changes with each look-up; the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def post(transport: httpx2.AsyncBaseTransport, url: str = "https://hook.example/a?b=c") -> httpx2.Response:
    async with httpx2.AsyncClient(transport=transport) as client:
        return await client.post(url, content=b"{}")


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    inner = Inner()
    await post(GuardedTransport(inner, Names(["93.184.216.34"])))
    request = inner.requests[0]
    assert str(request.url) == "https://93.184.216.34/a?b=c"
    assert request.headers["host"] == "hook.example"
    assert request.extensions["sni_hostname"] == "hook.example"
    assert await request.aread() == b"{}"


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::1", "93.184.216.34"]])
async def test_one_inside_address_is_enough_to_refuse(addresses: list[str]) -> None:
    inner = Inner()
    with pytest.raises(DeliveryError) as refused:
        await post(GuardedTransport(inner, Names(addresses)))
    assert refused.value.permanent
    assert "allow_private" in refused.value.hint
    assert inner.requests == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "0x7f.1", "2130706433"])
async def test_ways_to_write_loopback(host: str) -> None:
    """With the real resolver: it is the address that is judged, never how it was written."""
    inner = Inner()
    with pytest.raises((DeliveryError, httpx2.ConnectError)):
        await post(GuardedTransport(inner), f"http://{host}:8025/hook")
    assert inner.requests == []


async def test_a_name_that_moves_inside_is_asked_again_after_a_failure_and_refused() -> None:
    names = Names(["93.184.216.34"], ["127.0.0.1"])
    inner = Inner("93.184.216.34")
    guarded = GuardedTransport(inner, names)
    with pytest.raises(httpx2.ConnectError):
        await guarded.handle_async_request(httpx2.Request("POST", "http://hook.example/", content=b""))
    with pytest.raises(DeliveryError):
        await guarded.handle_async_request(httpx2.Request("POST", "http://hook.example/", content=b""))
    assert inner.hosts == ["93.184.216.34"]


async def test_the_next_address_is_tried() -> None:
    inner = Inner("93.184.216.34")
    response = await post(GuardedTransport(inner, Names(["93.184.216.34", "93.184.216.35"])))
    assert response.status_code == 204
    assert inner.hosts == ["93.184.216.34", "93.184.216.35"]


async def test_a_name_is_not_asked_for_each_request() -> None:
    names = Names(["93.184.216.34"])
    guarded = GuardedTransport(Inner(), names)
    for _ in range(3):
        await guarded.handle_async_request(httpx2.Request("POST", "http://hook.example/", content=b""))
    assert names.asked == 1


async def test_a_name_that_is_not_there() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(httpx2.ConnectError, match="cannot be looked up"):
        await post(GuardedTransport(Inner(), resolve))
