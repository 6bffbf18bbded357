"""The page's own files, read once into memory.

The media types stand here and not in the machine's tables, which ``mimetypes`` would read on the loop, and which differ
from one machine to the next. A name is looked up among the files that are there, so no path can lead out of the folder.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response

STATIC_FOLDER = Path(__file__).parent / "static"

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _Asset:
    content: bytes
    media_type: str
    etag: str


class Assets:
    """The files of one folder."""

    def __init__(self, folder: Path = STATIC_FOLDER) -> None:
        self._folder = folder
        self._assets: dict[str, _Asset] | None = None

    async def response(self, name: str, *, status: int = 200, if_none_match: str | None = None) -> Response:
        """The file, or 304 where ``if_none_match`` has its ETag; 404 for what is not there."""
        if self._assets is None:
            self._assets = await asyncio.to_thread(_read, self._folder)
        asset = self._assets.get(name)
        if asset is None:
            raise HTTPException(404)
        headers = {"Content-Type": asset.media_type, "ETag": asset.etag}
        if if_none_match == asset.etag:
            return Response(status_code=304, headers=headers)
        return Response(asset.content, status_code=status, headers=headers)


def _read(folder: Path) -> dict[str, _Asset]:
    assets = {}
    for path in folder.iterdir():
        if (media_type := _MEDIA_TYPES.get(path.suffix)) is not None:
            content = path.read_bytes()
            assets[path.name] = _Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return assets
