"""What a processor returns, as JSON text: what every database keeps, and what is refused before it is written out."""

from __future__ import annotations

from typing import Any

import pytest

from mailmill.errors import ProcessorError
from mailmill.processing import json_value


def test_json_text_is_what_every_database_keeps() -> None:
    assert json_value.encode({"ü": [1, None, True]}) == '{"ü":[1,null,true]}'
    assert json_value.encode({"a\x00": "b\ud800"}) == '{"a\ufffd":"b\ufffd"}'
    assert json_value.encode("a literal \\u0000") == '"a literal \\\\u0000"'
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for wrong in (float("nan"), float("inf"), b"bytes", object(), nested, {(1, 2): 3}):
        with pytest.raises(ProcessorError) as raised:
            json_value.encode(wrong)
        assert raised.value.permanent


def test_values_far_above_the_limit_are_not_even_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[Any] = ["x"]
    for _ in range(30):
        shared = [shared, shared]  # 2³⁰ leaves once it is written out
    monkeypatch.setattr(json_value.json, "dumps", None)
    for big in (shared, [10**4000] * 10_000, {"a": "x" * json_value.MAX_CHARACTERS}, [0] * 600_000):
        with pytest.raises(ProcessorError, match="above the limit") as raised:
            json_value.encode(big)
        assert raised.value.permanent


def test_endless_nesting_is_told_at_once() -> None:
    cyclic: list[Any] = []
    cyclic.append({"inner": cyclic})
    deep: Any = 1
    for _ in range(json_value.MAX_DEPTH):
        deep = [deep]
    for nested in (cyclic, deep):
        with pytest.raises(ProcessorError, match="more than 500 levels") as raised:
            json_value.encode(nested)
        assert raised.value.permanent
    assert json_value.encode(deep[0]).startswith("[[[")


@pytest.mark.parametrize("value", ["", "ab", 0, [], {}, [[]], [1], [1, 2], {"a": 1, "b": ["c", None]}, [[1], [2, {}]]])
def test_the_weight_of_a_value_is_never_above_its_length(value: Any) -> None:
    length = len(json_value.encode(value))
    assert length // 2 <= json_value._weigh(value, 1000) <= length
