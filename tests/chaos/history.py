"""Is what a fleet did under fire what it promised? A pure judgement over what was written down meanwhile.

Three witnesses, none of them code under test: what every process wrote into its journal as it lived (`journal`), what
the database holds at the end, and what the mail server holds. `findings` compares them; an empty list is an acquittal.

Times are seconds of one machine's CLOCK_BOOTTIME, so those of different processes compare. A transaction is noted
before its COMMIT and after: one without the second note may stand or not, for the process died in between.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

# Path → UID → flags and digest of the raw message.
Mailboxes = Mapping[str, Mapping[int, tuple[frozenset[str], str]]]

MAX_CRASHES = 3


# -- what the journals tell -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClaimKey:
    """A claim of one processor's work on a message."""

    message_id: int
    processor: str
    fence: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one life wrote at once. ``began_at`` is before the COMMIT, ``known_at`` after it (None: it never knew).

    ``owner``: the shard and epoch it was written under. ``took``: shard → epoch of the leases it took.
    """

    life: str
    began_at: float
    known_at: float | None
    points: tuple[str, ...] = ()
    claimed: tuple[ClaimKey, ...] = ()
    recorded: tuple[ClaimKey, ...] = ()
    owner: tuple[int, int] | None = None
    took: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class End:
    """How a life came to its end, or to a halt: ``how`` is ``killed`` or ``stopped``, ``phase`` where."""

    life: str
    phase: str
    how: str = "killed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A late write that was refused: ``what`` is ``owner``, ``finish`` or ``delivery``."""

    life: str
    what: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """A request that came to the receiver: its ``webhook-id``, and from its body the event's id, name and message."""

    webhook_id: str
    envelope_id: str
    event: str
    message_id: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """What a reader of the log was given for the cursor ``after``: these events, and the next cursor."""

    reader: str
    after: int
    cursor: int
    event_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Journals:
    """All lives together; what came of one life is in its order."""

    transactions: Sequence[Transaction] = ()
    ends: Sequence[End] = ()
    refusals: Sequence[Refusal] = ()
    receipts: Sequence[Receipt] = ()
    pages: Sequence[Page] = ()


# -- what the database holds at the end -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """``status`` as users see it (the view ``email_status``)."""

    id: int
    account: str
    digest: str
    status: str
    deleted: bool = False
    placed: bool = True


@dataclass(frozen=True, slots=True)
class Event:
    """``position`` is None where the sequencer never came to it. ``processor``: whom a messageFailed tells of."""

    id: int
    position: int | None
    name: str
    message_id: int | None = None
    historical: bool = False
    processor: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    message_id: int
    processor: str
    state: str
    crashes: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    destination: str
    event_id: int
    state: str


ResultKey = tuple[int, str, int]
"""Message, processor, version."""


@dataclass(frozen=True, slots=True)
class Store:
    """``written`` counts how often each result was written, as a trigger saw it. ``open_requests``: changes that were
    asked for and are neither done nor failed."""

    mailboxes: Mapping[str, Mailboxes] = field(default_factory=dict)
    messages: Sequence[Message] = ()
    events: Sequence[Event] = ()
    results: Collection[ResultKey] = ()
    written: Mapping[ResultKey, int] = field(default_factory=dict)
    work: Sequence[Work] = ()
    deliveries: Sequence[Delivery] = ()
    open_requests: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """``servers``: account → what its mail server holds. ``processors``: name → version of those that were to run."""

    servers: Mapping[str, Mailboxes]
    store: Store
    journals: Journals
    processors: Mapping[str, int]
    destination: str


def findings(evidence: Evidence) -> list[str]:
    """What is wrong, a sentence each; empty where all promises were kept."""
    store, journals = evidence.store, evidence.journals
    return [
        *same_mail(evidence.servers, store),
        *one_identity(store),
        *one_terminal_state(store, evidence.processors),
        *one_result(store, evidence.processors),
        *fences_held(journals.transactions),
        *owners_apart(journals.transactions),
        *all_delivered(store, journals.receipts, evidence.destination),
        *nothing_skipped(store.events, journals.pages),
        *(f"request {request_id} is still open" for request_id in store.open_requests),
    ]


# -- mail -------------------------------------------------------------------------------------------------------------


def same_mail(servers: Mapping[str, Mailboxes], store: Store) -> Iterator[str]:
    """The store holds what the server holds: mailboxes, UIDs, flags, contents."""
    for account in sorted(servers.keys() | store.mailboxes.keys()):
        server, held = servers.get(account, {}), store.mailboxes.get(account, {})
        for path in sorted(server.keys() | held.keys()):
            if path not in held or path not in server:
                yield f"{account}: mailbox {path!r} is only {'on the server' if path in server else 'in the store'}"
                continue
            for uid in sorted(server[path].keys() | held[path].keys()):
                there, here = server[path].get(uid), held[path].get(uid)
                if there == here:
                    continue
                if here is None or there is None:
                    what = f"only {'on the server' if there else 'in the store'}"
                elif here[1] != there[1]:
                    what = "another content in the store"
                else:
                    what = f"flagged {sorted(here[0])} in the store, {sorted(there[0])} on the server"
                yield f"{account}: {path} {uid} is {what}"


