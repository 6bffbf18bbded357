"""``pytest -p twins.plugin``: the tests run on a broken twin.

``BROKEN_TWIN`` names it (none: mailmill as it is). What became of each test goes to the file ``BROKEN_TWIN_REPORT``, a
line of JSON each: the test, the phase and its outcome, and the kind of error. ``--hypothesis-profile=twin`` has
property tests stop at their first failure: nobody is going to read it, so it need not be small.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from twins.guards import TWINS

_twin = os.environ.get("BROKEN_TWIN", "")
_report = os.environ.get("BROKEN_TWIN_REPORT", "")

hypothesis.settings.register_profile(
    "twin",
    derandomize=True,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)

if _twin:
    # Here, where nothing of mailmill is loaded yet: modules that take a guard's name from another get the twin's.
    TWINS[_twin].take_out()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if _report:
        error = "" if call.excinfo is None else call.excinfo.typename
        said = {"test": item.nodeid, "phase": report.when, "outcome": report.outcome, "error": error}
        with Path(_report).open("a") as file:
            file.write(json.dumps(said) + "\n")
    return report
