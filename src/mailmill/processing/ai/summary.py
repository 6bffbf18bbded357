"""The summary processor: the one to three most telling sentences of a message, in its own words. No network, no model.

What the reader has read before or never reads (quotes, signatures, patches, footers) is put aside first; then sentences
are ranked by place, by words they share with the subject and with the rest, and by figures they carry. Nothing in it
knows a language, but for a short list of footer words. Deterministic and pure; input is capped.

Assistants read summaries in place of messages. So where the text to sum up speaks to an assistant, none of it is
repeated, and the value says so.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from mailmill.message_parser import ParsedMessage
from mailmill.processing.html_text import read_html

MAX_INPUT_CHARS = 40_000
MAX_SENTENCES = 200
MAX_SUMMARY_CHARS = 320
MAX_SENTENCE_CHARS = 260
WITHHELD: Final = "Left out: the message holds text addressed to an assistant."
_MOST = 3
_ENOUGH_CHARS = 140

_URL = re.compile(
    r"<?(?:https?://|www\.|mailto:)[^\s<>]{1,2000}>?|\[(?:image|cid|logo|https?)[^\[\]]{0,500}\]", re.IGNORECASE
)
_WORD = re.compile(r"[^\W\d_]{2,40}(?:['’-][^\W\d_]{1,40}){0,3}")
_FIGURE = re.compile(r"\d")
_INVISIBLE = re.compile("[\u00ad\u034f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffc]")
_BLANKS = re.compile(r"\s+")
_RULE = re.compile(r"^[\s\-_=*~#.+•·—–|]{4,}$")
_LIST_FOOTER = re.compile(r"^[\s\-_=*~]{10,}$")
_QUOTE = re.compile(r"^\s{0,3}(?:[>|»]|[A-Za-z]{1,4}>)")
_ORIGINAL = re.compile(
    r"^\s*[-_*=]{2,20}\s?\S[^-_]{2,60}[-_*=]{2,20}\s*$|^\s*_{20,}\s*$|^\s*[-=]{2,}\s?>8|^\s*>8\s?[-=]{2,}"
)
_HEADER_LINE = re.compile(r"^\s*\*?[^\s:]{2,20}(?: [^\s:]{1,12})?\*?\s?:\*?\s+\S")
_ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w.-]{1,255}")
_PATCH = re.compile(
    r"^(?:diff --git |index [0-9a-f]{7,}\.\.|--- a/|\+\+\+ b/|@@ -\d|Index: |\[\s{0,5}\d{1,7}\.\d{6}\])"
)
_TRAILER = re.compile(
    r"^(?:[A-Z][a-z]{1,20}(?:-[a-z]{1,20}){1,4}|Fixes|Link|Closes|Message-I[dD]): "
)  # Signed-off-by: and its kin
_SENTENCE_END = re.compile(r"[.!?…]{1,5}[\"'”’»)\]]{0,2}(?=\s)|[。！？][」』”]?")
_ENDED = (".", "!", "?", "…", "。", "！", "？", '"', "”", ")")
_ITEM = re.compile(r"^\s{0,8}(?:[-*•·–]|\d{1,2}[.)])\s+")

_FOOTER_WORDS = re.compile(
    r"unsubscribe|abmelden|abbestell|désabonn|désinscri|se désinscrire|darse de baja|cancelar la suscripci"
    r"|annulla l.iscrizione"
    r"|disiscri|descadastr|cancelar inscri|afmelden|uitschrijven|avregistrera|отписаться|配信停止|退订|退訂"
    r"|view (?:this|it|the)?.{0,20}(?:in|online|web|browser)|im browser|dans (?:votre|le) navigateur|en (?:tu|el"
    r"|su) navegador"
    r"|nel browser|all rights reserved|copyright|©|\(c\) ?20|privacy policy|datenschutz|politique de confidentialité"
    r"|you (?:are|'re|’re) receiving|you received this|this e-?mail was sent|this message was sent|this is an automat"
    r"|do not reply|noreply|not reply to this|intended (?:only )?for|intended recipient|confidential|virus-free"
    r"|sent from my"
    r"|trouble (?:clicking|with the button)|copy and paste|(?:paste|copy) the (?:url|link)|add us to your address"
    r"|mailing list"
    r"|manage (?:your )?(?:preferences|notifications)|update your preferences|terms of (?:use|service)|impressum",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Sentence:
    index: int
    text: str
    words: tuple[str, ...]
    paragraph: int


def summarize(message: ParsedMessage) -> dict[str, str]:
    """The summary processor's value: ``{"text": …, "method": "extractive"}``; the text has at most
    ``MAX_SUMMARY_CHARS``. Where what it would quote from speaks to an assistant: ``{"text": WITHHELD, "method":
    "withheld"}``.

    A message without a readable sentence is summed up by its longest line, else by its subject.
    """
    subject = _clean(message.summary.subject)[:MAX_SENTENCE_CHARS]
    paragraphs = body_paragraphs(message)
    if _speaks_to_assistant(message, paragraphs):
        return {"text": WITHHELD, "method": "withheld"}
    return {"text": _summary_of(paragraphs, subject) or subject, "method": "extractive"}


def _speaks_to_assistant(message: ParsedMessage, paragraphs: list[str]) -> bool:
    """Whether subject or paragraphs do: all that a summary is made of, and a tenth of what the whole message costs."""
    # Here: who imports the processors need not hold what the threat engine knows in memory.
    from mailmill.processing.threat.for_assistants import speaks_to_assistant

    quoted = "\n".join(paragraphs)
    return speaks_to_assistant(replace(message, headers=(), text_plain=quoted, text_html="", attachments=()))


def body_paragraphs(message: ParsedMessage) -> list[str]:
    """What the sender wrote, by paragraph: quotes, signature, patches and footers put aside.

    Plain text is taken where it is a text of its own, else the visible text of the HTML.
    """
    plain = message.text_plain[:MAX_INPUT_CHARS]
    shown: list[str] = []
    if message.text_html.strip() and _is_stand_in(plain):
        visible = read_html(message.text_html).visible[:MAX_INPUT_CHARS]
        shown = [line for line in (_clean(line) for line in _own_words(visible.split("\n"))) if line]
    return shown or _paragraphs(_own_words(plain.split("\n")))


def _is_stand_in(plain: str) -> bool:
    """Plain text that a program made of the HTML: little, flattened to one line, markup or addresses left in it."""
    without = _URL.sub("", plain)
    letters = sum(1 for character in without[:4_000] if character.isalpha())
    lines = [line for line in plain.split("\n") if line.strip()]
    if letters < 60 or len(without) * 2 < len(plain) or len(lines) < 3:
        return True
    return any(mark in plain for mark in ("&nbsp;", "&amp;", "<td", "<div", "<p>", "[[", "{{", "@media"))


def _own_words(lines: list[str]) -> list[str]:
    """The lines up to the signature, the quoted original or the patch; quoted lines and what announces them left
    out."""
    kept: list[str] = []
    in_header = False
    for number, line in enumerate(lines[:4_000]):
        in_header = in_header and _HEADER_LINE.match(line[:200]) is not None
        if in_header:
            continue
        if line.rstrip("\r") in ("-- ", "--", "---"):
            if any(one.strip() for one in kept):
                break
            continue
        if _PATCH.match(line) or _TRAILER.match(line):
            if kept and _PATCH.match(line):
                break
            continue
        if _LIST_FOOTER.match(line) and number > 0 and len(lines) - number <= 12 and kept:
            break
        if _ORIGINAL.match(line) and any(character.strip() for character in kept):
            break
        if _is_forwarded_header(lines, number):
            if any(one.strip() for one in kept):
                break
            in_header = True  # nothing of the sender's own before it: the forwarded text is the message
            continue
        if _QUOTE.match(line):
            _drop_announcement(kept)
            continue
        kept.append(line)
    return kept


def _is_forwarded_header(lines: list[str], number: int) -> bool:
    """Three lines of ``Name: value`` on end, one with an address: the header of a quoted message in any language."""
    block = lines[number : number + 4]
    return (
        len(block) >= 3
        and sum(1 for line in block if _HEADER_LINE.match(line[:200])) >= 3
        and any(_ADDRESS.search(line[:300]) for line in block)
    )


def _drop_announcement(kept: list[str]) -> None:
    """Takes back "On … somebody wrote:" (one to three lines, the last one ends with a colon) before a quote."""
    last = len(kept) - 1
    while last >= 0 and not kept[last].strip():
        last -= 1
    if last < 0 or not kept[last].rstrip().endswith((":", "：", "...", "…")):
        return
    start = last
    while start > 0 and kept[start - 1].strip() and last - start < 2:
        start -= 1
    if any(_FIGURE.search(line) or "@" in line for line in kept[start : last + 1]):
        del kept[start:]


def _paragraphs(lines: list[str]) -> list[str]:
    """Wrapped lines joined; an empty line, a rule or an item of a list ends a paragraph."""
    paragraphs: list[str] = []
    current: list[str] = []
    for line in [*lines, ""]:
        bare = line.strip()
        item = _ITEM.match(line) is not None
        if (not bare or _RULE.match(line) or item) and current:
            paragraphs.append(_clean(" ".join(current)))
            current = []
        if bare and not _RULE.match(line):
            current.append(_ITEM.sub("", line) if item else bare)
    return [paragraph for paragraph in paragraphs if paragraph]


def _clean(text: str) -> str:
    text = _INVISIBLE.sub("", _URL.sub(" ", text))
    return _BLANKS.sub(" ", text).strip(" \t*_|<>#=~")


def _summary_of(paragraphs: list[str], subject: str) -> str:
    sentences = _sentences(paragraphs)
    if not sentences:
        longest = max(paragraphs, key=len, default="")
        return _cut(longest, MAX_SENTENCE_CHARS)
    ranks = _ranked(sentences, subject)
    chosen: list[_Sentence] = []
    length = 0
    for sentence in ranks:
        size = min(len(sentence.text), MAX_SENTENCE_CHARS)
        if chosen and length + size + 1 > MAX_SUMMARY_CHARS:
            continue
        chosen.append(sentence)
        length += size + 1
        if len(chosen) == _MOST or length >= _ENOUGH_CHARS:
            break
    chosen.sort(key=lambda sentence: sentence.index)
    return " ".join(_cut(_ended(sentence.text), MAX_SENTENCE_CHARS) for sentence in chosen)[:MAX_SUMMARY_CHARS]


def _sentences(paragraphs: list[str]) -> list[_Sentence]:
    found: list[_Sentence] = []
    seen: set[str] = set()
    for number, paragraph in enumerate(paragraphs):
        for text in split_sentences(paragraph):
            words = tuple(word.casefold() for word in _WORD.findall(text))
            key = "".join(words)
            if key in seen or not _is_sentence(text, words):
                continue
            seen.add(key)
            found.append(_Sentence(len(found), text, words, number))
            if len(found) >= MAX_SENTENCES:
                return found
    return found


def split_sentences(paragraph: str) -> list[str]:
    """Sentences of a paragraph. A full stop ends one unless it stands after a short word or before a small letter."""
    sentences: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(paragraph):
        end = match.end()
        following = paragraph[end : end + 8].lstrip()
        last_word = paragraph[max(start, paragraph.rfind(" ", start, match.start()) + 1) : match.start()]
        stop = match.group()[0] == "."
        if stop and (following[:1].islower() or "." in last_word or _is_short_title(last_word)):
            continue
        if stop and last_word.isdigit() and len(last_word) <= 2:  # "am 3. Mai", "1. Open the page"
            continue
        if stop and last_word in ("Mrs", "Prof", "Nr", "Inc", "Ltd", "bzw", "vgl", "approx", "Sra", "Mme"):
            continue
        sentences.append(paragraph[start:end].strip())
        start = end
    sentences.append(paragraph[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _is_short_title(word: str) -> bool:
    """ "Mr", "Dr", "J": what a full stop shortens rather than ends."""
    return len(word) <= 2 and word.isalpha() and word[0].isupper()


def _is_sentence(text: str, words: tuple[str, ...]) -> bool:
    """Enough words (or signs, where a script has no blanks), mostly letters, no greeting, no footer."""
    letters = sum(1 for character in text if character.isalpha())
    unspaced = any(ord(character) >= 0x2E80 for character in text[:40])
    if unspaced:
        if letters < 8:
            return False
    elif len(words) < 4 or letters < 20:
        return False
    if letters * 10 < len(text) * 6:
        return False
    if text.endswith((",", ":", "，")) and len(text) < 60:
        return False
    if not unspaced and not text.endswith(_ENDED) and len(text) < 60 and _is_name_like(text):
        return False
    return not _FOOTER_WORDS.search(text[:400])


def _is_name_like(text: str) -> bool:
    """A person and a company under a letter, or a button: nearly every word begins with a capital."""
    initials = [word[0] for word in text.split() if word[0].isalpha()]
    return sum(1 for initial in initials if initial.isupper()) * 5 >= len(initials) * 4


def _ranked(sentences: list[_Sentence], subject: str) -> list[_Sentence]:
    frequency = Counter(word for sentence in sentences for word in set(sentence.words) if len(word) > 3)
    subject_words = {word.casefold() for word in _WORD.findall(subject) if len(word) > 3}
    count = len(sentences)

    def score(sentence: _Sentence) -> float:
        words = [word for word in set(sentence.words) if len(word) > 3]
        central = sum(min(frequency[word], 5) - 1 for word in words) / (len(words) + 3)
        shared = min(3, len(subject_words.intersection(words)))
        place = 2.0 / (1 + sentence.index * 0.5) + (0.3 if sentence.index < max(3, count // 4) else 0.0)
        length = len(sentence.text)
        fit = 0.6 if 40 <= length <= 220 else (-0.6 if length > 320 else 0.0)
        ended = 0.7 if sentence.text.endswith(_ENDED) else -0.4
        # Lines of a log begin with a mark in brackets, and so do those of a menu.
        marked = -1.2 if sentence.text.startswith(("[", "{", "$ ", "# ")) else 0.0
        figures = 0.4 if _FIGURE.search(sentence.text) else 0.0
        asks = 1.0 if sentence.text.endswith(("?", "？")) else 0.0
        return central * 0.5 + shared * 0.5 + place + fit + ended + figures + asks + marked

    return sorted(sentences, key=lambda sentence: (-round(score(sentence), 6), sentence.index))


def _ended(text: str) -> str:
    """A headline gets a full stop, so that it does not run into the next sentence."""
    return text if not text[-1:].isalnum() or ord(text[-1]) >= 0x2E80 else f"{text}."


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    return f"{head.rpartition(' ')[0] or head}…"
