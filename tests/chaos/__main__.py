"""``python -m chaos --kills 300``: a fleet under fire, a table of where its nodes died, and what the checker says.
``python -m chaos --full-disk 100``: instead of it an embedded service, whose disk is full so many times.

Exit code 0 where the checker found nothing wrong and all was hit often enough; see ``make chaos``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from chaos import full_disk
from chaos.full_disk import FullDisk
from chaos.targets import REQUIRED
from chaos.under_fire import OFFSETS, Outcome, Plan, UnderFire
from harness import small_disk
from servers.dovecot import Dovecot
from servers.postgres import Postgres

# A run of fewer kills is a look: it cannot hit every point three times.
KILLS_OF_A_FULL_RUN = 300
HITS = 3
# The last three in the middle of a transaction: PostgreSQL ends it after a while, or its locks would hold up the fleet.
FREEZES = ("ran", "hold/unasked", "finish/unasked", "webhook/answered")
FREEZES_OF_A_FULL_RUN = (*FREEZES, *FREEZES, "finish/uncommitted", "new/uncommitted", "number/uncommitted")
# Of so many times that the disk is full the service is killed in one.
KILLED_OF = 3
ROUNDS_OF_A_FULL_RUN = 60
_MOST_LINES = 50
_BAR = 30


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS_OF_A_FULL_RUN, help="at least (default: %(default)s)")
    parser.add_argument(
        "--full-disk", type=at_least_one, metavar="ROUNDS", help="no fleet: one service, on a disk that is full"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the dice (default: the time)")
    parser.add_argument("--steady-clock", action="store_true", help="no node's wall clock jumps")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an empty folder for journals and logs, to be kept")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mm-chaos-") as temporary:
        folder = options.keep or Path(temporary)
        return on_a_full_disk(options, folder) if options.full_disk is not None else under_fire(options, folder)


def under_fire(options: argparse.Namespace, folder: Path) -> int:
    full = options.kills >= KILLS_OF_A_FULL_RUN
    plan = Plan(
        kills=options.kills,
        hits=HITS if full else 0,
        freezes=FREEZES_OF_A_FULL_RUN if full else FREEZES,
        cuts=max(1, options.kills // 15),
        restarts=max(1, options.kills // 60),
        clock_offsets=("+0",) if options.steady_clock else OFFSETS,
        seed=options.seed,
    )
    progress = Progress(plan.kills, "kills")

    async def run() -> Outcome:
        with Postgres() as postgres, Dovecot() as dovecot:
            return await UnderFire(folder, postgres, dovecot, plan, progress).run()

    outcome = uvloop.run(run())
    progress.end()
    return report(outcome, options.seed, HITS if full else 0)


def on_a_full_disk(options: argparse.Namespace, folder: Path) -> int:
    if not small_disk.possible():
        print("this machine gives its users no namespaces to mount a disk in", file=sys.stderr)
        return 2
    rounds = options.full_disk
    plan = full_disk.Plan(rounds, kills=rounds // KILLED_OF, seed=options.seed)
    progress = Progress(rounds, "rounds")

    async def run() -> full_disk.Outcome:
        with Dovecot() as dovecot:
            return await FullDisk(folder, dovecot, plan, progress).run()

    outcome = uvloop.run(run())
    progress.end()
    return report_full_disk(outcome, plan)


def at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


class Progress:
    """A bar at a terminal, else a line for each thing that happens; on stderr."""

    def __init__(self, all_of_it: int, unit: str) -> None:
        self._all, self._unit = all_of_it, unit
        self._began = time.monotonic()
        self._drawn = sys.stderr.isatty()

    def __call__(self, number: int, line: str) -> None:
        seconds = f"{time.monotonic() - self._began:5.0f} s"
        counted = f"{number:4} of {self._all} {self._unit}"
        if self._drawn:
            done = min(_BAR, _BAR * number // self._all)
            text = f"\r\033[K[{'#' * done}{'.' * (_BAR - done)}] {counted} {seconds}  {line[:60]}"
        else:
            text = f"{seconds}  {counted}  {line}\n"
        print(text, end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._drawn:
            print(file=sys.stderr)


def report(outcome: Outcome, seed: int, hits: int) -> int:
    """Print the table, and what is wrong; the exit code."""
    phases = [*REQUIRED, *sorted(set(outcome.hits) - set(REQUIRED))]
    width = max(map(len, phases))
    print(f"{'killed at':<{width}}  times")
    for phase in phases:
        few = phase in REQUIRED and outcome.hits[phase] < hits
        print(f"{phase:<{width}}  {outcome.hits[phase]:5}{'  too few' if few else ''}")
    print(
        f"\n{outcome.kills} kills, connections cut {outcome.cuts} times, PostgreSQL restarted {outcome.restarts} times"
    )
    print(f"frozen at {counted(outcome.frozen)}; late writes refused: {counted(outcome.refused)}")
    print(brought(outcome, seed))
    wrong = [
        *outcome.findings,
        *(f"{phase} is a phase that nobody named: chaos.commit_points, chaos.targets" for phase in outcome.unknown),
        *(f"{phase} was hit {outcome.hits[phase]} times" for phase in REQUIRED if outcome.hits[phase] < hits),
    ]
    return verdict(wrong)


def report_full_disk(outcome: full_disk.Outcome, plan: full_disk.Plan) -> int:
    print(f"full at {counted(outcome.filled)}")
    print(
        f"{plan.rounds} times full, writes were refused in {outcome.bitten} of them: {counted(outcome.refused)};"
        f" transactions: {counted(outcome.transactions)}"
    )
    print(f"{outcome.kills} kills, {outcome.not_started} starts refused for lack of room")
    longest, middle = max(outcome.recovered), sorted(outcome.recovered)[len(outcome.recovered) // 2]
    print(f"mail that came when there was room was delivered within {longest:.1f} s (median {middle:.1f} s)")
    print(brought(outcome, plan.seed))
    hits = HITS if plan.rounds >= ROUNDS_OF_A_FULL_RUN else 0
    wrong = [
        *outcome.findings,
        *(
            f"full at {phase} {outcome.filled[phase]} times"
            for phase in full_disk.PHASES
            if outcome.filled[phase] < hits
        ),
        *(
            f"refused to {door} {outcome.refused[door]} times"
            for door in full_disk.DOORS
            if outcome.refused[door] < hits
        ),
    ]
    return verdict(wrong)


def brought(outcome: Outcome | full_disk.Outcome, seed: int) -> str:
    return (
        f"{outcome.messages} messages, {outcome.events} events, {outcome.receipts} webhooks received, work given up"
        f" {outcome.given_up} times; seed {seed}"
    )


def verdict(wrong: Sequence[str]) -> int:
    for line in wrong[:_MOST_LINES]:
        print(f"WRONG: {line}")
    if len(wrong) > _MOST_LINES:
        print(f"and {len(wrong) - _MOST_LINES} more")
    print("refused by the checker" if wrong else "the checker found nothing wrong")
    return 1 if wrong else 0


def counted(what: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(what.items())) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
