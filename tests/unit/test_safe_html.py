"""HTML of a stranger made fit to be shown: harmless, capped, and never in the way of anything else."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mailmill.app import safe_html as module
from mailmill.app.safe_html import MAX_HTML_CHARS, Sanitizer, safe_html

HANGS = 0.05


def test_what_runs_is_taken_out_and_what_is_read_stays() -> None:
    html, cut = safe_html('<p onclick="x()">Hello <b>you</b><script>alert(1)</script><a href="javascript:x">a</a></p>')
    assert "Hello <b>you</b>" in html
    assert not cut
    for active in ("onclick", "script", "alert"):
        assert active not in html


def test_a_title_is_no_text() -> None:
    assert safe_html("<html><head><title>Offer</title></head><body><p>Hello</p></body></html>") == (
        "<p>Hello</p>",
        False,
    )


def test_what_is_too_long_is_cut() -> None:
    html, cut = safe_html("x" * (MAX_HTML_CHARS + 1))
    assert (len(html), cut) == (MAX_HTML_CHARS, True)
    assert safe_html("x" * MAX_HTML_CHARS)[1] is False


@pytest.mark.parametrize(
    "bomb", ["<div>" * 50_000, "<div>" * 5_000 + "x" + "</div>" * 5_000, "<b><i>" * 30_000 + "<p>x"]
)
def test_nesting_is_flattened_before_the_sanitiser_sees_it(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def clean(html: str, **_options: object) -> str:
        given.append(html)
        return html

    monkeypatch.setattr(module.nh3, "clean", clean)
    _, cut = safe_html(bomb)
    assert cut
    assert given[0].count("<div>") <= 2_001
    assert given[0].count("<b>") <= 2_001


async def test_off_the_loop_it_gives_the_same() -> None:
    sanitizer = Sanitizer()
    assert await sanitizer.clean("<p>a<script>b</script></p>") == ("<p>a</p>", False)
    assert await sanitizer.clean("") == ("", False)
    sanitizer.close()


async def test_html_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(html: str, **_options: object) -> str:
        assert release.wait(60)
        return html

    monkeypatch.setattr(module.nh3, "clean", hang)
    sanitizer = Sanitizer(timeout_seconds=HANGS)
    async with asyncio.timeout(30):
        # More than it has threads; other work of the loop's own threads goes on.
        assert await asyncio.gather(*(sanitizer.clean("x") for _ in range(5))) == [("", True)] * 5
        assert await asyncio.to_thread(lambda: "free") == "free"
    release.set()
    sanitizer.close()


async def test_a_panic_in_the_sanitiser_costs_only_that_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def panics(html: str, **_options: object) -> str:
        raise Panic

    monkeypatch.setattr(module.nh3, "clean", panics)
    sanitizer = Sanitizer()
    assert await sanitizer.clean("x") == ("", True)
    sanitizer.close()
