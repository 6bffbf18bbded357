"""Run a fuzz target under atheris, for a time: ``python -m fuzz wire --seconds 600``; see ``make fuzz``.

Exit code 0: nothing found. Otherwise the input that broke it is in ``tests/fuzz/crashes``, its traceback above, and
``python -m fuzz wire --once FILE`` repeats it, without atheris.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from . import seeds

HERE = Path(__file__).parent
TARGETS = ("wire", "message_parser")
# Short inputs run often; what takes long ones to reach is left to the property tests.
LONGEST_INPUT_BYTES = 1024
LONGEST_CORPUS_INPUT_BYTES = 400
LONGEST_RUN_SECONDS = 10
MOST_MEMORY_MB = 1500


def check_of(target: str) -> Callable[[bytes], None]:
    check: Callable[[bytes], None] = importlib.import_module(f"fuzz.fuzz_{target}").check
    return check


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", metavar="TARGET", help=f"{' or '.join(TARGETS)}; all without one")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: %(default)s)")
    parser.add_argument("--merge", action="store_true", help="make what was found until now the corpus, minimised")
    parser.add_argument("--once", type=Path, metavar="FILE", help="run one input, without atheris")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    targets: Sequence[str] = options.target or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(unknown)}")
    if options.once is not None:
        for target in targets:
            check_of(target)(options.once.read_bytes())
        return 0
    if options.merge:
        for target in targets:
            kept = minimise(check_of(target), HERE / "corpus" / target, HERE / "found" / target)
            print(f"{target}: {kept} inputs in the corpus")
        return 0
    if not _has_atheris():
        return 2
    if options.in_this_process:
        _run(targets[0], options.seconds)
    failed = 0
    for target in targets:
        print(f"== {target}", flush=True)
        # A process for each: libFuzzer ends the one that it runs in.
        command = [sys.executable, "-m", "fuzz", target, "--seconds", str(options.seconds), "--in-this-process"]
        failed += bool(subprocess.run(command, check=False).returncode)
    return 1 if failed else 0


def minimise(check: Callable[[bytes], None], corpus: Path, found: Path) -> int:
    """Keep in ``corpus`` the shortest inputs that together go every way through our code. Returns how many."""
    everything = {path.name: path.read_bytes() for folder in (found, corpus) for path in folder.glob("*")}
    kept: dict[str, bytes] = {}
    seen: set[tuple[str, int, int]] = set()
    for name, data in sorted(everything.items(), key=lambda one: (len(one[1]), one[0])):
        if len(data) <= LONGEST_CORPUS_INPUT_BYTES and not (ways := _ways_through(check, data)) <= seen:
            seen |= ways
            kept[name] = data
    for path in corpus.glob("*"):
        path.unlink()
    for name, data in kept.items():
        (corpus / name).write_bytes(data)
    return len(kept)


def _ways_through(check: Callable[[bytes], None], data: bytes) -> set[tuple[str, int, int]]:
    """From which line to which one goes, in code of mailmill."""
    ways: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, _event: str, _argument: object) -> Callable[..., object] | None:
        if "mailmill" not in frame.f_code.co_filename:
            return None
        previous = 0

        def step(frame: FrameType, event: str, _argument: object) -> Callable[..., object]:
            nonlocal previous
            if event == "line":
                ways.add((frame.f_code.co_filename, previous, frame.f_lineno))
                previous = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        check(data)
    finally:
        sys.settrace(None)
    return ways


def _has_atheris() -> bool:
    try:
        importlib.import_module("atheris")
    except ImportError:
        running = ".".join(map(str, sys.version_info[:2]))
        print(
            f"atheris is not installed for this Python ({running}). It has wheels for CPython 3.11 to 3.14 on Linux; "
            "with another: make clean && make fuzz PYTHON=python3.11",
            file=sys.stderr,
        )
        return False
    return True


def _run(target: str, seconds: int) -> None:
    """libFuzzer takes the process over and ends it."""
    import atheris

    corpus, found, crashes = HERE / "corpus" / target, HERE / "found" / target, HERE / "crashes"
    for folder in (corpus, found, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    seeds.write(target, found)
    # Only our own code counts as coverage: what is new inside of `re` or `email` leads nowhere.
    with atheris.instrument_imports(include=["mailmill.imap", "mailmill.message_parser", "mailmill.uid_set"]):
        check = check_of(target)
    arguments = [
        f"fuzz_{target}",
        f"-artifact_prefix={crashes}/{target}-",
        f"-timeout={LONGEST_RUN_SECONDS}",
        f"-rss_limit_mb={MOST_MEMORY_MB}",
        "-print_final_stats=1",
        f"-dict={HERE / f'{target}.dict'}",
        f"-max_len={LONGEST_INPUT_BYTES}",
        f"-max_total_time={seconds}",
        str(found),
        str(corpus),
    ]
    atheris.Setup(arguments, check)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
