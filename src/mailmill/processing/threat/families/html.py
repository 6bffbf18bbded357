"""Family ``html``: what the HTML of a message hides, asks for or runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mailmill.model import Finding
from mailmill.processing.html_tricks import outlook_links
from mailmill.processing.text_lines import count_split_words
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.hosts import ends_in, ip_of, parse_url
from mailmill.processing.threat.evidence.lookalike import disguised_word, skeleton
from mailmill.processing.threat.evidence.targets import behind_gateways
from mailmill.processing.threat.knowledge.reference import FREE_MAIL
from mailmill.processing.threat.knowledge.web_services import FREE_HOSTING, SHORTENERS
from mailmill.processing.threat.scoring import finding

MAX_SOURCE_CHARS: Final = 1_000_000
MAX_READ_CHARS: Final = 50_000

_HIDDEN_WORDS: Final = 60  # a preheader has fewer, and what a phone shows instead says the same words again
_BROKEN_WORDS: Final = 3
_SPLIT_WORDS: Final = 4  # one or two keep a mail program from making a link of a name
_TURNED_LETTERS: Final = 8
_DISGUISED_WORDS: Final = 2
_FEW_LETTERS: Final = 100
_ENCODED_LETTERS: Final = 60  # an address hidden from harvesters has fewer

_ENCODED_PART: Final = 4  # at least a quarter of the text

_WORD = re.compile(r"[^\W\d_]{4,40}")
_PASSWORD = re.compile(
    r"^password\b|\b(?:pass(?:word|wd|code|phrase)|pwd|kennwort|passwort|contrase\w{1,3}|senha|mot.?de.?passe)\b"
)
_CARD = re.compile(
    r"\b(?:card.?(?:number|no|num)|cc.?(?:number|num|exp|csc|cvc)|cardnumber|cvv2?|cvc2?|csc|iban|pin.?code|atm.?pin"
    r"|ssn|social.?security|otp|one.?time.?code|kreditkarte\w{0,10}|num[ée]ro.?de.?carte|tarjeta)\b"
)
# How a page or a file is made out of a text within the page (HTML smuggling). Plain writing and going elsewhere is
# what pages of old did for their menus and counters.
_SMUGGLING = re.compile(
    r"\batob\s{0,3}\(|(?:write|eval)\s{0,3}\(\s{0,3}(?:unescape|decodeURI|String\.fromCharCode)|new\s{1,5}Blob\b"
    r"|createObjectURL|msSaveOrOpenBlob|msSaveBlob|fromCharCode\s{0,3}\([^)]{0,40}\s?\^|\beval\s{0,3}\(function",
    re.IGNORECASE,
)
_PAGE_SCHEMES: Final = ("data:", "javascript:", "vbscript:", "blob:")
_ENCODED_LETTER = re.compile(
    r"&#(?:0{0,4}(?:6[5-9]|[78]\d|90|9[7-9]|1[01]\d|12[0-2])|x0{0,4}(?:4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a]));", re.I
)
_OVERRIDDEN = re.compile("\u202e([^\u202c\u202d\u2069\n]{2,200})")
_LATIN = re.compile(r"[A-Za-z]")
_FOREIGN_LETTER = re.compile("[\u0370-\u052f\u2100-\u214f\uff21-\uff5a\U0001d400-\U0001d7ff]")


def hidden_text(context: ThreatContext) -> Iterator[Finding]:
    """Many words that nobody sees, and that stand nowhere else in the message: food for filters."""
    tricks = context.html.tricks
    unseen = context.html.hidden[:MAX_READ_CHARS]
    if tricks.faint:
        unseen += " " + tricks.faint
    if len(unseen) < 4 * _HIDDEN_WORDS:
        return
    seen = set(_WORD.findall(context.html.visible[:MAX_READ_CHARS].lower())) if context.html.hidden else set()
    seen -= set(_WORD.findall(tricks.faint.lower()))
    words = set(_WORD.findall(unseen.lower())) - seen
    if len(words) >= _HIDDEN_WORDS:
        yield finding("html.hidden_text", f"{len(words)} words, among them: {unseen[:120]}")


def zero_font(context: ThreatContext) -> Iterator[Finding]:
    """Hidden text between the letters of words: readers see one word, filters others."""
    count = context.html.tricks.broken_words
    if count >= _BROKEN_WORDS:
        yield finding("html.zero_font", f"hidden text within {count} words")


def split_words(context: ThreatContext) -> Iterator[Finding]:
    """Characters that show nothing, inside words of alphabets that need none."""
    count = max(context.html.tricks.split_words, count_split_words(context.message.text_plain[:MAX_READ_CHARS]))
    if count >= _SPLIT_WORDS:
        yield finding("html.split_words", f"invisible characters in {count} words")


def disguised_words(context: ThreatContext) -> Iterator[Finding]:
    """Words of the text in mixed alphabets."""
    text = context.text[:MAX_READ_CHARS]
    if text.isascii() or not _FOREIGN_LETTER.search(text):
        return
    found: dict[str, None] = {}
    for word in text.split():
        # Words that are styled from end to end are a fashion of posts, and of those who quote them.
        if len(word) > 60 or not _FOREIGN_LETTER.search(word) or not _LATIN.search(word) or not disguised_word(word):
            continue
        found[word] = None
        if len(found) > _DISGUISED_WORDS:
            break
    if len(found) >= _DISGUISED_WORDS:
        first = next(iter(found))
        yield finding("html.disguised_words", f'"{first}" reads as "{skeleton(first)}"')


def turned_letters(context: ThreatContext) -> Iterator[Finding]:
    """Latin letters written backwards and turned around by a style or an override character."""
    turned = context.html.tricks.turned
    overridden = sum(
        len(_LATIN.findall(one)) for one in _OVERRIDDEN.findall(context.message.text_html[:MAX_SOURCE_CHARS])
    )
    if max(turned, overridden) >= _TURNED_LETTERS:
        yield finding("html.turned_letters", f"{max(turned, overridden)} letters are shown backwards")


def encoded_text(context: ThreatContext) -> Iterator[Finding]:
    """Plain Latin letters written as numbers (``&#80;&#97;``) throughout: no program writes so for readers."""
    source = context.message.text_html
    if source.count("&#", 0, MAX_SOURCE_CHARS) < _ENCODED_LETTERS:
        return
    count = sum(1 for _ in _ENCODED_LETTER.finditer(source, 0, MAX_SOURCE_CHARS))
    letters = len(_LATIN.findall(context.html.visible))
    if count >= _ENCODED_LETTERS and count * _ENCODED_PART >= letters:
        yield finding("html.encoded_text", f"{count} letters written as numbers")


def image_only(context: ThreatContext) -> Iterator[Finding]:
    """A clickable picture is the whole message; worse where what it leads to is hidden, or anybody's, as the sender
    is: for there authentication proves next to nothing."""
    html = context.html
    letters = sum(map(str.isalpha, html.visible[:MAX_READ_CHARS]))
    if letters >= _FEW_LETTERS or not html.images or context.by_list:
        return
    for link in context.links:
        pictured = (link.image and link.element == "a") or link.element == "area"
        if not pictured or not context.is_foreign(link.organisation):
            continue
        anonymous = (
            context.sender.organisation in FREE_MAIL
            or bool(ends_in(link.url.host, SHORTENERS))
            or bool(ends_in(link.url.host, FREE_HOSTING))
            or bool(ip_of(link.url.host))
        )
        finding_id = "html.picture_to_anywhere" if anonymous else "html.image_only"
        yield finding(finding_id, f"{letters} letters, and a picture that leads to {link.url.host}")
        return


def secret_fields(context: ThreatContext) -> Iterator[Finding]:
    """Fields for passwords, cards or codes in the message itself."""
    for field in context.html.tricks.fields:
        for finding_id, pattern in (("html.password_field", _PASSWORD), ("html.card_field", _CARD)):
            if pattern.search(field):
                yield finding(finding_id, f"a field: {field}")


def form_elsewhere(context: ThreatContext) -> Iterator[Finding]:
    """A form whose content goes to another organisation than the one that wrote."""
    if not any(_is_typed(field) for field in context.html.tricks.fields):
        return
    for link in context.links:
        if link.element != "form" or not context.is_foreign(link.organisation):
            continue
        yield finding("html.form_elsewhere", f"what is typed goes to {link.url.host or link.url.scheme}")
        return


def program(context: ThreatContext) -> Iterator[Finding]:
    """Scripts: those that build a page or go elsewhere (smuggling) apart from the rest; those within drawings (SVG)."""
    tricks = context.html.tricks
    if tricks.svg_programs:
        yield finding("html.svg_program", f"{tricks.svg_programs} in an inline drawing")
    if not tricks.programs:
        return
    match = _SMUGGLING.search(context.message.text_html[:MAX_SOURCE_CHARS])
    if match is not None:
        yield finding("html.smuggling", f"a script with {match.group()}")
    else:
        yield finding("html.script", f"{tricks.programs} scripts or handlers")


def goes_by_itself(context: ThreatContext) -> Iterator[Finding]:
    """A refresh that leaves the message, or a frame that shows a page made of its own address."""
    tricks = context.html.tricks
    if tricks.refresh:
        yield finding("html.refresh", f"goes on to {tricks.refresh[:150]}")
    for source in tricks.frames:
        if "".join(source[:40].lower().split()).startswith(_PAGE_SCHEMES) or "<" in source[:200]:
            yield finding("html.page_in_frame", source[:100])
            return
    for source in tricks.frames:
        url = parse_url(source)
        if url is not None and url.host and context.is_foreign(url.organisation):
            yield finding("html.frame_elsewhere", f"shows a page of {url.host}")
            return


def base_elsewhere(context: ThreatContext) -> Iterator[Finding]:
    """Links are written in two halves, one of them in ``<base href>``: filters that read links alone see neither."""
    base = parse_url(context.html.tricks.base)
    if base is None or not base.host or not context.is_foreign(base.organisation):
        return
    if any(link.element == "a" and link.url.host == base.host and base.host not in link.text for link in context.links):
        yield finding("html.base_elsewhere", f"every link starts at {base.host}")


def outlook_differs(context: ThreatContext) -> Iterator[Finding]:
    """What classic Outlook alone reads leads to an organisation that no other link does."""
    source = context.message.text_html[:MAX_SOURCE_CHARS]
    if "<!--[if" not in source:
        return
    others = {link.organisation for link in context.links}
    for target in outlook_links(source):
        written = parse_url(target)
        url = behind_gateways(written) if written is not None else None
        if url is None or not url.host or url.organisation in others or url.organisation == "microsoft.com":
            continue
        if context.is_foreign(url.organisation):
            yield finding("html.outlook_differs", f"for Outlook alone a link to {url.host}")
            return


def _is_typed(field: str) -> bool:
    kind = field.partition(" ")[0]
    return kind not in ("submit", "image", "button", "reset", "checkbox", "radio", "select")


DETECTORS = (
    hidden_text,
    zero_font,
    split_words,
    disguised_words,
    turned_letters,
    encoded_text,
    image_only,
    secret_fields,
    form_elsewhere,
    program,
    goes_by_itself,
    base_elsewhere,
    outlook_differs,
)
