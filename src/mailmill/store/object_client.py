"""One request to the object store each, through obstore: bounded in number and time, and every failure in our words.

obstore is loaded on first use, in a thread: who keeps mail in a folder pays nothing for it.

Laws:

* An error of obstore never leaves this file, not as a cause either: it renders addresses, and an Azure address may hold
  the signature that is the way in. What a person needs of it (the status, the store's own code) is taken out of it.
* What kind of failure it is, is told by the type of the error alone.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mailmill.errors import ConfigurationError, StorageRefusedError, StorageUnavailableError
from mailmill.store.object_location import ObjectKind, ObjectLimits, ObjectLocation

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_SLOWEST_BYTES_PER_SECOND = 100_000
_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 2
_PAGE_OBJECTS = 1000
_DELETE_AT_ONCE = 1000

# For people only: nothing is decided by what these find.
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")

_CREDENTIALS: dict[ObjectKind, str] = {
    ObjectKind.S3: "service.blob_access_key_id and service.blob_secret_access_key, or AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY, or the role of this machine",
    ObjectKind.GCS: "GOOGLE_APPLICATION_CREDENTIALS, or the service account of this machine",
    ObjectKind.AZURE: "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or the identity of this machine",
}


class MissingObjectError(Exception):
    """There is no such object, or no such bucket: the store does not tell which."""


class PresentObjectError(Exception):
    """There is an object of that name already, or one is being written: AWS answers 409 to both of two conditional
    PUTs that meet (ConditionalRequestConflict), and may then have stored neither.
    """


class DeniedObjectError(StorageRefusedError):
    """What was asked for was denied."""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """``modified_at``: seconds since the epoch by the store's clock, which counts whole seconds on S3."""

    key: str
    size_bytes: int
    modified_at: float


