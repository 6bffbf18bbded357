"""``service.blob_url``: where raw messages lie, as a URL. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

WANTED = "wants s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER"

_OBJECT_SCHEMES = ("s3", "gs", "az")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}[A-Za-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")


@dataclass(frozen=True, slots=True)
class BlobUrl:
    """``scheme`` is ``file`` (with ``folder``) or ``s3``, ``gs``, ``az`` (with ``bucket`` and ``prefix``)."""

    scheme: str
    folder: Path | None = None
    bucket: str = ""
    prefix: str = ""


def parse_blob_url(url: str) -> BlobUrl:
    """Raises ValueError, which never repeats more than the scheme: a URL may have been given credentials."""
    try:
        parts = urlsplit(url)
        host, user = parts.hostname or "", parts.username or parts.password
    except ValueError:
        raise ValueError(WANTED) from None
    if user is not None or "@" in parts.netloc:
        raise ValueError(
            "carries credentials; give them as service.blob_access_key_id and service.blob_secret_access_key, or in"
            " the environment"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"has a part after '?' or '#', which means nothing here; {WANTED}")
    if parts.scheme == "file":
        folder = unquote(parts.path)
        if host not in ("", "localhost") or not folder.startswith("/") or folder == "/" or "\0" in folder:
            raise ValueError("wants file:///FOLDER, an absolute path after three slashes")
        return BlobUrl("file", folder=Path(folder))
    if parts.scheme not in _OBJECT_SCHEMES:
        raise ValueError(WANTED)
    prefix = parts.path.strip("/")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(f"names no bucket that could be; {WANTED}")
    if prefix and (not _PREFIX.fullmatch(prefix) or any(part in (".", "..") for part in prefix.split("/"))):
        raise ValueError("has a prefix of other characters than letters, digits, '/' and !_.*'()-")
    return BlobUrl(parts.scheme, bucket=parts.netloc, prefix=prefix)
