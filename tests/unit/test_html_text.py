"""What a person sees of an HTML body."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmill.processing.html_text import MAX_LINKS, read_html


def test_blocks_are_lines_and_blanks_are_one() -> None:
    html = "<h1>Tide\n  tables</h1><p>High  water<br>at <b>ten</b>.</p><table><tr><td>a</td><td>b</td></tr></table>"
    assert read_html(html).visible == "Tide tables\nHigh water\nat ten.\na b"


@pytest.mark.parametrize(
    "element",
    [
        '<div style="display:none">gone</div>',
        '<div style="DISPLAY : NONE !important">gone<p>too</p></div>',
        '<span style="font-size:0px">gone</span>',
        '<span style="visibility:hidden">gone</span>',
        '<span style="opacity:0">gone</span>',
        '<div style="max-height:0;overflow:hidden">gone</div>',
        '<div style="height:0px;overflow:hidden">gone</div>',
        '<div style="position:absolute;left:-9999px">gone</div>',
        "<div hidden>gone</div>",
        '<style>.pre{display:none} p{color:red}</style><div class="a pre">gone</div>',
    ],
)
def test_hidden_text_is_told_apart(element: str) -> None:
    text = read_html(f"<p>seen</p>{element}<p>also</p>")
    assert text.visible == "seen\nalso"
    assert text.hidden.startswith("gone")


@pytest.mark.parametrize(
    "element",
    [
        '<td style="font-size:0"><p style="font-size:13px">shown</p></td>',  # how layout tables close their gaps
        '<div style="opacity:0.9">shown</div>',
        '<div style="max-height:0.5em">shown</div>',
        '<div style="font-size:10px">shown</div>',
        "<style>@media (max-width:480px){.m{display:none}}</style><p class=m>shown</p>",
        '<div style="height:0">shown</div>',
    ],
)
def test_what_is_not_hidden(element: str) -> None:
    assert read_html(element).visible == "shown"


def test_scripts_styles_and_titles_are_no_text() -> None:
    html = "<head><title>t</title></head><style>x</style><script>y</script><!-- c --><p onclick='z()'>seen</p>"
    text = read_html(html)
    assert text.visible == "seen"
    assert text.scripts == 2


def test_links_with_their_texts() -> None:
    html = (
        '<base href="https://example.com/a/"><a href="b?x=1">read <b>this</b></a>'
        '<a href="https://other.net/"><img alt="Logo"></a><a>no target</a><map><area href="#top"></map>'
        '<form action="/send"><input type="PassWord"></form>'
    )
    text = read_html(html)
    assert [(link.target, link.text, link.element) for link in text.links] == [
        ("https://example.com/a/b?x=1", "read this", "a"),
        ("https://other.net/", "Logo", "a"),
        ("#top", "", "area"),
        ("https://example.com/send", "", "form"),
    ]
    assert text.links[1].image
    assert (text.forms, text.password_fields, text.images) == (1, 1, 1)


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 100_000 + "deep",
        "<p>" + "".join(f"<b id={n}>" for n in range(4_000)) + "</p>" + "<p>x" * 50_000,
        "<a href=x>y" * 50_000,
        "<b " * 300_000,
        "<" * 500_000,
        "<style>" + ".a{" * 100_000,
        '<p style="' + "font-size:0" * 50_000 + '">x',
        "&amp;" * 300_000,
    ],
)
def test_dear_html_is_cut(html: str) -> None:
    text = read_html(html)
    assert len(text.links) <= MAX_LINKS
    assert len(text.visible) <= 1_000_000


@given(st.text(alphabet="<>/=\"' abpdivstylehrf&;#0\n-!", max_size=400))
def test_any_text_is_read(html: str) -> None:
    assert "\x00" not in read_html(html).visible
