"""What an HTML body does beyond showing text, and what styles do to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmill.processing.html_style import colour
from mailmill.processing.html_text import read_html
from mailmill.processing.html_tricks import MAX_DATA_IMAGES, MAX_FIELDS, MAX_FRAMES, outlook_links
from mailmill.processing.text_lines import count_split_words, tidy_lines


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#fff", 0xFFFFFF),
        ("#a0b1c2", 0xA0B1C2),
        ("#a0b1c2ff", 0xA0B1C2),
        ("#a0b1c200", None),
        ("#fff0", None),
        ("rgb(1,2,3)", 0x010203),
        ("rgba(255,255,255,0.9)", 0xFFFFFF),
        ("rgba(255,255,255,0)", None),
        ("rgb(999,0,0)", 0xFF0000),
        ("white!important", 0xFFFFFF),
        ("#12", None),
        ("papayawhip", None),
        ("url(x.png)#fff", None),
        ("linear-gradient(#fff,#eee)", None),
        ("", None),
    ],
)
def test_colours(text: str, value: int | None) -> None:
    assert colour(text) == value


def test_old_attributes_need_no_sign() -> None:
    assert colour("ffffff", bare=True) == 0xFFFFFF
    assert colour("ffffff") is None


@pytest.mark.parametrize(
    ("html", "faint"),
    [
        ('<p style="color:#fff">unseen</p><p>seen</p>', "unseen"),
        ('<body bgcolor="#222222"><font color="#222">unseen</font></body>', "unseen"),
        ('<div style="background:#eee"><p><span style="color:#f0f0f0">unseen</span></p></div>', "unseen"),
        ('<p style="color:#fefefe;background:#fff">unseen <b style="color:#000">seen</b></p>', "unseen"),
        ('<p style="color:#fff;background-color:#000">seen</p>', ""),
        ('<p style="color:#fff;background-image:url(x)">seen</p>', ""),
        ('<table><td background="x.png"><font color="#fff">seen</font></td></table>', ""),
        ('<style>#top,.x .y{background:red}</style><div id=top style="color:#fff">seen</div>', ""),
        ("<style>p>a:hover,a.b{color:#000}</style><a class=b style='background:#000'>seen</a>", ""),
        ('<a style="background:#000">seen</a>', ""),  # links have a colour of their own
    ],
)
def test_text_in_the_colour_of_its_ground(html: str, faint: str) -> None:
    assert read_html(html).tricks.faint == faint


def test_faint_text_stays_in_the_visible_text() -> None:
    assert read_html('<p style="color:#fff">unseen</p>').visible == "unseen"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Pay\u200bPal", "PayPal"),
        ("ac\u00adcount", "account"),
        ("a\u200b \u200bb", "a b"),
        ("\u200bword\u200b", "word"),
        ("می\u200cخواهم", "می خواهم"),
        ("1\u200b2", "1 2"),
    ],
)
def test_words_are_whole_for_the_reader(text: str, shown: str) -> None:
    assert tidy_lines(text) == shown


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("pass\u200bword", 1),
        ("p\u2060a\u2060s\u2060s", 1),
        ("one\u200btwo three\u200cfour", 2),
        ("Schiff\u00adfahrt", 0),
        ("s\u00adh\u00adi\u00adp", 1),
        ("mill\u200c.example", 0),
        ("plain", 0),
    ],
)
def test_split_words(text: str, count: int) -> None:
    assert count_split_words(text) == count


def test_lists_are_capped() -> None:
    html = (
        "<input name=x>" * 200
        + "<iframe src=https://b.example></iframe>" * 200
        + '<img src="data:image/png;base64,AAAA">' * 200
    )
    read = read_html(html)
    assert len(read.tricks.fields) == MAX_FIELDS
    assert len(read.tricks.frames) == MAX_FRAMES
    assert len(read.data_images) == MAX_DATA_IMAGES


@pytest.mark.parametrize(
    ("html", "targets"),
    [
        ('<!--[if mso]><a href="https://a.example">x</a><![endif]-->', ["https://a.example"]),
        ("<!--[if gte mso 9]><a href='//a.example'><a href=//b.example><![endif]-->", ["//a.example", "//b.example"]),
        ("<!--[if !mso]><!--><a href=x><!--<![endif]-->", []),
        ("<!--[if mso]><a href=x>", []),
        ("<!--[if mso<a href=x><![endif]-->", []),
        ("<!--[if mso]><![endif]--><a href=x>", []),
    ],
)  # fmt: skip
def test_what_outlook_alone_reads(html: str, targets: list[str]) -> None:
    assert outlook_links(html) == targets


@pytest.mark.parametrize(
    "html",
    [
        "<!--[if mso]>" * 70_000,
        "<!--[if" * 140_000,
        "<!--[if mso]>" + "href=" * 190_000 + "<![endif]-->",
        "<style>" + "a,b.c,#d" * 12_000 + "{color:red}</style>",
        "<style>" + ".a{color:red}" * 9_000 + "</style>" + '<p class="a b c">' * 900,
        '<p style="' + "background:#fff;color:#fff;" * 5_000 + '">x',
        "a\u200b" * 400_000,
        "s\u00ad" * 400_000,
        '<p style="' + "url(data:image/png" * 9_000 + '">x',
        "<table>" + "<td bgcolor=#000></td>" * 40_000,
    ],
)
def test_dear_html_is_read(html: str) -> None:
    read_html(html)
    outlook_links(html)


@given(st.text(alphabet="<>/=\"' !-[]ifmsohrefd&;:#0fc\u200b\n", max_size=300))
def test_any_text_is_read(html: str) -> None:
    assert isinstance(outlook_links(html), list)
    assert read_html(html).tricks.broken_words >= 0
