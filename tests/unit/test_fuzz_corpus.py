"""Everything that fuzzing has found so far, once more, without the fuzzer; and the fuzzer's own yardstick."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import __main__ as runner
from fuzz import fuzz_message_parser, fuzz_wire, seeds
from mailmill.imap.wire import Framed, Framer, split_run

CORPUS = Path(runner.__file__).parent / "corpus"


def inputs(target: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted((CORPUS / target).iterdir()):
        yield path.name, path.read_bytes()
    for number, data in enumerate(seeds.inputs(target)):
        yield f"seed {number}", data


@pytest.mark.parametrize("target", runner.TARGETS)
def test_nothing_in_the_corpus_breaks_a_law(target: str) -> None:
    check = runner.check_of(target)
    names = []
    for name, data in inputs(target):
        try:
            check(data)
        except BaseException as error:
            error.add_note(f"tests/fuzz/corpus/{target}/{name}")
            raise
        names.append(name)
    assert len(names) > 50


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    fuzz_wire.check(data)
    fuzz_message_parser.check(data)


# -- would the target notice? ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["drops", "doubles", "cuts", "swallows a blank"])
def test_a_broken_framer_is_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    received = Framer.received

    def wrong(framer: Framer, count: int) -> Sequence[Framed]:
        framed = received(framer, count)
        responses = [parts for each in framed for parts in (split_run(each) if isinstance(each, bytes) else [each])]
        match broken:
            case "drops":
                return responses[1:]
            case "doubles":
                return responses + responses[:1]
            case "cuts":
                return [[*parts[:-1], parts[-1][:-1]] for parts in responses if isinstance(parts[-1], bytes)]
            case _:
                return [parts for parts in responses if parts[-1] != b")"]

    monkeypatch.setattr(Framer, "received", wrong)
    with pytest.raises(AssertionError):
        for _, data in inputs("wire"):
            fuzz_wire.check(data)


def test_a_literal_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailmill.imap.session.discard_sections", lambda *_: None)
    with pytest.raises(AssertionError, match="lost"):
        for _, data in inputs("wire"):
            fuzz_wire.check(data)
