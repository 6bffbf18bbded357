"""`mailmill.imap` as others use it: what it offers, what it says of it, and what it drags in."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

from mailmill import imap

_BELOW = {"mailmill.clock", "mailmill.errors", "mailmill.model", "mailmill.uid_set"}


@pytest.mark.children_only
def test_the_import_brings_nothing_along():
    """No database, no web framework, no settings: the standard library and the few modules below this one."""
    program = "import json, sys; import mailmill.imap; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", program], check=True, capture_output=True, timeout=60)
    loaded: list[str] = json.loads(done.stdout)
    ours = {name for name in loaded if name.startswith("mailmill.") and not name.startswith("mailmill.imap")}
    assert ours <= _BELOW
    # What an editable installation needs to be found at all starts with two underscores.
    outside = {name.split(".")[0] for name in loaded if not name.startswith("_")} - set(sys.stdlib_module_names)
    assert outside <= {"mailmill", "sitecustomize", "usercustomize"}


def test_every_name_is_there_and_in_order():
    assert sorted(imap.__all__, key=lambda name: (not name.isupper(), name)) == imap.__all__
    assert len(set(imap.__all__)) == len(imap.__all__)
    for name in imap.__all__:
        assert hasattr(imap, name), name


def test_all_errors_that_this_room_may_raise_are_offered():
    def family(kind: type[imap.ImapError]) -> set[str]:
        return {kind.__name__}.union(*(family(each) for each in kind.__subclasses__()))

    assert {name for name in family(imap.ImapError) if not name.startswith("Test")} <= set(imap.__all__)


def public_parts(name: str) -> list[tuple[str, object]]:
    thing = getattr(imap, name)
    if not inspect.isclass(thing) or issubclass(thing, Exception | str):
        return []
    parts = [(name, thing)]
    for part, value in vars(thing).items():
        if not part.startswith("_") and (isinstance(value, classmethod | property) or inspect.isfunction(value)):
            parts.append((f"{name}.{part}", value))
    return parts


@pytest.mark.parametrize("name", imap.__all__)
def test_every_public_name_says_what_it_is(name: str):
    for part, value in public_parts(name):
        text = inspect.getdoc(value) or ""
        # A dataclass without a docstring gets its signature for one.
        assert len(text.split()) >= 3 and not text.startswith(f"{name}("), part
