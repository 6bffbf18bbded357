"""The extractive summary: what is left out, what is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailmill.message_parser import parse_message
from mailmill.processing.ai.summary import MAX_SUMMARY_CHARS, body_paragraphs, split_sentences, summarize


def summary(text: str, *, subject: str = "Boat house roof", html: bool = False) -> str:
    kind = "html" if html else "plain"
    raw = f"Subject: {subject}\nContent-Type: text/{kind}; charset=utf-8\n\n{text}"
    return summarize(parse_message(raw.encode()))["text"]


LETTER = """Hi Dana,

the roof of the boat house has to be repaired before the autumn storms begin.
Two firms have sent an offer, the cheaper one asks for 4,200 euros and can begin
on 3 September. Could you tell me by Friday whether we should accept it?

Best wishes
Lena

--\x20
Lena Ott
Meadow Farm Ltd. All our roofs come with a warranty of ten full years, ask us.
"""


def test_a_letter() -> None:
    text = summary(LETTER)
    assert "roof of the boat house" in text
    assert "by Friday whether we should accept it?" in text
    for left_out in ("Hi Dana", "Best wishes", "warranty", "Meadow Farm"):
        assert left_out not in text


@pytest.mark.parametrize(
    "quoted",
    [
        "On Mon, 3 Jun 2024 at 10:12, Max Hill\n<max@hill.example> wrote:\n"
        "> The old boat house roof was fine to me, quite fine.\n> Do leave it.",
        "Am 03.06.2024 um 10:12 schrieb Max Hill:\n> The old boat house roof was fine to me, quite fine.",
        "-----Original Message-----\nFrom: Max Hill\nThe old boat house roof was fine to me, quite fine.",
        "Von: Max Hill <max@hill.example>\nGesendet: Montag, 3. Juni\nAn: Dana\nBetreff: Boat house roof\n\n"
        "The old boat house roof was fine to me, quite fine.",
    ],
)
def test_what_others_wrote_is_left_out(quoted: str) -> None:
    text = summary(f"We will repair the boat house roof in September after all.\n\n{quoted}\n")
    assert text == "We will repair the boat house roof in September after all."


def test_answers_between_quotes_are_taken() -> None:
    text = summary(
        "> Which firm?\n\nThe cheaper one will do the work for us.\n\n> When?\n\nThey begin on 3 September at eight.\n"
    )
    assert text == "The cheaper one will do the work for us. They begin on 3 September at eight."


def test_a_forwarded_message_is_summed_up_where_nothing_else_is_said() -> None:
    text = summary(
        "De: Max Hill <max@hill.example>\nEnviado: lunes\nPara: Dana\nAsunto: Roof\n\n"
        "The boat house roof has three holes in it now.\n"
    )
    assert text == "The boat house roof has three holes in it now."


def test_a_patch_is_summed_up_by_its_message() -> None:
    text = summary(
        "Keep the tide table in one cache line, so that a lookup touches memory once.\n\n"
        "Signed-off-by: Lena Ott <lena@meadow.example>\n---\n tide.c | 2 +-\n\ndiff --git a/tide.c b/tide.c\n"
        "@@ -1,2 +1,2 @@\n-int the_old_name_of_the_table(void);\n"
    )
    assert text == "Keep the tide table in one cache line, so that a lookup touches memory once."


def test_footers_and_addresses_of_pages_are_left_out() -> None:
    text = summary(
        "<p>View this message in your browser</p><p>Your parcel 4471 will arrive on Thursday between nine and noon.</p>"
        '<p><a href="https://x.example/1">Track it</a></p><p>You are receiving this mail because you ordered with us. '
        "Unsubscribe at https://x.example/u any time.</p>"
        '<div style="display:none">A hidden line of text for filters to read.</div>',
        html=True,
    )
    assert text == "Your parcel 4471 will arrive on Thursday between nine and noon."


def test_html_stands_in_for_plain_text_that_a_program_flattened() -> None:
    raw = (
        'Content-Type: multipart/alternative; boundary="b"\n\n--b\nContent-Type: text/plain\n\nHome &nbsp; Shop https://x.example\n'
        "--b\nContent-Type: text/html\n\n<p>Our harbour shop opens again on the first of May.</p>\n--b--\n"
    )
    assert body_paragraphs(parse_message(raw.encode())) == ["Our harbour shop opens again on the first of May."]


@pytest.mark.parametrize(
    "text",
    [
        "Die Reparatur des Daches beginnt am 3. September um acht Uhr. Bitte räumt vorher das Bootshaus aus!",
        "La réparation du toit commence le 3 septembre à huit heures. Pouvez-vous vider le hangar avant cette date ?",
        "Ремонт крыши начнётся третьего сентября в восемь часов утра. Пожалуйста, освободите лодочный сарай заранее.",
        "屋根の修理は九月三日の朝八時に始まります。それまでにボート小屋を空にしておいてください。",
    ],
)
def test_any_language(text: str) -> None:
    got = summary(text, subject="?")
    assert got
    assert all(sentence in got for sentence in split_sentences(text))


def test_sentences() -> None:
    text = "Mr. Ott paid 3.50 euros, i.e. all of it. Ok? Yes! See v1.2.3 for Dr. Hill... The 3. May it is."
    assert split_sentences(text) == [
        "Mr. Ott paid 3.50 euros, i.e. all of it.",
        "Ok?",
        "Yes!",
        "See v1.2.3 for Dr. Hill...",
        "The 3. May it is.",
    ]


@pytest.mark.parametrize("text", ["", "   ", "> only\n> quoted", "https://x.example/only-an-address"])
def test_the_subject_stands_in(text: str) -> None:
    assert summary(text) == "Boat house roof"


def test_short_and_the_same_every_time() -> None:
    text = " ".join(
        f"Sentence number {n} speaks of the roof and of the harbour at some length, as reports do." for n in range(300)
    )
    assert len(summary(text)) <= MAX_SUMMARY_CHARS
    assert summary(text) == summary(text)


@given(st.text(alphabet="ab .!?>\n-_:@,|1\u200b\u202eé漢<", max_size=300))
def test_any_text_is_summed_up(text: str) -> None:
    got = summary(text)
    assert len(got) <= MAX_SUMMARY_CHARS
    assert "\n" not in got
