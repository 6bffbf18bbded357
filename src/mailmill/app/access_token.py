"""The administrator's token: made at the first start, kept in the data folder, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mailmill.errors import StoreError

TOKEN_FILE_NAME = "api-token"  # noqa: S105  # the name of a file, not a secret


def ensure_token(data_dir: Path) -> str:
    """The token in ``data_dir/api-token``; a new one (256 bits) where there is none. Raises StoreError."""
    path = data_dir / TOKEN_FILE_NAME
    try:
        token = path.read_text("ascii").strip()
        if len(token) >= 32:
            return token
        raise StoreError(f"{path} does not hold a token", hint="remove the file; the next start makes a new one")
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {path}", hint="let the user mailmill runs as read it, or remove it") from error
    token = "mm_" + secrets.token_urlsafe(32)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}", hint="the data folder must be ours to write"
        ) from error
    return token
