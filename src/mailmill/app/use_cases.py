"""What people and programs can ask of mailmill: the only door for api, cli and mcp.

Every method answers in the words of the public contract (``views``) and raises `MailmillError` subclasses only.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from mailmill.alerts.rendering import render
from mailmill.app import fleet_view, ledger_view, one_pass, scrape, views
from mailmill.app.changes import Changes
from mailmill.app.figures import FigureCache, Figures
from mailmill.app.maintenance import Maintenance
from mailmill.app.message_ids import message_number
from mailmill.app.metrics import AccountGauge, Snapshot
from mailmill.app.removal import Removals
from mailmill.app.verification import last_view
from mailmill.app.work_desk import WorkDesk
from mailmill.clock import boot_seconds
from mailmill.errors import MailmillError, NotFoundError, RawExpiredError, StoreError
from mailmill.imap.connection import ImapConnection
from mailmill.message_parser import parse_message
from mailmill.model import AccountState, Tls
from mailmill.settings import Role
from mailmill.store import accounts as account_store
from mailmill.store import event_log, leases, ledger, message_counts, message_listing, processors
from mailmill.store import message_queries as queries
from mailmill.store.accounts import AccountRow
from mailmill.store.leases import Fleet
from mailmill.store.mailboxes import get_mailbox, list_mailboxes, list_parked
from mailmill.sync.account_sync import AccountView
from mailmill.sync.plan import tier_of
from mailmill.sync.watch import best_push

if TYPE_CHECKING:
    from mailmill.app.account_tasks import RunningAccount
    from mailmill.app.application import Application
    from mailmill.store.blobs import BlobStore
    from mailmill.store.message_queries import MessageRow

JsonObject = dict[str, Any]
Owners = Mapping[int, str]

# Read once: it lies on the disk.
_VERSION = version("mailmill")
_LOOP_PARSE_BYTES = 256 * 1024
_CHECK_SECONDS = 60.0
_MOST_EVENTS = 1000


class UseCases:
    """One per application. Figures that are counted (messages, mailboxes, work, deliveries, verdicts) may be two
    seconds old, so that many pollers cost what one does; everything else is as of the call.
    """

    def __init__(self, application: Application) -> None:
        self._app = application
        self._figures = FigureCache(application.database)
        self.changes = Changes(application)
        self.work = WorkDesk(application)
        self.maintenance = Maintenance(application)
        self.removals = Removals(application)
        self.reprocessing = application.reprocessing

    # -- the service --------------------------------------------------------------------------------------------------

    async def health(self) -> JsonObject:
        return {
            "status": "ok",
            "version": _VERSION,
            "uptimeSeconds": round(boot_seconds() - self._app.began_seconds, 3),
        }

    async def ready(self) -> tuple[bool, JsonObject]:
        database = "ok"
        try:
            async with asyncio.timeout(5), self._app.database.read() as connection:
                await connection.execute(text("SELECT 1"))
        except (MailmillError, TimeoutError) as problem:
            database = str(problem) or "no answer"
        ready = database == "ok"
        counts = self._state_counts(*await self._account_rows())
        return ready, {"ready": ready, "database": database, "accounts": counts}

    async def status(self) -> JsonObject:
        figures = await self._figures.get()
        work, deliveries = figures.work, figures.deliveries
        async with self._app.database.read() as connection:
            rows = await account_store.list_accounts(connection)
            paused = sorted(await processors.paused(connection))
        oldest = max(0.0, self._app.clock() - work.oldest_at) if work.oldest_at is not None else None
        return {
            "accounts": self._state_counts(rows, self._owners(figures.of_work.fleet)),
            "queue": {
                "pending": work.pending,
                "processing": work.processing,
                "completed": work.completed,
                "failed": work.failed,
                "oldestSeconds": oldest,
                "paused": paused,
            },
            "deliveries": {
                "pending": deliveries.pending,
                "sending": deliveries.sending,
                "delivered": deliveries.delivered,
                "failed": deliveries.failed,
            },
            "node": {
                "id": self._app.node,
                "version": _VERSION,
                "startedAt": views.iso(self._app.started_at),
                "roles": [str(role) for role in self._app.settings.service.roles],
            },
            "nodes": fleet_view.nodes(
                figures.of_work.fleet,
                self._app.fleet_node,
                rows,
                started_at=self._app.started_at,
                syncs=self._syncs,
            ),
            "messages": sum(figures.messages.values()),
            "threats": figures.threats,
            "cursor": str(figures.cursor),
        }

    async def metrics(self) -> bytes:
        figures = await self._figures.get()
        async with self._app.database.read() as connection:
            rows = await account_store.list_accounts(connection)
        owners = self._owners(figures.of_work.fleet)
        gauges = []
        for row in rows:
            view = self._view(row.name)
            last = self._app.verification.last(row.name)
            gauges.append(
                AccountGauge(
                    account=row.name,
                    state=str(self._state(row, owners)),
                    silent_seconds=view.silent_seconds if view else None,
                    connections=view.connections if view else 0,
                    open_requests=figures.open_requests.get(row.id, 0),
                    gaps=last.gaps if last is not None else {},
                    verified_at=last.at if last is not None else None,
                )
            )
        snapshot = Snapshot(
            accounts=tuple(gauges),
            parked=figures.parked,
            blobs_reachable=self._app.blobs.trouble is None,
            threads_stuck=self._app.worker.stats.stuck_threads,
            hosts=scrape.of_hosts(self._app.hosts.stats),
            **scrape.of_work(figures.of_work, now=self._app.clock(), node=self._app.node, syncs=self._syncs),
        )
        return self._app.metrics.render(snapshot)

    # -- accounts -----------------------------------------------------------------------------------------------------

    async def accounts(self) -> list[JsonObject]:
        figures = await self._figures.get()
        async with self._app.database.read() as connection:
            rows = await account_store.list_accounts(connection)
        owners = self._owners(figures.of_work.fleet)
        return [self._account(row, figures, owners) for row in rows]

    async def account(self, name: str) -> JsonObject:
        figures = await self._figures.get()
        async with self._app.database.read() as connection:
            row = await account_store.get_account(connection, name)
        return self._account(row, figures, self._owners(figures.of_work.fleet))

    async def check_account(self, name: str) -> JsonObject:
        """Connect and log in now. A success lets an account that had stopped go on."""
        running = self._running(name)
        endpoint = running.configured.endpoint
        answer: JsonObject = {
            "account": name,
            "ok": False,
            "host": str(endpoint),
            "tls": str(endpoint.tls),
            "login": False,
            "capabilities": [],
            "tier": None,
            "push": None,
            "mailboxes": 0,
            "error": None,
        }
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                connection = await running.connect()
                try:
                    answer |= await self._look(connection)
                finally:
                    await connection.logout()
        except TimeoutError:
            answer["error"] = {"code": "connect", "message": f"{endpoint} did not answer in time", "hint": ""}
        except MailmillError as problem:
            problem.account = problem.account or name
            answer["error"] = views.error(problem)
        else:
            await self._let_in(running)
        return answer

    async def mailboxes(self, account: str) -> list[JsonObject]:
        async with self._app.database.read() as connection:
            row = await account_store.get_account(connection, account)
            rows = await list_mailboxes(connection, row.id)
            places = await message_counts.count_places(connection, row.id)
            parked = await list_parked(connection, row.id)
        return [views.mailbox(each, places.get(each.id, 0), parked.get(each.id, ())) for each in rows]

    async def sync(self, accounts: list[str] | None, *, process: bool) -> JsonObject:
        """One pass over the accounts (None: all), and with ``process`` also the work that came of it.

        In a running service the work is waited for up to 30 seconds; without one it is done here, and the alerts that
        are due are sent. Raises ConfigurationError, before anything is done, where a secret for that is missing.
        """
        began = time.monotonic()
        chosen = list(self._app.accounts.values()) if accounts is None else [self._running(name) for name in accounts]
        dispatcher = self._app.make_dispatcher() if process and not self._app.running else None
        reports = await one_pass.sync_accounts(self._app, chosen)
        if dispatcher is not None:
            await one_pass.process_all(self._app, dispatcher)
        elif process and any(report.new for report in reports):
            await one_pass.settle(self._app)
        return {
            "seconds": round(time.monotonic() - began, 6),
            "accounts": [views.pass_report(report) for report in reports],
        }

    async def verify(self, accounts: list[str] | None, *, full: bool, repair: bool, seed: int | None) -> JsonObject:
        """Compare the store with the servers (None: of all accounts); answers when it is over."""
        chosen = list(self._app.accounts.values()) if accounts is None else [self._running(name) for name in accounts]
        return await self._app.verification.verify(chosen, full=full, repair=repair, seed=seed)

    async def verify_state(self) -> JsonObject:
        return self._app.verification.state()

    # -- messages and events ------------------------------------------------------------------------------------------

    async def messages(
        self,
        *,
        account: str | None,
        path: str | None,
        page_size: int,
        cursor: str | None,
        status: str | None = None,
        verdict: str | None = None,
    ) -> JsonObject:
        async with self._app.database.read() as connection:
            account_id = (await account_store.get_account(connection, account)).id if account is not None else None
            if account_id is not None and path is not None:
                await get_mailbox(connection, account_id, path)
            page = await message_listing.list_messages(
                connection,
                account_id=account_id,
                path=path,
                status=status,
                verdict=verdict,
                page_size=page_size,
                cursor=cursor,
            )
        return {"messages": [views.listed_message(line) for line in page.messages], "nextCursor": page.next_cursor}

    async def message(self, account: str, message_id: str) -> JsonObject:
        number = message_number(message_id)
        async with self._app.database.read() as connection:
            row = await account_store.get_account(connection, account)
            message = await queries.get_message(connection, number, account_id=row.id)
            places = (await queries.places_of(connection, [number])).get(number, [])
            results = await queries.results_of(connection, number)
            work = await queries.work_of(connection, number)
        # An expired message is shown with what its row says.
        raw = await raw_of(self._app.blobs, message) if message.raw_expired_at is None else b""
        parsed = parse_message(raw) if len(raw) <= _LOOP_PARSE_BYTES else await asyncio.to_thread(parse_message, raw)
        html, html_cut = await self._app.sanitizer.clean(parsed.text_html)
        return views.message_detail(message, places, results, work, parsed, html, html_cut=html_cut)

    async def processing(self, account: str, message_id: str) -> JsonObject:
        """The message's ledger. Raises NotFoundError."""
        number = message_number(message_id)
        async with self._app.database.read() as connection:
            row = await account_store.get_account(connection, account)
            message = await queries.get_message(connection, number, account_id=row.id)
            held = await ledger.of_message(connection, number)
        return ledger_view.ledger(number, message.status, held)

    async def message_source(self, account: str, message_id: str) -> bytes:
        async with self._app.database.read() as connection:
            row = await account_store.get_account(connection, account)
            message = await queries.get_message(connection, message_number(message_id), account_id=row.id)
        return await raw_of(self._app.blobs, message)

    async def events(self, after: int, limit: int, wait_seconds: float) -> JsonObject:
        """Events after a cursor (0: from the oldest that is kept); waits up to ``wait_seconds`` for the first one.

        Raises CursorTooOldError where retention removed what comes after it, and CursorAheadError where the log never
        came as far.
        """
        database = self._app.database
        deadline = asyncio.get_running_loop().time() + wait_seconds
        limit = max(1, min(limit, _MOST_EVENTS))
        with database.wake.events.subscribe() as hints:
            while True:
                async with database.read() as connection:
                    rows = await event_log.read_after(connection, after, limit)
                if rows:
                    envelopes = await render(database, self._app.blobs, rows)
                    return {"events": envelopes, "cursor": str(rows[-1].position)}
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    return {"events": [], "cursor": str(after)}
                await hints.wait(min(left, 5.0))

    @property
    def _syncs(self) -> bool:
        return self._app.running and self._app.has(Role.SYNC)

    # -- pieces -------------------------------------------------------------------------------------------------------

    def _running(self, name: str) -> RunningAccount:
        running = self._app.accounts.get(name)
        if running is None:
            known = ", ".join(sorted(self._app.accounts)) or "none"
            raise NotFoundError(f"no account {name!r} is configured", hint=f"configured: {known}")
        return running

    async def _let_in(self, running: RunningAccount) -> None:
        """The server accepted the credentials: what kept the account from going on is over."""
        if running.kept:
            running.sync.resume()
            return
        if self._app.has_other_nodes:
            await self._app.errands.ask_to_resume(running)
            return
        if running.row.state not in (AccountState.AUTHENTICATION_ERROR, AccountState.CONNECT_ERROR):
            return
        async with self._app.database.write() as connection:
            # Connected for the length of the check; told, so that the next refusal is told again.
            for state in (AccountState.CONNECTED, AccountState.DISCONNECTED):
                await account_store.set_state(connection, running.row.id, state, "", self._app.clock())
            running.row = await account_store.get_account(connection, running.row.name)

    async def _account_rows(self) -> tuple[Sequence[AccountRow], Owners]:
        try:
            async with self._app.database.read() as connection:
                fleet = None if self._app.database.alone else await leases.read_fleet(connection)
                return await account_store.list_accounts(connection), self._owners(fleet)
        except MailmillError:
            return [], {}

    def _view(self, name: str) -> AccountView | None:
        running = self._app.accounts.get(name)
        return running.sync.view() if running is not None else None

    def _owners(self, fleet: Fleet | None) -> Owners:
        return fleet_view.owners(fleet, self._app.fleet_node, syncs=self._syncs)

    def _state(self, row: AccountRow, owners: Owners) -> AccountState:
        """A running account's own word; else the stored one, which of an account without an owner may be from before a
        crash.
        """
        running = self._app.accounts.get(row.name)
        if running is not None and running.kept:
            return running.sync.view().state
        if owners.get(row.shard, self._app.node) != self._app.node:
            return row.state
        stale = {AccountState.CONNECTING, AccountState.SYNCING, AccountState.CONNECTED}
        return AccountState.DISCONNECTED if row.state in stale else row.state

    def _reason(self, row: AccountRow, state: AccountState) -> str:
        view = self._view(row.name)
        if view is not None and state is view.state and state is not row.state:
            return view.reason
        return row.state_reason if state is row.state else ""

    def _state_counts(self, rows: Sequence[AccountRow], owners: Owners) -> dict[str, int]:
        return dict(Counter(str(self._state(row, owners)) for row in rows))

    def _account(self, row: AccountRow, figures: Figures, owners: Owners) -> JsonObject:
        messages = figures.messages.get(row.id, 0)
        view = self._view(row.name)
        progress = None
        if view is not None and row.initialized_at is None and view.progress.total:
            progress = {"stored": min(messages, view.progress.total), "total": view.progress.total}
        state = self._state(row, owners)
        return {
            "account": row.name,
            "node": None if row.paused else owners.get(row.shard),
            "email": row.email,
            "state": str(state),
            "stateReason": self._reason(row, state),
            "stateChangedAt": views.iso(row.state_changed_at),
            "backlog": str(row.backlog),
            "mailboxes": figures.mailboxes.get(row.id, 0),
            "messages": messages,
            "lastSyncAt": views.iso(view.last_pass_at if view else None),
            "secondsSinceLastRoundTrip": view.silent_seconds if view else None,
            "connections": view.connections if view else 0,
            "push": (view.push if view else None) or "poll",
            "pushedMailbox": view.pushed if view else None,
            "sweepSeconds": view.sweep_seconds if view else None,
            "progress": progress,
            "verify": last_view(self._app.verification.last(row.name)),
        }

    async def _look(self, connection: ImapConnection) -> JsonObject:
        mailboxes = await connection.list_mailboxes()
        return {
            "ok": True,
            "login": True,
            "tls": str(connection.endpoint.tls) if connection.endpoint.tls is not Tls.NONE else "none",
            "capabilities": sorted(connection.capabilities),
            "tier": str(tier_of(connection.features)),
            "push": str(best_push(connection.features)),
            "mailboxes": len(mailboxes),
        }


async def raw_of(blobs: BlobStore, message: MessageRow) -> bytes:
    """The raw bytes. Raises RawExpiredError where retention took them, StoreError where they cannot be read."""
    if message.raw_expired_at is not None:
        raise RawExpiredError(message.id, account=message.account)
    if not message.has_raw:
        raise StoreError(
            f"no row says where the raw bytes of message {message.id} lie",
            hint="mailmill verify --repair fetches them again, as far as the server still has them",
        )
    return await blobs.get(message.blob)
