"""Whether there is a store to look at: a command that was given too little must not make one and call it whole."""

from __future__ import annotations

from mailmill.errors import StoreError
from mailmill.settings import Settings
from mailmill.store.sqlite_database import sqlite_path


def refuse_without_store(settings: Settings) -> None:
    """Raises StoreError where the file of a SQLite database is missing. Blocking. What PostgreSQL holds is not asked:
    nobody comes to its URL by giving too little.
    """
    url = settings.service.database_url.get_secret_value()
    if url.startswith("postgresql") or (path := sqlite_path(url)).exists():
        return
    raise StoreError(
        f"there is no store: {path} is not there, and no service answers",
        hint="is this the service's own configuration (--config), with the variables that the service has?",
    )
