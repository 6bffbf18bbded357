"""Where the raw messages lie, if that is not the data folder: is it there, does it let us in, is it in use."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mailmill.cli.diagnosis.findings import Check, fail, from_error, ok, warn
from mailmill.errors import MailmillError

if TYPE_CHECKING:
    from mailmill.settings import Settings

SUBJECT = "Raw messages"
PATIENCE_SECONDS = 8.0


async def look(settings: Settings) -> list[Check]:
    """Nothing is written. Whether the place is this database's is for the service to say."""
    service = settings.service
    place = service.blob_place
    if place is None:
        if service.database_url.get_secret_value().startswith("postgresql"):
            remedy = "set service.blob_url to an object store, or to a folder that all nodes mount"
            return [warn(SUBJECT, f"in {service.data_dir}, where other nodes cannot read them", remedy)]
        return []
    if place.folder is not None:
        return [await asyncio.to_thread(_folder, place.folder)]
    return [await _objects(settings)]


def _folder(folder: Path) -> Check:
    if not folder.exists():
        return warn(SUBJECT, f"{folder} is not there (made at the first start)", "mount it first, if it is a mount")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return fail(SUBJECT, f"{folder} is not writable for this user", "make it so, or correct service.blob_url")
    return ok(SUBJECT, str(folder))


async def _objects(settings: Settings) -> Check:
    from mailmill.app.wiring import segments_of

    segments = segments_of(settings)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            marker = await segments.read_marker()
    except MailmillError as error:
        return from_error(SUBJECT, error)
    except TimeoutError:
        remedy = "look at the network, service.blob_endpoint and service.blob_region"
        return fail(SUBJECT, f"{segments.shown} does not answer", remedy, "storageUnavailable")
    finally:
        await segments.close()
    return ok(SUBJECT, f"{segments.shown}, {'in use' if marker else 'empty so far'}")