def one_identity(store: Store) -> Iterator[str]:
    """One id for each content of an account, one messageNew for each id, one messageDeleted for what is gone."""
    for (account, digest), count in Counter((each.account, each.digest) for each in store.messages).items():
        if count > 1:
            yield f"{account}: content {digest[:12]} has {count} ids"
    told: dict[str, Counter[int]] = defaultdict(Counter)
    for event in store.events:
        if event.message_id is not None:
            told[event.name][event.message_id] += 1
    known = {message.id for message in store.messages}
    for message_id in sorted(told["messageNew"].keys() - known):
        yield f"message {message_id} was told of as new and is not there"
    for message in store.messages:
        if (new := told["messageNew"][message.id]) != 1:
            yield f"message {message.id} has {new} messageNew"
        if message.deleted == message.placed:
            what = "deleted, and somewhere" if message.placed else "nowhere, and not deleted"
            yield f"message {message.id} is {what}"
        deleted = told["messageDeleted"][message.id]
        if deleted != message.deleted:
            yield f"message {message.id} is {'gone' if message.deleted else 'there'}, with {deleted} messageDeleted"


# -- processing -------------------------------------------------------------------------------------------------------


def one_terminal_state(store: Store, processors: Mapping[str, int]) -> Iterator[str]:
    """Each message is completed, and told so once, or failed, each failure told once and for a reason."""
    processed = Counter(event.message_id for event in store.events if event.name == "messageProcessed")
    failed = Counter((event.message_id, event.processor) for event in store.events if event.name == "messageFailed")
    given_up = {(row.message_id, row.processor) for row in store.work if row.state == "failed"}
    for row in store.work:
        if row.state != "failed":
            yield f"work {row.processor} of message {row.message_id} is left {row.state}"
        elif row.crashes <= MAX_CRASHES and not row.attempt:
            yield f"work {row.processor} of message {row.message_id} was given up after {row.crashes} crashes"
    for message in store.messages:
        names = {name for message_id, name in given_up if message_id == message.id}
        wanted = "failed" if names else "completed"
        if message.status != wanted:
            yield f"message {message.id} is {message.status}, not {wanted}"
        if processed[message.id] != (not names):
            yield f"message {message.id} is {wanted} and has {processed[message.id]} messageProcessed"
    for key in sorted(given_up | {(m, p) for m, p in failed if m is not None and p is not None}):
        if failed[key] != (key in given_up):
            yield f"message {key[0]}, {key[1]}: {failed[key]} messageFailed"
    for message_id, name in sorted(given_up):
        if name not in processors:
            yield f"message {message_id}: work for {name}, which was never configured"


def one_result(store: Store, processors: Mapping[str, int]) -> Iterator[str]:
    """One recorded result for each message, processor and version, written once; none for what was given up."""
    given_up = {(row.message_id, row.processor) for row in store.work if row.state == "failed"}
    wanted = {
        (message.id, name, version)
        for message in store.messages
        for name, version in processors.items()
        if (message.id, name) not in given_up
    }
    for key in sorted(wanted - set(store.results)):
        yield f"message {key[0]} has no result of {key[1]} {key[2]}"
    for key in sorted(set(store.results) - wanted):
        yield f"message {key[0]} has a result of {key[1]} {key[2]} that is not its own"
    for key, count in sorted(store.written.items()):
        if count != 1:
            yield f"the result of {key[1]} {key[2]} for message {key[0]} was recorded {count} times"


def fences_held(transactions: Sequence[Transaction]) -> Iterator[str]:
    """A claim is one life's; what is recorded under it was claimed by that life, and nobody claimed later before it."""
    holders: dict[ClaimKey, set[str]] = defaultdict(set)
    claimed_by: dict[str, set[ClaimKey]] = defaultdict(set)
    known: dict[tuple[int, str], list[tuple[int, float]]] = defaultdict(list)
    for each in transactions:
        claimed_by[each.life].update(each.claimed)
        if each.known_at is not None:
            for key in each.claimed:
                holders[key].add(each.life)
                known[key.message_id, key.processor].append((key.fence, each.known_at))
    for key, lives in holders.items():
        if len(lives) > 1:
            yield f"{_shown(key)} was claimed by {' and '.join(sorted(lives))}"
    records: Counter[ClaimKey] = Counter()
    for each in transactions:
        for key in each.recorded:
            if key not in claimed_by[each.life]:
                yield f"{each.life} recorded {_shown(key)}, which it never claimed"
            if each.known_at is None:
                continue
            records[key] += 1
            if any(fence > key.fence and at < each.began_at for fence, at in known[key.message_id, key.processor]):
                yield f"{each.life} recorded {_shown(key)} after it was claimed anew"
    for key, count in records.items():
        if count > 1:
            yield f"{_shown(key)} was recorded {count} times"


