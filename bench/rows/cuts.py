"""24 cuts, stalls and half-open links at random moments, while another client changes the mail: is the store whole?

Runs what ``tests/chaos/test_cuts.py`` runs, with other seeds, on Dovecot through the proxy that does the harm. A life
that does not end with store and server equal, or that takes a person to get there, raises: then the row could not be
measured. Timed is what comes after the last fault; the account's timeouts are short here (1.5 s).
"""

from __future__ import annotations

from structlog.testing import capture_logs

from bench.figures import Goal, Line, Result, Samples
from bench.stage import Stage
from harness.cuts import survive_cuts

TITLE = "24 cuts, stalls and half-open links under live change"

_FAULTS = 24


async def measure(stage: Stage) -> Result:
    lives = stage.size(3, 1)
    stage.bar.expect(lives * _FAULTS)
    survived = []
    for seed in range(101, 101 + lives):
        stage.bar.doing(f"life {seed - 100}/{lives}")
        # What the account has to say about its misfortunes is not for the table.
        with stage.folder() as folder, capture_logs():
            survived.append(
                await survive_cuts(stage.dovecot, folder, faults=_FAULTS, seed=seed, advance=stage.bar.advance)
            )
    faults = Samples.of([each.faults.total() for each in survived], "faults")
    lines = (
        Line("faults survived, store equal to server", faults, Goal("at least", _FAULTS, "faults")),
        Line("  whole after the last fault", Samples.of([each.whole_after_seconds for each in survived], "s")),
        Line("  changes by the other client", Samples.of([each.changes for each in survived], "")),
        Line("  connections opened", Samples.of([each.connections for each in survived], "")),
    )
    return Result(lines, (), {"faults": [dict(each.faults) for each in survived]})
