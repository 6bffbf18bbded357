"""The shapes of requests and answers, for validation and for OpenAPI.

Requests are checked against them. Answers are only described: the application's values go out as they are, so a field
that is new there needs no change here, and serving a listing costs no second pass over it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class _Request(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


# -- requests ---------------------------------------------------------------------------------------------------------


class SyncRequest(_Request):
    accounts: list[str] | None = Field(
        default=None, description="Names of accounts; all if left out.", max_length=10_000
    )
    process: bool = Field(
        default=False,
        description="Answer when what came in is processed, or after 30 s; false answers when the pass is over.",
    )


class RetryRequest(_Request):
    message_ids: list[str] | None = Field(
        default=None, description="Messages whose failed work is to run again; all if null.", max_length=10_000
    )
    processor: str | None = Field(default=None, description="Only this processor's work.", max_length=200)


class DropRequest(_Request):
    message_ids: list[str] | None = Field(
        default=None, description="Messages whose work is given up.", min_length=1, max_length=10_000
    )
    processor: str | None = Field(default=None, description="Only this processor's work.", max_length=200)
    all: bool = Field(default=False, description="Where neither is named: that all is meant.")
    state: Literal["failed", "any"] = Field(
        default="failed", description="`any`: also what waits or runs, and not only what has failed."
    )


class ProcessorRequest(_Request):
    processor: str = Field(max_length=200)


class FlagsRequest(_Request):
    add: list[str] = Field(
        default_factory=list,
        description="`seen`, `answered`, `flagged`, `deleted`, `draft` (or `\\Seen` …), or a keyword as it stands.",
        max_length=100,
    )
    remove: list[str] = Field(default_factory=list, max_length=100)
    path: str | None = Field(
        default=None, description="Which of its mailboxes is meant, where the message is in several.", max_length=1000
    )
    uid: int | None = Field(default=None, description="Which place in that mailbox is meant.", ge=1, le=2**32 - 1)


class MoveRequest(_Request):
    path: str = Field(description="The mailbox it is to be in.", min_length=1, max_length=1000)
    source: str | None = Field(
        default=None,
        alias="from",
        description="Which of its mailboxes is meant, where the message is in several.",
        max_length=1000,
    )
    uid: int | None = Field(default=None, description="Which place in that mailbox is meant.", ge=1, le=2**32 - 1)


class CopyRequest(MoveRequest):
    pass


class TokenLogin(_Request):
    token: str = Field(max_length=1024, description="The API token, as in `data_dir/api-token`.")


# -- answers ----------------------------------------------------------------------------------------------------------


class ErrorBody(BaseModel):
    code: str = Field(description="Stable, for programs.")
    message: str = Field(description="One line naming what failed.")
    hint: str = Field(description="One line saying what to do, or empty.")


class ErrorAnswer(BaseModel):
    error: ErrorBody


class RequestOutcome(_Answer):
    path: str | None = Field(description="Where the message was put; null where it was put nowhere.")
    uid: int | None = Field(description="Its UID there, as far as it is known.")
    uid_validity: int | None
    note: str | None = Field(description="What is worth knowing about it.")


class RequestAnswer(_Answer):
    id: str
    account: str
    account_state: str = Field(description="What one that is not done may be waiting for.")
    kind: str = Field(description="`flags`, `move`, `copy`, `delete` or `append`.")
    state: str = Field(description="`pending`, `applying`, `done` or `failed`.")
    message_id: str | None
    path: str | None = Field(description="The place it is about.")
    uid: int | None
    target_path: str | None
    permanent: bool
    add: list[str]
    remove: list[str]
    attempts: int
    outcome: RequestOutcome | None
    error: ErrorBody | None = Field(description="Why it failed, or was put off the last time.")
    created_at: str
    next_try_at: str | None
    finished_at: str | None


class Requests(_Answer):
    requests: list[RequestAnswer]


class Health(_Answer):
    status: str
    version: str
    uptime_seconds: float


class Ready(_Answer):
    ready: bool
    database: str
    accounts: dict[str, int]


class QueueFigures(_Answer):
    pending: int
    processing: int
    completed: int
    failed: int
    oldest_seconds: float | None = Field(description="Age of the oldest work that waits; null if none does.")
    paused: list[str] = Field(description="Processors that an operator paused.")


class DeliveryFigures(_Answer):
    pending: int
    sending: int
    delivered: int
    failed: int


class Node(_Answer):
    id: str
    version: str
    started_at: str
    roles: list[str]


class FleetNode(_Answer):
    id: str
    host: str
    version: str
    roles: list[str]
    started_at: str | None
    state: Literal["alive", "stopping", "silent"]
    heartbeat_age_seconds: float
    shards: int = Field(description="How many of the 64 shards of accounts it owns.")
    accounts: int = Field(description="How many accounts it keeps in sync.")


class Status(_Answer):
    accounts: dict[str, int] = Field(description="Account state → how many are in it.")
    queue: QueueFigures
    deliveries: DeliveryFigures
    node: Node = Field(description="The process that answers.")
    nodes: list[FleetNode] = Field(description="All processes of the service; one, where the database is SQLite.")
    messages: int
    threats: dict[str, int] = Field(description="Verdict → how many messages carry it.")
    cursor: str | None = Field(default=None, description="The newest event's cursor, to follow `/v1/events` from.")


class Progress(_Answer):
    stored: int
    total: int


class Account(_Answer):
    account: str
    node: str | None = Field(description="The node that keeps it in sync; null while none does.")
    email: str
    state: str
    state_reason: str
    state_changed_at: str | None
    backlog: str
    mailboxes: int
    messages: int
    last_sync_at: str | None
    seconds_since_last_round_trip: float | None
    connections: int
    push: Literal["notify", "idle", "poll"] = Field(
        description="How news comes: of all mailboxes (NOTIFY), of `pushedMailbox` (IDLE), or only when we ask."
    )
    pushed_mailbox: str | None
    sweep_seconds: float | None = Field(
        description="How often the mailboxes that are not pushed are looked at; all are, where all are pushed."
    )
    progress: Progress | None = Field(description="Of the first sync; null once it is done.")
    verify: dict[str, Any] | None = Field(
        default=None, description="The last look that compared it with its server: `at` and `gaps` by kind."
    )


class Accounts(_Answer):
    accounts: list[Account]


class AccountCheck(_Answer):
    account: str
    ok: bool
    host: str
    tls: str
    login: bool
    capabilities: list[str]
    tier: str | None
    push: str | None
    mailboxes: int
    error: ErrorBody | None


class Parked(_Answer):
    uid: int
    reason: str
    retry_at: str | None


class Mailbox(_Answer):
    path: str
    special_use: str | None
    delimiter: str | None
    messages: int
    uid_validity: int
    uid_next: int
    highest_mod_seq: int | None
    uncovered: int = Field(description="How many messages are still to be fetched.")
    parked: list[Parked] = Field(description="Messages that the server lists and that could not be fetched, and why.")
    last_sync_at: str | None


class Mailboxes(_Answer):
    mailboxes: list[Mailbox]


class AddressAnswer(_Answer):
    name: str
    address: str


class ThreatSummary(_Answer):
    verdict: str
    score: float = Field(description="0 to 100.")
    reasons: list[str] = Field(description="Why, in words, worst first; mailmill's own or your table's, never mail's.")
    prompt_injection: bool | None = Field(
        description="Whether it holds text addressed to an assistant: then give none its text. Null: nobody looked."
    )


class MessageRow(_Answer):
    """One message in one place."""

    id: str
    account: str
    uid: int | None
    path: str | None
    flags: list[str]
    subject: str
    from_: AddressAnswer | None = Field(alias="from")
    date: str | None
    size: int
    status: str
    threat: ThreatSummary | None
    category: str | None
    summary: str | None
    historical: bool


class MessagePage(_Answer):
    messages: list[MessageRow]
    next_cursor: str | None


class FindingAnswer(_Answer):
    id: str = Field(description="Stable; `docs/threats.md` has them all.")
    family: str
    severity: Literal["info", "low", "medium", "high"]
    score: float = Field(description="What it counts, of 100.")
    evidence: str = Field(description="What was seen: the sender's words, plain text of at most 300 characters.")


class ThreatDetail(ThreatSummary):
    findings: list[FindingAnswer]


class Text(_Answer):
    plain: str
    html: str = Field(description="Sanitised: no scripts, no forms, nothing that loads from outside.")
    has_more: bool


class Message(MessageRow):
    to: list[AddressAnswer]
    cc: list[AddressAnswer]
    reply_to: list[AddressAnswer]
    text: Text
    attachments: list[dict[str, Any]]
    places: list[dict[str, Any]]
    results: dict[str, Any] = Field(description="Processor → its recorded result.")
    work: list[dict[str, Any]] = Field(description="What still waits, runs or has failed.")
    threat: ThreatDetail | None


class RunError(_Answer):
    at: str
    kind: Literal["attempt", "crash"] = Field(description="A run that failed, or a worker that died in it.")
    error: str


class LedgerResult(_Answer):
    processor: str
    version: int
    served: bool = Field(description="It is the one that is shown: of the newest version.")
    value: Any
    attempts: int = Field(description="Runs it took.")
    seconds: float = Field(description="How long the last of them took.")
    finished_at: str
    errors: list[RunError] = Field(description="Of the runs before, oldest first; the last ten.")


class LedgerWork(_Answer):
    processor: str
    version: int
    state: Literal["pending", "waiting", "throttled", "processing", "failed"]
    priority: int
    attempt: int
    crashes: int
    run_at: str
    enqueued_at: str
    errors: list[RunError]


class Processing(_Answer):
    message_id: str
    status: str
    results: list[LedgerResult]
    work: list[LedgerWork] = Field(description="What still waits, runs or has failed.")


class Event(_Answer):
    id: str
    event: str
    account: str | None
    path: str | None
    special_use: str | None
    date: str
    data: dict[str, Any]


class Events(_Answer):
    events: list[Event]
    cursor: str = Field(description="Give it as `after` to get what comes next.")


class AccountPass(_Answer):
    account: str
    mailboxes: int
    new: int
    updated: int
    expunged: int
    bytes: int
    seconds: float
    round_trips: int = Field(alias="round_trips")
    connections_opened: int = Field(alias="connections_opened")
    error: Any


class SyncReport(_Answer):
    seconds: float
    accounts: list[AccountPass]


class QueueRow(_Answer):
    message_id: str
    account: str
    processor: str
    version: int
    state: Literal["pending", "waiting", "throttled", "processing", "failed"] = Field(
        description="`waiting` is for the next attempt's time, `throttled` for fewer of its account in processing."
    )
    priority: int = Field(description="0 is new mail, 10 the backlog and what is run again.")
    attempt: int = Field(description="Runs that failed.")
    crashes: int = Field(description="Workers that died while they held it.")
    run_at: str | None
    enqueued_at: str
    error: str | None
    subject: str
    worker: str | None = Field(description="Who holds it.")
    errors: list[RunError] = Field(description="What went wrong so far, oldest first; the last ten.")


class Queue(_Answer):
    queue: list[QueueRow]


class _Swept(_Answer):
    unknown: list[str] = Field(description="Of the named messages, those that are not there.")
    unaffected: list[str] = Field(description="Of the named messages, those that had no such work.")


class Retried(_Swept):
    retried: int = Field(description="Rows of work.")


class Dropped(_Swept):
    dropped: int = Field(description="Rows of work.")


class QueueSweep(_Answer):
    task: str
    phase: str
    done: int = Field(description="Rows of work so far.")
    total: int = Field(description="0 where messages were named.")


class QueueOperation(_Answer):
    running: QueueSweep | None


class ProcessorPause(_Answer):
    processor: str
    paused: bool
    changed: bool = Field(description="False where it was so already.")


class LoginLink(_Answer):
    path: str = Field(description="To be opened in a browser once, within `expiresSeconds`.")
    expires_seconds: int
