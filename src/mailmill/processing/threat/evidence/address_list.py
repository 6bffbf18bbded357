"""Lists of addresses and domains that the user wrote. Pure; a look-up costs a few steps for each label of a host."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mailmill.processing.threat.evidence.hosts import clean_host, organisation_of, split_host
from mailmill.processing.threat.knowledge.reference import FREE_MAIL

MAX_LABELS = 128

_LOCAL_PART = re.compile(r"[^\s@*<>(),;:\"\\\[\]]{1,64}")


@dataclass(frozen=True, slots=True)
class AddressList:
    """``addresses`` are ``local@domain``, ``domains`` stand for themselves alone, ``wildcards`` for a domain and every
    host in it (written ``*.example.org``). All clean and in lower case."""

    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    wildcards: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.addresses or self.domains or self.wildcards)

    def entry_for(self, address: str) -> str:
        """The entry, as it may be written, that names an address (cleaned, as of a ``Party``); "" for none."""
        if address in self.addresses:
            return address
        return self.entry_for_host(clean_host(address.rpartition("@")[2])) if "@" in address else ""

    def entry_for_host(self, host: str) -> str:
        """The entry that names a clean host; "" for none."""
        if host in self.domains:
            return host
        if self.wildcards:
            labels = host.split(".")[-MAX_LABELS:]
            for start in range(len(labels)):
                domain = ".".join(labels[start:])
                if domain in self.wildcards:
                    return f"*.{domain}"
        return ""


def read_list(entries: Iterable[str]) -> AddressList:
    """The list of ``entries``. Raises ValueError naming one that is neither an address nor a domain."""
    addresses: set[str] = set()
    domains: set[str] = set()
    wildcards: set[str] = set()
    for entry in entries:
        written = entry.strip().lower()
        local, at, host = written.rpartition("@")
        wild = not at and host.startswith("*.")
        domain = clean_host(host.removeprefix("*.") if wild else host)
        plain = bool(domain) and not any(mark in domain for mark in "*[]") and (wild or "." in domain)
        if not plain or (at and not _LOCAL_PART.fullmatch(local)):
            raise ValueError(
                f"{entry!r} is neither an address (x@example.org) nor a domain (example.org, *.example.org)"
            )
        if at:
            addresses.add(f"{local}@{domain}")
        else:
            (wildcards if wild else domains).add(domain)
    return AddressList(frozenset(addresses), frozenset(domains), frozenset(wildcards))


def check_allowed(allowed: AddressList) -> None:
    """Raises ValueError for a domain where anybody can get an address or a name: such a proof proves nothing."""
    for domain in sorted(allowed.domains | allowed.wildcards):
        if domain in FREE_MAIL or organisation_of(domain) in FREE_MAIL:
            raise ValueError(f"{domain!r} is a mail service where anybody can get an address; allow single addresses")
        if split_host(f"a.{domain}")[2] == domain:
            raise ValueError(f"{domain!r} is no single owner's: anybody can register names in it")
