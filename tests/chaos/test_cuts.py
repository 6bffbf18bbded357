"""24 cuts, stalls and half-open links under live change: the store equals the server, and nobody lent a hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cuts import survive_cuts
from servers.mail_server import MailServer


@pytest.mark.parametrize("any_server", ["dovecot", "cyrus"], indirect=True)
async def test_an_account_survives_24_faults_under_live_change(any_server: MailServer, data_dir: Path) -> None:
    survived = await survive_cuts(any_server, data_dir)
    assert survived.faults.total() == 24
    assert survived.connections > 12
    assert survived.changes > 24
