"""What is told where nothing is configured yet. Pure."""

from __future__ import annotations

from typing import Final

from mailmill.settings import Settings

NO_ACCOUNT: Final = "no account is configured"


def how_to_add_one(settings: Settings) -> str:
    """What a newcomer does about ``NO_ACCOUNT``."""
    file = settings.config_file or "~/.config/mailmill/config.toml"
    return f"set IMAP_SERVER, IMAP_USERNAME and IMAP_PASSWORD, or add [accounts.NAME] to {file}"
