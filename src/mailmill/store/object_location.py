"""Which object store, which bucket, and the way in: a value. Nothing here talks to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class ObjectKind(StrEnum):
    """The protocols that are spoken; the value is the scheme of a URL."""

    S3 = "s3"
    GCS = "gs"
    AZURE = "az"


@dataclass(frozen=True, slots=True)
class ObjectLocation:
    """``prefix`` of ``bucket``. ``endpoint``, ``region`` and the keys are S3's; what is empty comes from the
    environment, in the variables that the store's own tools use.
    """

    kind: ObjectKind
    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """As a URL, without what is secret."""
        place = f"{self.kind}://{self.bucket}"
        return f"{place}/{self.prefix}" if self.prefix else place


@dataclass(frozen=True, slots=True)
class ObjectLimits:
    """How patient we are, and how much is under way at once.

    A request may take ``request_seconds``; one that failed on its way is tried again by the client, ``retries`` times
    within ``retry_seconds``, with growing, jittered pauses. ``concurrency`` bounds the requests of a process.
    """

    connect_seconds: float = 5.0
    request_seconds: float = 60.0
    retries: int = 3
    retry_seconds: float = 20.0
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 3.0
    concurrency: int = 32

    @property
    def patience_seconds(self) -> float:
        """After this long an answer is not waited for any more, whatever the client does."""
        return self.request_seconds + self.retry_seconds + self.connect_seconds
