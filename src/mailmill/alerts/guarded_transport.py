"""An HTTP transport that calls no address inside our own network (server-side request forgery).

The name is looked up here, every address it has is checked, and the connection goes to an address that was checked, so
a name that changes its address between check and connect (DNS rebinding) gains nothing. Host and TLS stay with the
name.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

import httpx2

from mailmill.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEEP_SECONDS: Final = 30.0
"""How long a checked address is used without asking again; connections outlive it."""

MAX_ADDRESSES: Final = 4

_NAT64: Final = IPv6Network("64:ff9b::/96")
_TEREDO: Final = IPv6Network("2001::/32")


def is_public(address: str) -> bool:
    """Whether an address is one that anybody on the internet could reach; IPv4 within IPv6 is judged as IPv4."""
    try:
        ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = IPv4Address(int(ip) & 0xFFFFFFFF)
        if ip in _TEREDO or (int(ip) >> 32 == 0 and int(ip) > 1):  # tunnels; ::a.b.c.d
            return False
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of ``host``, in the resolver's order. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Wraps ``inner``; raises DeliveryError (permanent) where a name has an address that is not public."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        resolve: Callable[[str, int], Awaitable[list[str]]] = resolve,
        is_allowed: Callable[[str], bool] = is_public,
    ) -> None:
        self._inner = inner
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._checked: dict[tuple[str, int], tuple[float, list[str]]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = await self._addresses(url.host, port)
        body = await request.aread()
        for index, address in enumerate(addresses):
            # The Host header was set from the name when the request was built; SNI and certificate check follow it too.
            direct = httpx2.Request(
                request.method,
                url.copy_with(host=address),
                headers=request.headers,
                content=body,
                extensions={**request.extensions, "sni_hostname": url.host},
            )
            try:
                return await self._inner.handle_async_request(direct)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                self._checked.pop((url.host, port), None)
                if index == len(addresses) - 1:
                    raise
        raise httpx2.ConnectError(f"{url.host} has no address")

    async def _addresses(self, host: str, port: int) -> list[str]:
        now = asyncio.get_running_loop().time()
        known = self._checked.get((host, port))
        if known is not None and now < known[0]:
            return known[1]
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise httpx2.ConnectError(f"{host} cannot be looked up: {error}") from error
        if not all(self._is_allowed(address) for address in addresses):
            raise DeliveryError(
                f"{host} is an address inside a private network, and is not called",
                hint="if it is meant to be there, set allow_private = true on the destination",
                permanent=True,
            )
        addresses = addresses[:MAX_ADDRESSES]
        self._checked[host, port] = (now + KEEP_SECONDS, addresses)
        return addresses

    async def aclose(self) -> None:
        await self._inner.aclose()
