"""The suite misses each guard that is taken out: a broken twin fails the tests that are there for it, by an assertion.

The guards and their tests are in ``twins.guards``.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from twins.guards import TWINS

pytestmark = pytest.mark.children_only

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """What pytest did: how it ended, and of each test the errors by phase (an empty one: it passed)."""

    code: int
    tests: dict[str, dict[str, str]]
    output: str

    def of(self, named: str) -> dict[str, dict[str, str]]:
        """The tests of this name, with whatever parameters."""
        found = {test: ran for test, ran in self.tests.items() if test == named or test.startswith(f"{named}[")}
        assert found, f"no such test was run: {named}\n{self.output}"
        return found


def run(selected: Iterable[str], folder: Path, twin: str = "", seconds: float | None = None) -> Ran:
    """The selected tests in a process of their own, on the broken twin of this name, or on mailmill as it is. Raises
    TimeoutExpired after ``seconds``."""
    folder.mkdir(exist_ok=True)
    report = folder / "report"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ |= {"PYTHONPATH": str(ROOT / "tests"), "BROKEN_TWIN": twin, "BROKEN_TWIN_REPORT": str(report)}
    options = ["-n", "0", "-p", "twins.plugin", "--hypothesis-profile=twin", "--tb=short", "--timeout=120", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--basetemp={folder / 'tests'}", *dict.fromkeys(selected)],
        cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=seconds,
    )  # fmt: skip
    tests: dict[str, dict[str, str]] = {}
    for line in report.read_text().splitlines() if report.exists() else ():
        said = json.loads(line)
        assert said["outcome"] != "skipped", said
        tests.setdefault(said["test"], {})[said["phase"]] = "" if said["outcome"] == "passed" else said["error"]
    return Ran(done.returncode, tests, done.stdout)


RUN_SECONDS = 130


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TWINS)
def test_a_broken_twin_is_caught(name: str, tmp_path: Path) -> None:
    twin = TWINS[name]
    try:
        ran = run((*twin.caught_by, *twin.spares), tmp_path, name, seconds=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        # What is broken may also wait for ever where it is to be cleaned up, which is not what it is to show.
        ran = run((*twin.caught_by, *twin.spares), tmp_path / "again", name, seconds=RUN_SECONDS)
    assert ran.code == pytest.ExitCode.TESTS_FAILED, ran.output
    for named in twin.caught_by:
        for test, errors in ran.of(named).items():
            assert errors.pop("call") == "AssertionError", f"{test} does not see it\n{ran.output}"
            assert not any(errors.values()), ran.output
    for named in twin.spares:
        for test, errors in ran.of(named).items():
            assert not any(errors.values()), f"{test} fails\n{ran.output}"


@pytest.mark.timeout(600)  # all of them, one after the other
def test_whole_it_passes_the_same_tests(tmp_path: Path) -> None:
    selected = list(itertools.chain.from_iterable((*twin.caught_by, *twin.spares) for twin in TWINS.values()))
    ran = run(selected, tmp_path)
    assert ran.code == pytest.ExitCode.OK, ran.output
    for named in selected:
        ran.of(named)
