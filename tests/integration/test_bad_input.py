"""What people get wrong: one clear line that names the thing and the remedy, the right exit code, nothing lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import small_disk
from harness.service import Finished, mailmill
from servers.dovecot import Dovecot
from servers.ports import free_ports

pytestmark = pytest.mark.children_only


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Path]:
    def write(imap: str, *, user: str = "ann", password: str = "x", service: str = "") -> Path:
        path = tmp_path / "config.toml"
        path.write_text(
            f'[service]\ndata_dir = "data"\nlisten = "127.0.0.1:0"\n{service}\n'
            f'[accounts.work]\nusername = "{user}"\npassword = "{password}"\nimap = {{ {imap} }}\n'
        )
        path.chmod(0o600)
        return path

    return write


def only_error(result: Finished, *words: str) -> None:
    """Exactly one ``error:`` line, with these words in it or in its hint, and no traceback."""
    lines = [line for line in result.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


async def test_a_broken_file(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[service\ndata_dir = 3\n")
    result = await mailmill(config, "sync")
    assert result.code == 2
    only_error(result, str(config), "line 1")


async def test_an_unknown_key(configure: Callable[..., Path]) -> None:
    config = configure('host = "127.0.0.1", prot = 993')
    result = await mailmill(config, "sync")
    assert result.code == 2
    only_error(result, "accounts.work.imap.prot", "port")


async def test_a_host_that_does_not_answer(configure: Callable[..., Path]) -> None:
    [port] = free_ports(1)
    config = configure(f'host = "127.0.0.1", port = {port}, tls = "none"')
    result = await mailmill(config, "sync", "--json")
    assert result.code == 5
    error = result.json()["accounts"][0]["error"]
    assert error["code"] == "connect"
    assert str(port) in error["message"]
    assert error["hint"]


async def test_a_host_that_does_not_exist(configure: Callable[..., Path]) -> None:
    config = configure('host = "no-such-host.invalid"')
    result = await mailmill(config, "account", "check", "work", "--json")
    assert result.code == 5
    assert "no-such-host.invalid" in result.json()["error"]["message"]


async def test_a_wrong_password(dovecot: Dovecot, mail_user: str, configure: Callable[..., Path]) -> None:
    imap = f'host = "127.0.0.1", port = {dovecot.port}, tls = "none"'
    config = configure(imap, user=mail_user, password="wrong-secret")
    for command in (("sync", "--json"), ("account", "check", "work", "--json")):
        result = await mailmill(config, *command)
        assert result.code == 4, result.err
        assert "wrong-secret" not in result.out + result.err
    right = configure(imap, user=mail_user)
    assert (await mailmill(right, "sync")).code == 0


async def test_an_untrusted_certificate(dovecot: Dovecot, mail_user: str, configure: Callable[..., Path]) -> None:
    result = await mailmill(
        configure(f'host = "localhost", port = {dovecot.tls_port}', user=mail_user), "sync", "--json"
    )
    assert result.code == 1
    error = result.json()["accounts"][0]["error"]
    assert error["code"] == "certificate"
    assert "localhost" in error["message"]
    assert "ca_file" in error["hint"]
    trusted = configure(f'host = "localhost", port = {dovecot.tls_port}, ca_file = "{dovecot.ca_file}"', user=mail_user)
    assert (await mailmill(trusted, "sync")).code == 0


async def test_plain_text_to_another_machine_is_refused(configure: Callable[..., Path]) -> None:
    result = await mailmill(configure('host = "mail.example.org", tls = "none"'), "sync")
    assert result.code == 2
    only_error(result, "accounts.work.imap.tls", "allow_insecure")


async def test_the_master_key(dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path) -> None:
    await dovecot.append(mail_user, "INBOX", b"Subject: kept\r\n\r\nbody\r\n")
    config = configure(f'host = "127.0.0.1", port = {dovecot.port}, tls = "none"', user=mail_user)
    assert (await mailmill(config, "sync")).code == 0
    key = tmp_path / "data/master.key"
    assert key.stat().st_mode & 0o777 == 0o600
    kept = key.read_text()
    key.unlink()
    result = await mailmill(config, "sync")
    assert result.code == 2
    only_error(result, "master key is missing", "backup")
    assert not key.exists()
    other = "A" * 43 + "="
    result = await mailmill(config, "sync", environ={"MAILMILL_KEY": other})
    assert result.code == 2
    only_error(result, "not the one this store was written with")
    result = await mailmill(config, "sync", environ={"MAILMILL_KEY": "short"})
    assert result.code == 2
    only_error(result, "malformed")
    key.write_text(kept)
    key.chmod(0o600)
    assert (await mailmill(config, "sync")).code == 0
    listing = (await mailmill(config, "envelope", "list", "--json")).json()
    assert [row["subject"] for row in listing["messages"]] == ["kept"]


@pytest.mark.skipif(not small_disk.possible(), reason="this machine gives its users no namespaces to mount a disk in")
async def test_a_full_disk(dovecot: Dovecot, mail_user: str, configure: Callable[..., Path], tmp_path: Path) -> None:
    """The data folder is a tmpfs too small for the mail; with more room the same command finishes the work."""
    raws = [f"Subject: {number}\r\n\r\n".encode() + os.urandom(20_000).hex().encode() for number in range(60)]
    await dovecot.add_messages(mail_user, "INBOX", raws)
    config = configure(f'host = "127.0.0.1", port = {dovecot.port}, tls = "none"', user=mail_user)
    data = tmp_path / "data"
    data.mkdir()
    async with small_disk.small_disk(data, "1500k") as disk:
        result = await mailmill(config, "sync", "--json", inside=disk.inside)
        assert result.code == 5, result.out + result.err
        text = result.out + result.err
        assert "storageFull" in text
        assert "Traceback" not in text
        await disk.resize("64m")
        again = await mailmill(config, "sync", "--json", inside=disk.inside)
        assert again.code == 0, again.out + again.err
        status = (await mailmill(config, "status", "--json", inside=disk.inside)).json()
        assert status["messages"] == 60
