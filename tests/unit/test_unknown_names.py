"""What is named and is not there is an error that names it, in every command: a typing mistake is no empty list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import uvloop
from sqlalchemy import select

from mailmill.app.application import open_application
from mailmill.cli.main import main
from mailmill.model import MailboxRef
from mailmill.settings import load_settings
from mailmill.store.mailboxes import apply_mailbox_list
from mailmill.store.tables import account

CONFIG = """
[service]
data_dir = "{data_dir}"
[accounts.demo]
email = "me@example.org"
username = "me@example.org"
password = "none"
imap = {{ host = "imap.example.org" }}
"""


@pytest.fixture
def config(data_dir: Path, tmp_path: Path) -> Path:
    """Of a store with one account, whose one mailbox is empty; no service runs."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.format(data_dir=data_dir))
    file.chmod(0o600)

    settings = load_settings(file, {})

    async def fill() -> None:
        async with open_application(settings) as application, application.database.write() as connection:
            account_id = await connection.scalar(select(account.c.id))
            assert account_id is not None
            await apply_mailbox_list(connection, account_id, [MailboxRef("INBOX")], 1.0)

    uvloop.run(fill())
    return file


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("queue list --processor nope", "'nope'"),
        ("queue retry --processor nope", "'nope'"),
        ("queue retry --processor tread", "did you mean 'threat'?"),
        ("queue drop --processor nope --unfinished -y", "'nope'"),
        ("queue pause nope", "'nope'"),
        ("queue show 999", "message 999"),
        ("queue retry 999", "message 999"),
        ("queue drop 999 --yes", "message 999"),
        ("envelope list --account demo --mailbox Nope", "'Nope'"),
        ("envelope list --account nope", "'nope'"),
    ],
)
def test_what_is_not_there_is_named(config: Path, capsys: pytest.CaptureFixture[str], command: str, named: str) -> None:
    assert main([*command.split(), "--config", str(config)]) == 3
    error = capsys.readouterr().err.splitlines()[0]
    assert error.startswith("error: ") and named in error


def test_what_is_there_and_empty_is_no_error(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        "queue list --processor threat",
        "queue retry --processor threat",
        "envelope list --account demo --mailbox INBOX",
    ):
        assert main([*command.split(), "--config", str(config)]) == 0, command
    capsys.readouterr()
    assert main(["queue", "retry", "999", "--json", "--config", str(config)]) == 3
    assert json.loads(capsys.readouterr().out) == {"retried": 0, "unknown": ["999"], "unaffected": []}
