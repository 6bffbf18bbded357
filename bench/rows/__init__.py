"""One module for each row of the table: ``TITLE`` and ``async def measure(stage: Stage) -> Result``."""

from bench.rows import fetch, first_sync, hanging_destination, latency, memory, no_change, pool

ROWS = {
    "fetch": fetch,
    "first_sync": first_sync,
    "no_change": no_change,
    "pool": pool,
    "latency": latency,
    "memory": memory,
    "hanging_destination": hanging_destination,
}