class ObjectClient:
    """The requests, on keys below ``location.prefix``. All raise StorageUnavailableError where there is no answer, and
    StorageRefusedError where that is no.
    """

    def __init__(self, location: ObjectLocation, limits: ObjectLimits | None = None) -> None:
        self.location = location
        self._limits = limits or ObjectLimits()
        self._slots = asyncio.Semaphore(self._limits.concurrency)
        self._opening = asyncio.Lock()
        self._opened: tuple[ModuleType, ObjectStore] | None = None

    async def put_new(self, key: str, body: bytes) -> None:
        """All of ``body`` under a free name (If-None-Match), durable at the answer.

        Raises PresentObjectError, and MissingObjectError as all do that write: there is no bucket, or so it seems.
        """
        async with self._request(len(body), conditional=True) as (obstore, store):
            await obstore.put_async(store, key, body, mode="create", use_multipart=False)

    async def put(self, key: str, body: bytes) -> None:
        """As `put_new`, in the place of what may be there."""
        async with self._request(len(body)) as (obstore, store):
            await obstore.put_async(store, key, body, use_multipart=False)

    async def put_in_parts(self, key: str, body: AsyncIterator[bytes], size_bytes: int) -> None:
        """A body of any size, which is there at the answer, and not in part before (a multipart upload)."""
        async with self._request(size_bytes) as (obstore, store):
            await obstore.put_async(
                store, key, body, use_multipart=True, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
            )

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive, more than ``start``), fewer where the object ends before.

        Raises MissingObjectError.
        """
        try:
            async with self._request(end - start) as (obstore, store):
                return bytes(await obstore.get_range_async(store, key, start=start, end=end))
        except StorageUnavailableError:
            # A range wholly behind the end is an error that looks like all others.
            if (await self.head(key)).size_bytes <= start:
                return b""
            raise

    async def get(self, key: str) -> bytes:
        """All of a small object. Raises MissingObjectError."""
        async with self._request(_PART_BYTES) as (obstore, store):
            return bytes(await (await obstore.get_async(store, key)).bytes_async())

    async def head(self, key: str) -> ObjectFacts:
        """Raises MissingObjectError."""
        async with self._request() as (obstore, store):
            return _facts(await obstore.head_async(store, key))

    async def list_pages(self, folder: str) -> AsyncGenerator[list[ObjectFacts], None]:
        """What lies below ``folder``, about a thousand at a time."""
        async with self._request() as (obstore, store):
            pages = obstore.list(store, folder, chunk_size=_PAGE_OBJECTS).__aiter__()
        while True:
            async with self._request():
                try:
                    page = await pages.__anext__()
                except StopAsyncIteration:
                    return
            yield [_facts(each) for each in page]

    async def delete(self, keys: Collection[str]) -> None:
        """One that is not there is no error."""
        listed = list(keys)
        for start in range(0, len(listed), _DELETE_AT_ONCE):
            async with self._request() as (obstore, store):
                await obstore.delete_async(store, listed[start : start + _DELETE_AT_ONCE])

    @asynccontextmanager
    async def _request(
        self, size_bytes: int = 0, *, conditional: bool = False
    ) -> AsyncIterator[tuple[ModuleType, ObjectStore]]:
        """A slot, a deadline, and obstore's errors in our words.

        ``conditional``: an answer that something is there is meant so. To any other request it is a 409 of the moment.
        """
        opened = self._opened or await self._open()
        patience = self._limits.patience_seconds + size_bytes / _SLOWEST_BYTES_PER_SECOND
        async with self._slots:
            failure: Exception
            try:
                async with asyncio.timeout(patience):
                    yield opened
                return
            except TimeoutError:
                failure = self._unavailable(f"it did not answer within {patience:.0f} s")
            except FileNotFoundError:
                failure = MissingObjectError()
            except opened[0].exceptions.AlreadyExistsError as error:
                failure = PresentObjectError() if conditional else self._unwell(error)
            except (opened[0].exceptions.PermissionDeniedError, opened[0].exceptions.UnauthenticatedError) as error:
                failure = DeniedObjectError(
                    f"the object store refuses the credentials for {self.location.shown}{_words(error)}",
                    hint="they need the rights to get, put, delete and list there; they come from"
                    f" {_CREDENTIALS[self.location.kind]}",
                )
            except opened[0].exceptions.BaseError as error:
                failure = self._unwell(error)
            except Exception as error:  # noqa: BLE001 - what has no place in the library's own tree (a panic of its)
                failure = self._unavailable(f"unforeseen {type(error).__name__}")
        # From None: see the law above.
        raise failure from None

    def _unwell(self, error: Exception) -> StorageUnavailableError:
        return self._unavailable(f"it does not answer as it should{_words(error)}")

    def _unavailable(self, what: str) -> StorageUnavailableError:
        where = f" at {self.location.endpoint}" if self.location.endpoint else ""
        return StorageUnavailableError(
            f"the object store of {self.location.shown} cannot be reached{where}: {what}",
            hint="it goes on by itself once the store answers; look at the network, service.blob_endpoint and"
            f" service.blob_region; credentials come from {_CREDENTIALS[self.location.kind]}",
        )

    async def _open(self) -> tuple[ModuleType, ObjectStore]:
        async with self._opening:
            if self._opened is None:
                # In a thread: a library of 20 MB is loaded, certificates are read.
                self._opened = await asyncio.to_thread(_open, self.location, self._limits)
            return self._opened


def _open(location: ObjectLocation, limits: ObjectLimits) -> tuple[ModuleType, ObjectStore]:
    obstore = importlib.import_module("obstore")
    stores = importlib.import_module("obstore.store")
    exceptions = importlib.import_module("obstore.exceptions")
    client_options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=limits.connect_seconds),
        "timeout": timedelta(seconds=limits.request_seconds),
        "user_agent": "mailmill",
        "allow_http": location.endpoint.startswith("http://"),
    }
    retry_config: dict[str, Any] = {
        "max_retries": limits.retries,
        "retry_timeout": timedelta(seconds=limits.retry_seconds),
        "backoff": {
            "init_backoff": timedelta(seconds=limits.first_pause_seconds),
            "max_backoff": timedelta(seconds=limits.longest_pause_seconds),
            "base": 2,
        },
    }
    given = {"prefix": location.prefix or None, "client_options": client_options, "retry_config": retry_config}
    try:
        match location.kind:
            case ObjectKind.S3:
                config = {
                    "endpoint": location.endpoint,
                    "region": location.region,
                    "access_key_id": location.access_key_id,
                    "secret_access_key": location.secret_access_key,
                }
                config = {name: value for name, value in config.items() if value}
                store = stores.S3Store(location.bucket, config=config, **given)
            case ObjectKind.GCS:
                store = stores.GCSStore(location.bucket, **given)
            case ObjectKind.AZURE:
                store = stores.AzureStore(location.bucket, **given)
    except (exceptions.BaseError, ValueError):
        # Without its cause: that renders what it was given.
        raise ConfigurationError(
            f"the object store of {location.shown} cannot be set up from what is configured",
            hint=f"look at service.blob_url and its companions; credentials come from {_CREDENTIALS[location.kind]}",
            key="service.blob_url",
        ) from None
    return obstore, store


def _facts(meta: Any) -> ObjectFacts:
    return ObjectFacts(meta["path"], meta["size"], meta["last_modified"].timestamp())


def _words(error: Exception) -> str:
    """The status and the store's own word for what was wrong, in brackets, where it said so."""
    text = str(error)
    found = [match[1] for match in (_STATUS.search(text), _CODE.search(text)) if match is not None]
    return f" ({' '.join(found)})" if found else ""
