"""One module for each row of the table: ``TITLE`` and ``async def measure(stage: Stage) -> Result``."""

from bench.rows import (
    cuts,
    fetch,
    first_sync,
    first_sync_growth,
    flag_changes,
    hanging_destination,
    latency,
    loop_lag,
    memory,
    no_change,
    no_change_distance,
    no_change_fleet,
    parse,
    pool,
    push,
)

ROWS = {
    "fetch": fetch,
    "parse": parse,
    "first_sync": first_sync,
    "first_sync_growth": first_sync_growth,
    "no_change": no_change,
    "no_change_fleet": no_change_fleet,
    "no_change_distance": no_change_distance,
    "flag_changes": flag_changes,
    "pool": pool,
    "push": push,
    "latency": latency,
    "loop_lag": loop_lag,
    "cuts": cuts,
    "memory": memory,
    "hanging_destination": hanging_destination,
}
