"""The registry: what a decorator declares, how specs are found, and that each mistake gets one clear line."""

from __future__ import annotations

import sys
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from mailmill.errors import ConfigurationError
from mailmill.processing import registry
from mailmill.processing.registry import Processor, can_be_imported, load, processor


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``modules(name="source", …)`` makes modules that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def write(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text("from mailmill.processing.registry import processor\n" + source)
            made.append(name)

    yield write
    for name in made:
        sys.modules.pop(name, None)


def names(found: list[Processor]) -> list[str]:
    return [one.name for one in found]


def test_the_decorator_returns_the_function_itself() -> None:
    @processor("invoice", version=3, timeout_seconds=30, concurrency=2, max_attempts=1)
    async def invoice(message: Any, context: Any) -> None: ...

    declared = getattr(invoice, registry.ATTRIBUTE)
    assert declared == Processor("invoice", 3, invoice, "async", 30, 2, 1, None)


def test_kinds() -> None:
    async def on_loop(message: Any, context: Any) -> None: ...
    def in_thread(message: Any, context: Any) -> None: ...

    assert getattr(processor("a")(on_loop), registry.ATTRIBUTE).kind == "async"
    assert getattr(processor("b")(in_thread), registry.ATTRIBUTE).kind == "thread"
    assert getattr(processor("c", process=True)(in_thread), registry.ATTRIBUTE).kind == "process"
    assert getattr(processor("d", process=True)(on_loop), registry.ATTRIBUTE).kind == "process"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "1st"},
        {"name": "x" * 81},
        {"name": "a b"},
        {"name": "a", "version": 0},
        {"name": "a", "timeout_seconds": 0},
        {"name": "a", "concurrency": 0},
        {"name": "a", "max_attempts": 0},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"the processor {wrong['name']!r}"):
        processor(**wrong)(lambda message, context: None)


def test_by_import_path(modules: Any) -> None:
    modules(one_mod="@processor('one')\ndef one(m, c): ...\n@processor('two')\ndef two(m, c): ...\n")
    assert names(load(["one_mod:two"], entry_points=False)) == ["two"]
    assert names(load(["one_mod"], entry_points=False)) == ["one", "two"]
    assert names(load(["one_mod:two", "one_mod"], entry_points=False)) == ["two", "one"]
    assert load([], entry_points=False) == []


def test_a_module_gives_its_own_not_what_it_imports(modules: Any) -> None:
    modules(
        far_mod="@processor('far')\ndef far(m, c): ...\n",
        near_mod="from far_mod import far\n@processor('near')\ndef near(m, c): ...\n",
    )
    assert names(load(["near_mod"], entry_points=False)) == ["near"]


def test_two_of_one_name_are_refused_with_both_places(modules: Any) -> None:
    modules(
        left_mod="@processor('same')\ndef left(m, c): ...\n", right_mod="@processor('same')\ndef right(m, c): ...\n"
    )
    with pytest.raises(ConfigurationError) as raised:
        load(["left_mod:left", "right_mod"], entry_points=False)
    assert "'same'" in str(raised.value)
    assert "left_mod:left (from 'left_mod:left')" in str(raised.value)
    assert "right_mod:right (from 'right_mod')" in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "source", "says"),
    [
        ("no_such_module:f", "", "'no_such_module:f' cannot be imported: ModuleNotFoundError"),
        ("bad_mod:f", "raise RuntimeError('at import')", "'bad_mod:f' cannot be imported: RuntimeError: at import"),
        ("bad_mod:f", "def (", "'bad_mod:f' cannot be imported: SyntaxError"),
        ("bad_mod:missing", "", "'bad_mod:missing' is not there: bad_mod has no 'missing'"),
        ("bad_mod:f", "def f(m, c): ...", "'bad_mod:f' is not a processor"),
        ("bad_mod", "def f(m, c): ...", "'bad_mod' declares no processor"),
        ("bad_mod:", "", "'bad_mod:' does not name a processor"),
        ("", "", "'' does not name a processor"),
        ("bad_mod:f", "@processor('9')\ndef f(m, c): ...", "'bad_mod:f': the processor '9'"),
        (
            "bad_mod:f",
            "def wrap(g):\n    return processor('f', process=True)(lambda m, c: g(m, c))\nf = wrap(print)",
            "cannot run in a child process",
        ),
    ],
)
def test_each_mistake_gets_one_clear_line(modules: Any, spec: str, source: str, says: str) -> None:
    modules(bad_mod=source)
    with pytest.raises(ConfigurationError) as raised:
        load([spec], entry_points=False)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


class _Sent:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, message: Any, context: Any) -> Any:
        return self.value


def test_what_another_process_can_have() -> None:
    assert can_be_imported(test_what_another_process_can_have)
    assert can_be_imported(_Sent({"rules": ("a", 1)})), "an object is its class and its values"
    assert not can_be_imported(_Sent(threading.Lock())), "values that cannot be sent"
    assert not can_be_imported(lambda message, context: None)
    assert not can_be_imported(_Sent("bound").__call__)
    local = type("Local", (), {"__call__": lambda self, message, context: None})
    assert not can_be_imported(local())


def test_entry_points_of_installed_packages_are_found(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    modules(plugin_mod="@processor('plugged')\ndef plugged(m, c): ...\n")
    point = metadata.EntryPoint("anything", "plugin_mod:plugged", registry.ENTRY_POINTS)
    monkeypatch.setattr(
        registry.metadata, "entry_points", lambda *, group: (point,) if group == registry.ENTRY_POINTS else ()
    )
    assert names(load([])) == ["plugged"]
    assert load([], entry_points=False) == []
