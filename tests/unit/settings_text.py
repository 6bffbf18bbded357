"""Configuration as text, loaded, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailmill.errors import ConfigurationError
from mailmill.settings import Settings, load_settings

PASSWORD = "hunter2"
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
ACCOUNT = f"""
[accounts.work]
email = "me@example.org"
username = "me@example.org"
password = "{PASSWORD}"
imap = {{ host = "imap.example.org" }}
"""
HOOK = f"""
[destinations.hook]
kind = "webhook"
url = "https://example.org/hook/{PASSWORD}"
secret = "{SECRET}"
"""


def load(config: Path, text: str = "", **environ: str) -> Settings:
    config.write_text(text)
    config.chmod(0o600)
    return load_settings(config, {"HOME": str(config.parent), **environ})


def refused(config: Path, text: str, **environ: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(config, text, **environ)
    assert PASSWORD not in str(caught.value) + caught.value.hint
    assert caught.value.hint
    assert caught.value.__cause__ is None, "pydantic's error repeats inputs, secrets among them"
    return caught.value
