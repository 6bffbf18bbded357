"""The demo's mail server as a program: where it takes its modules from."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from mailmill.app.demo.mail_server import demo_server
from mailmill.errors import ConnectError


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With files that write another when they are run."""
    for name in ("threading.py", "pymap.py", "queue.py"):
        (tmp_path / name).write_text("open('it-ran', 'w').close()\nraise ImportError\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_no_module_is_taken_from_the_working_directory(working_directory: Path) -> None:
    # One that did not start has taken them from there, which the file tells better.
    with suppress(ConnectError):
        async with demo_server() as server:
            assert server.port
    assert not await asyncio.to_thread((working_directory / "it-ran").exists)