def _shown(key: ClaimKey) -> str:
    return f"message {key.message_id}, {key.processor}, fence {key.fence}"


# -- owners -----------------------------------------------------------------------------------------------------------


def owners_apart(transactions: Sequence[Transaction]) -> Iterator[str]:
    """An epoch of a shard is one life's, and nothing is written under it once a later one is known to be taken."""
    takers: dict[tuple[int, int], set[str]] = defaultdict(set)
    maybe: dict[tuple[int, int], set[str]] = defaultdict(set)
    taken_at: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for each in transactions:
        for shard, epoch in each.took.items():
            maybe[shard, epoch].add(each.life)
            if each.known_at is not None:
                takers[shard, epoch].add(each.life)
                taken_at[shard].append((epoch, each.known_at))
    for (shard, epoch), lives in takers.items():
        if len(lives) > 1:
            yield f"shard {shard}, epoch {epoch} was taken by {' and '.join(sorted(lives))}"
    for each in transactions:
        if each.owner is None or each.known_at is None:
            continue
        shard, epoch = each.owner
        if each.life not in maybe[shard, epoch]:
            yield f"{each.life} wrote as the owner of shard {shard} by epoch {epoch}, which it never took"
        if any(later > epoch and at < each.began_at for later, at in taken_at[shard]):
            yield f"{each.life} wrote as the owner of shard {shard} by epoch {epoch} after a later one was taken"


# -- telling ----------------------------------------------------------------------------------------------------------


def all_delivered(store: Store, receipts: Sequence[Receipt], destination: str) -> Iterator[str]:
    """Each event that is news reached the receiver, always under its own id; nothing else did."""
    events = {f"evt_{event.id}": event for event in store.events}
    states = {row.event_id: row.state for row in store.deliveries if row.destination == destination}
    reached: Counter[str] = Counter()
    for receipt in receipts:
        reached[receipt.webhook_id] += 1
        event = events.get(receipt.webhook_id)
        if receipt.webhook_id != receipt.envelope_id:
            yield f"{receipt.envelope_id} came under the webhook-id {receipt.webhook_id}"
        elif event is None:
            yield f"{receipt.webhook_id} was delivered and never happened"
        elif (event.name, event.message_id) != (receipt.event, receipt.message_id):
            yield (
                f"{receipt.webhook_id} is {event.name} of {event.message_id} and came as {receipt.event} of"
                f" {receipt.message_id}"
            )
    for key, event in events.items():
        state = states.get(event.id)
        if event.historical:
            if state is not None or reached[key]:
                yield f"{key} is history and was delivered"
        elif state != "delivered":
            yield f"{key} ({event.name}) is {state or 'not planned'} for {destination}"
        elif not reached[key]:
            yield f"{key} ({event.name}) counts as delivered and never came"


def nothing_skipped(events: Sequence[Event], pages: Sequence[Page]) -> Iterator[str]:
    """Positions are numbers without a gap, and each reader saw every event once, in their order."""
    for event in events:
        if event.position is None:
            yield f"event {event.id} has no position"
    in_order = sorted((event.position, event.id) for event in events if event.position is not None)
    positions = [position for position, _ in in_order]
    if positions != list(range(1, len(positions) + 1)):
        strange = [b for a, b in zip([0, *positions], positions, strict=False) if b != a + 1]
        yield f"positions have gaps or repeats, at {strange[:5]}"
    wanted = [event_id for _, event_id in in_order]
    for reader in sorted({page.reader for page in pages}):
        own = [page for page in pages if page.reader == reader]
        at = 0
        for page in own:
            if page.after != at:
                yield f"{reader} read after {page.after} and stood at {at}"
            if page.cursor - page.after != len(page.event_ids):
                yield f"{reader} was given {len(page.event_ids)} events from {page.after} to {page.cursor}"
            at = page.cursor
        read = [event_id for page in own for event_id in page.event_ids]
        if read == wanted:
            continue
        repeated = sorted(event_id for event_id, count in Counter(read).items() if count > 1)
        skipped = sorted(set(wanted) - set(read))
        unknown = sorted(set(read) - set(wanted))
        yield (
            f"{reader} did not read the log as it is: skipped {skipped[:5]}, twice {repeated[:5]}, unknown"
            f" {unknown[:5]}{'' if skipped or repeated or unknown else ', in another order'}"
        )


def given_up(store: Store) -> int:
    """How much work ended as failed: right where its workers died of it, and as few as they died."""
    return sum(row.state == "failed" for row in store.work)


# -- coverage ---------------------------------------------------------------------------------------------------------


def hits(ends: Sequence[End]) -> Counter[str]:
    """How often each phase was the last of a life."""
    return Counter(end.phase for end in ends if end.how == "killed")
