"""The certificates that are trusted: read once, and again when they change."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from mailmill.errors import ConfigurationError
from mailmill.imap.tls import client_context
from servers.tls import make_certificates


def test_a_file_of_authorities_is_read_again_when_another_takes_its_name(tmp_path: Path) -> None:
    """Also with the same date, as a copy that keeps it, or a mounted secret that is swapped, has it."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        make_certificates(folder)
    used = tmp_path / "ca.pem"
    used.write_bytes((first / "ca.pem").read_bytes())
    before = asyncio.run(client_context(str(used)))
    assert asyncio.run(client_context(str(used))) is before
    date = used.stat().st_mtime_ns
    swapped = tmp_path / "swapped.pem"
    swapped.write_bytes((second / "ca.pem").read_bytes())
    os.utime(swapped, ns=(date, date))
    swapped.rename(used)
    after = asyncio.run(client_context(str(used)))
    assert after is not before
    assert after.get_ca_certs() != before.get_ca_certs()


def test_a_file_that_is_gone_is_said_and_taken_when_it_is_back(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    away = made.ca_file.rename(tmp_path / "away.pem")
    with pytest.raises(ConfigurationError):
        asyncio.run(client_context(str(made.ca_file)))
    away.rename(made.ca_file)
    asyncio.run(client_context(str(made.ca_file)))
