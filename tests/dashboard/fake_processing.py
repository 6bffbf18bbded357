"""What the fakes answer about processing: a ledger, and a processor that is run again."""

from __future__ import annotations

from typing import Any

from mailmill.errors import ConflictError, NotFoundError

JsonObject = dict[str, Any]

LEDGER: JsonObject = {
    "messageId": "7",
    "status": "failed",
    "results": [
        {
            "processor": "threat",
            "version": 2,
            "served": True,
            "value": {"verdict": "clean"},
            "attempts": 3,
            "seconds": 0.0021,
            "finishedAt": "2026-05-04T11:38:00.000Z",
            "errors": [
                {"at": "2026-05-04T11:37:10.000Z", "kind": "attempt", "error": "TimeoutError: took over 30 s \x1b[2J"},
                {"at": "2026-05-04T11:37:40.000Z", "kind": "crash", "error": "the worker died while running it"},
            ],
        },
        {
            "processor": "threat",
            "version": 1,
            "served": False,
            "value": {"verdict": "suspicious"},
            "attempts": 1,
            "seconds": 0.0019,
            "finishedAt": "2026-05-03T11:38:00.000Z",
            "errors": [],
        },
    ],
    "work": [
        {
            "processor": "invoice",
            "version": 1,
            "state": "failed",
            "priority": 0,
            "attempt": 5,
            "crashes": 0,
            "runAt": "2026-05-04T11:40:00.000Z",
            "enqueuedAt": "2026-05-04T11:37:00.000Z",
            "errors": [{"at": "2026-05-04T11:41:00.000Z", "kind": "attempt", "error": "ValueError: no total"}],
        }
    ],
}


class FakeReprocessing:
    """Counts, then queues, then processes: a step each time that it is asked how far it is."""

    def __init__(self) -> None:
        self.asked: list[JsonObject] = []
        self.joined = False
        self.steps: list[JsonObject] = [
            {"state": "running", "total": None, "queued": 0, "left": None, "queuedAt": None},
            {"state": "running", "total": 5, "queued": 3, "left": 5, "queuedAt": None},
            {"state": "running", "total": 5, "queued": 5, "left": 4, "queuedAt": "2026-05-04T11:40:00.000Z"},
            {"state": "done", "total": 5, "queued": 5, "left": 0, "queuedAt": "2026-05-04T11:40:00.000Z"},
        ]

    async def start(self, **asked: Any) -> JsonObject:
        self.asked.append(asked)
        if asked["processor"] != "threat":
            raise NotFoundError(f"no processor {asked['processor']!r} is configured", hint="configured: threat")
        if asked["dry_run"]:
            return self._answer({"state": "dryRun", "total": 5, "queued": 0, "left": 5, "queuedAt": None}) | {
                "id": None
            }
        return self._answer(self.steps[-1] if asked["wait"] else self.steps[0]) | {"joined": self.joined}

    async def show(self, reprocess_id: int) -> JsonObject:
        if reprocess_id != 1:
            raise NotFoundError(f"there is no reprocessing {reprocess_id}")
        if len(self.steps) > 1:
            self.steps.pop(0)
        return self._answer(self.steps[0])

    async def cancel(self, reprocess_id: int) -> JsonObject:
        if self.steps[0]["state"] == "done":
            raise ConflictError(f"reprocessing {reprocess_id} is done")
        await self.show(reprocess_id)
        self.steps = [{"state": "cancelled", "total": 2, "queued": 2, "left": 1, "queuedAt": None}]
        return self._answer(self.steps[0]) | {"dropped": 3}

    async def cancel_all(self, processor: str) -> JsonObject:
        if processor != "threat" or self.steps[0]["state"] in ("done", "cancelled"):
            return {"processor": processor, "dropped": 0, "begun": 0, "cancelled": []}
        cancelled = await self.cancel(1)
        return {"processor": processor, "dropped": 3, "begun": 2, "cancelled": [cancelled]}

    async def list(self) -> list[JsonObject]:
        return [self._answer(self.steps[0])]

    def _answer(self, step: JsonObject) -> JsonObject:
        return {
            "id": "1",
            "processor": "threat",
            "version": 2,
            "since": None,
            "until": None,
            "failedOnly": False,
            "versionBelow": None,
            "all": False,
            "failed": 1,
            "paused": False,
            "createdAt": "2026-05-04T11:39:00.000Z",
            **step,
        }
