"""The reading of well-formed mail compared with the standard library's, on mail that the library itself writes."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.headerregistry import Address as TheirAddress
from email.message import EmailMessage
from email.utils import format_datetime

from hypothesis import given
from hypothesis import strategies as st

from mailmill.message_parser import parse_message

# No character that the library itself writes or reads in a way of its own: controls, white space at the ends, and
# encoded words within the text.
WORD = st.text(st.characters(categories=["L", "N", "Sc", "Sm"]), min_size=1, max_size=8)
WORDS = st.lists(WORD, min_size=1, max_size=6).map(" ".join)
ATOM = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=10)
NAMES = st.lists(ATOM, max_size=3).map(" ".join)


def addresses(names: st.SearchStrategy[str]) -> st.SearchStrategy[TheirAddress]:
    return st.builds(lambda name, local, host: TheirAddress(name, local, f"{host}.example"), names, ATOM, ATOM)


# Short names, and in lists ASCII ones alone: where it folds others, the library of Python 3.11 writes the comma into
# the name, or reads a space into it.
ADDRESSES = st.lists(addresses(NAMES), min_size=1, max_size=4)
LINES = st.lists(WORDS, max_size=6).map(lambda lines: "".join(f"{line}\n" for line in lines))
DATES = st.datetimes(datetime(1971, 1, 1), datetime(2037, 1, 1)).map(  # noqa: DTZ001 - made aware below
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)


@st.composite
def messages(draw: st.DrawFn) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = draw(WORDS)
    message["From"] = draw(addresses(st.just("") | WORD))
    message["To"] = draw(ADDRESSES)
    if draw(st.booleans()):
        message["Cc"] = draw(ADDRESSES)
    message["Date"] = format_datetime(draw(DATES))
    message["Message-ID"] = f"<{draw(ATOM)}@{draw(ATOM)}>"
    encoding = draw(st.sampled_from([None, "base64", "quoted-printable", "8bit"]))
    message.set_content(draw(LINES), **({"cte": encoding} if encoding else {}))
    if draw(st.booleans()):
        message.add_alternative(f"<p>{draw(WORDS)}</p>\n", subtype="html")
    for data in draw(st.lists(st.binary(max_size=200), max_size=3)):
        name = draw(ATOM)
        message.add_attachment(
            data, maintype="application", subtype="x-test", filename=f"{name}.bin", cid=f"<{name}@x>"
        )
    return message


@given(messages(), st.booleans())
def test_what_the_library_writes_is_read_as_it_reads_it(written: EmailMessage, bare_line_feeds: bool) -> None:
    raw = written.as_bytes(policy=policy.default if bare_line_feeds else policy.SMTP)
    theirs = message_from_bytes(raw, policy=policy.default)
    assert isinstance(theirs, EmailMessage)
    parsed = parse_message(raw)
    summary = parsed.summary
    assert summary.subject == str(theirs["Subject"])
    for ours, field in ((summary.from_, "From"), (summary.to, "To"), (summary.cc, "Cc")):
        their = theirs[field].addresses if theirs[field] is not None else ()
        assert [(a.name, a.address) for a in ours] == [(a.display_name, a.addr_spec) for a in their]
    assert summary.date == theirs["Date"].datetime.timestamp()
    assert summary.message_id_header == theirs["Message-ID"]
    plain, html = theirs.get_body(("plain",)), theirs.get_body(("html",))
    assert plain is not None
    assert parsed.text_plain == plain.get_content().replace("\r\n", "\n")
    assert parsed.text_html == ("" if html is None else html.get_content().replace("\r\n", "\n"))
    assert [(a.filename, a.content, a.content_type, a.content_id, a.inline) for a in parsed.attachments] == [
        (part.get_filename(), part.get_content(), part.get_content_type(), part["Content-ID"].strip("<>"), False)
        for part in theirs.iter_attachments()
    ]
    assert parsed.defects == ()
