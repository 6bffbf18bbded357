"""COPYUID, APPENDUID, MODIFIED: what servers tell is bounded before it is expanded, and believed only where it can be
true.
"""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmill.imap.write_codes import parse_append_uid, parse_copy_uid, parse_modified
from mailmill.uid_set import UidSet


def test_append_uid():
    assert parse_append_uid("38505 3955") == (38505, 3955)


@pytest.mark.parametrize(
    "argument", ["", "1", "1 2 3", "1 0", "0 1", "1 2:3", "1:2 3", "1 2,3", "a b", "1 *", "1 4294967296", "1 ٣", "-1 2"]
)
def test_what_is_no_append_uid(argument: str):
    assert parse_append_uid(argument) is None


def test_copy_uid_keeps_the_order_in_which_it_is_told():
    """RFC 4315 §3: the n-th of the one set is the n-th of the other, and neither need be in ascending order."""
    told = parse_copy_uid("38505 304,319:320 3956:3958")
    assert told is not None
    assert (told.uid_validity, dict(told.uids)) == (38505, {304: 3956, 319: 3957, 320: 3958})
    backwards = parse_copy_uid("7 9,3:4 100:101,50")
    assert backwards is not None
    assert dict(backwards.uids) == {9: 100, 3: 101, 4: 50}
    turned = parse_copy_uid("7 4:3 1:2")
    assert turned is not None
    assert dict(turned.uids) == {3: 1, 4: 2}, "RFC 9051 §9: 4:3 is 3:4"


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "7",
        "7 1",
        "7 1:3 1:2",
        "7 1:2 1:3",
        "7 1 2 3",
        "0 1 1",
        "7:8 1 1",
        "7 1,1 2,3",
        "7 1,2 3,3",
        "7 1:5,3 1:6",
        "7 * 1",
        "7 1:* 1:*",
        "7 1, 1,",
        "7 0 1",
        "7 a b",
        "7 () ()",
        "7 1:4294967296 1:4294967296",
    ],
)
def test_what_is_no_copy_uid(argument: str):
    assert parse_copy_uid(argument) is None


@pytest.mark.parametrize(
    "argument",
    [
        "7 1:4294967295 1:4294967295",
        "7 1:2147483648,1:2147483648 1:4294967295",
        "7 1:4294967295 1",
        "7 " + "1:4294967295," * 1000 + "1 " + "1:4294967295," * 1000 + "1",
        "7 1:250001 1:250001",
    ],
)
def test_a_few_bytes_never_become_much_memory(argument: str):
    tracemalloc.start()
    try:
        assert parse_copy_uid(argument) is None
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_modified():
    assert parse_modified("7,9:12") == UidSet([7, 9, 10, 11, 12])
    assert parse_modified("1:4294967295") == UidSet.span(1, 2**32 - 1)
    for argument in ("", "x", "1,", "0", "1:*", "1 2", "1," * 3_000_000 + "1"):
        assert parse_modified(argument) is None


@given(st.text("0123456789:,* \x00é-", max_size=60))
def test_any_text_is_read_or_refused(argument: str):
    for parse in (parse_append_uid, parse_copy_uid, parse_modified):
        parse(argument)


@given(st.integers(1, 2**32 - 1), st.dictionaries(st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1), max_size=20))
def test_what_a_server_would_write_is_read_as_it_was_meant(uid_validity: int, uids: dict[int, int]):
    if len(set(uids.values())) < len(uids) or not uids:
        return
    told = parse_copy_uid(f"{uid_validity} {','.join(map(str, uids))} {','.join(map(str, uids.values()))}")
    assert told is not None
    assert (told.uid_validity, dict(told.uids)) == (uid_validity, uids)
