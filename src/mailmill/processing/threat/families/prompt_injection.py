"""Family ``prompt_injection``: text addressed to an assistant, so that agents and AI processors can refuse it.

What its reader does not see counts most: nobody hides an instruction for honest reasons. What stands in the open counts
less, and least where people talk about the matter: a mailing list, an article, a warning that quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from mailmill.model import Finding, Severity
from mailmill.processing.threat.context import ThreatContext
from mailmill.processing.threat.evidence.lures import read_lure_text
from mailmill.processing.threat.evidence.plain_words import MAX_CHARS
from mailmill.processing.threat.evidence.unseen_text import attributes, comments, encoded, invisible, unusual_fields
from mailmill.processing.threat.knowledge.reference import FREE_MAIL
from mailmill.processing.threat.scoring import finding

FAMILY: Final = "prompt_injection"
MAX_FILES_READ = 5
MAX_WINDOWS = 12
MAX_UNSEEN_CHARS = 6_000
_WINDOW_CHARS = 400
_TELLING = frozenset({Severity.MEDIUM, Severity.HIGH})

# Signs by which models tell turns apart; text between people has no use for them.
_MARKERS = re.compile(
    r"<\|(?:im_(?:start|end|sep)|system|user|assistant|tool|end|endoftext|eot_id|begin_of_text|start_header_id"
    r"|end_header_id|channel|message)\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<\uff5c[\w\u2581 ]{1,40}\uff5c>"
    r"|^[ \t]{0,8}#{2,4}[ \t]{0,3}(?:System|Instruction|Assistant|Response|Human)s?(?: Prompt| Message)?[ \t]{0,3}:"
    r"|</?(?:system_prompt|system_message|tool_call|tool_result|tool_response|function_call|function_results"
    r"|assistant_response|untrusted_content|email_content|user_query)\b[^<>]{0,100}>",
    re.IGNORECASE | re.MULTILINE,
)
# "User: …", "Assistant: …" on lines of their own, the assistant's last or first: a conversation that never was.
_TURN = re.compile(r"^[ \t>*]{0,6}(system|assistant|user|human|ai)[ \t*]{0,3}:[ \t*]", re.IGNORECASE | re.MULTILINE)
# "AI agent: …", "To the model that reads this: …": who speaks so where no person reads speaks to a program.
_ADDRESSED = re.compile(
    r"(?:^|[\n.!?>\[(:;])[ \t*#\[(-]{0,8}(?:(?:\w{1,20}[ ,:]{1,3}){0,3}(?:(?-i:AI|KI|IA|LLM|ИИ)|copilot|gemini|claude"
    r"|chatgpt|gpt|language model|sprachmodell)|(?:to|dear|hello|attention|an|pour|para|per|voor|dla|для)[ ,]{1,2}"
    r"(?:\w{1,5} )?(?:model|assistant|assistent|asistente|assistente|asystent|ассистент)\w{0,3})"
    r"(?:[ -](?:agent|assistant|assistent|model|bot|агент|ассистент|asystent)\w{0,3})?"
    r"(?: (?:that|who|which|reading|processing|summari[sz]ing|handling|scanning|der|die|qui|que|che)\b[^\n:]{0,60})?"
    r"\s?:",
    re.IGNORECASE,
)
# Hidden words that an honest sender writes for other readers of the same thing: a preview, a description.
_UNREAD = frozenset({"hidden text", "text in the colour of its ground", "comment"})
_FEWEST_WORDS = 4
_STAND_INS = frozenset({"hidden text", "text of a picture", "plain text part"})
_WORTH_A_LOOK = re.compile(
    r"ignor|disregard|instruc|anweisung|assistant|assistent|asistente|prompt|\bLLM\b|system|指示|指令|инструкц|poleceni",
    re.IGNORECASE,
)


def addressed_to_assistant(findings: Iterable[Finding]) -> bool:
    """Whether the message is marked: its text speaks to an assistant, and no assistant should be given it.

    True from a finding of this family of severity medium on; talk about prompt injection is ``info``, and no mark.
    """
    return any(one.family == FAMILY and one.severity in _TELLING for one in findings)


def visible_instruction(context: ThreatContext) -> Iterator[Finding]:
    """An instruction to an assistant in what the reader sees too: subject, text, a file's name or its words."""
    for where, subject, text in _seen(context):
        evidence = _instruction(text, subject)
        if evidence:
            kind = "mentioned" if _is_talk(context) else "instruction"
            yield finding(f"{FAMILY}.{kind}", f"{where}: {evidence}")
            return


def hidden_instruction(context: ThreatContext) -> Iterator[Finding]:
    """An instruction to an assistant, or the marks of its turns, where the reader does not see it."""
    for where, text in _unseen(context):
        evidence = _instruction(text) or _marker(text) or _order_to_ignore(text)
        if not evidence and where in _UNREAD:
            evidence = _address(text)
        if not evidence:
            continue
        if where in _STAND_INS and _is_shown_too(context, text, evidence):
            continue
        yield finding(f"{FAMILY}.hidden_instruction", f"{where}: {evidence}")
        return


def role_marker(context: ThreatContext) -> Iterator[Finding]:
    """Marks by which models tell turns apart, or a made-up conversation with an assistant, in the open."""
    for where, subject, text in _seen(context):
        evidence = _marker(f"{subject}\n{text}")
        if evidence:
            kind = "mentioned" if _is_talk(context) or context.by_list else "role_marker"
            yield finding(f"{FAMILY}.{kind}", f"{where}: {evidence}")
            if kind == "role_marker" and read_lure_text(FAMILY, subject, text).counts.get("command"):
                yield finding(f"{FAMILY}.instruction", f"{where}: {evidence}, and an order")
            return


def encoded_instruction(context: ThreatContext) -> Iterator[Finding]:
    """An instruction that only a program can read: invisible characters, base64, rot13.

    Text in tag characters is told whatever it says: there is no other use for it.
    """
    message = context.message
    texts = (context.subject, context.sender.name, message.text_plain, context.text if message.text_html else "")
    for how, decoded in chain(chain.from_iterable(map(encoded, texts)), invisible(message.text_html)):
        evidence = _instruction(decoded) or _marker(decoded) or _order_to_ignore(decoded)
        if evidence or how in ("tag characters", "variation selectors"):
            yield finding(f"{FAMILY}.encoded", f"{how}: {evidence or decoded[:120]}")
            return


def _seen(context: ThreatContext) -> Iterator[tuple[str, str, str]]:
    """(where, subject, text) of what the reader sees."""
    yield ("text", context.subject, context.text)
    for file in context.files[:MAX_FILES_READ]:
        yield ("name of a file", "", file.shown)
        if file.inside.text:
            yield ("text of a file", "", file.inside.text[:MAX_CHARS])


def _unseen(context: ThreatContext) -> Iterator[tuple[str, str]]:
    """What programs read and people do not, joined by kind."""
    html, message = context.html, context.message
    if html.hidden:
        yield ("hidden text", html.hidden[:MAX_UNSEEN_CHARS])
    if html.tricks.faint:
        yield ("text in the colour of its ground", html.tricks.faint[:MAX_UNSEEN_CHARS])
    if message.text_html:
        yield ("comment", _joined(comments(message.text_html)))
        yield ("text of a picture", _joined(attributes(message.text_html)))
        if message.text_plain:
            yield ("plain text part", message.text_plain[:MAX_UNSEEN_CHARS])
    yield ("header", _joined(unusual_fields(message.headers)))


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(texts)[:MAX_UNSEEN_CHARS]


def _is_shown_too(context: ThreatContext, text: str, evidence: str) -> bool:
    """Whether what stands in for the text says what it says in the open as well."""
    seen = _instruction(context.text, context.subject) or _marker(context.text) or _order_to_ignore(context.text)
    return bool(seen) and (seen == evidence or "".join(text.split()) in "".join(context.text.split()))


def _instruction(text: str, subject: str = "") -> str:
    """The words of an instruction to an assistant in this text, or ""."""
    for piece in _pieces(text):
        told = read_lure_text(FAMILY, subject, piece).told
        if told:
            return next(iter(told.values()))
    return ""


def _pieces(text: str) -> Iterator[str]:
    """The text as far as it is read at once, then what stands around telling words in the rest."""
    if not text.strip():
        return
    yield text
    rest = text[MAX_CHARS : 10 * MAX_CHARS]
    end = count = 0
    for match in _WORTH_A_LOOK.finditer(rest):
        if match.start() >= end:
            end = match.start() + _WINDOW_CHARS
            yield rest[max(0, match.start() - _WINDOW_CHARS) : end]
            count += 1
        if count == MAX_WINDOWS:
            return


def _order_to_ignore(text: str) -> str:
    """Where nobody reads it, "ignore all previous instructions" needs no more words."""
    said = bool(text.strip()) and read_lure_text(FAMILY, "", text).counts.get("ignore_instructions", 0)
    return text.strip()[:120] if said else ""


def _address(text: str) -> str:
    """Where an assistant is spoken to, with what is said first, or ""."""
    match = _ADDRESSED.search(text)
    said = text[match.start() : match.end() + 100].strip(" \n.!?>[(:;") if match else ""
    return said if match and len(text[match.end() :].split()) >= _FEWEST_WORDS else ""


def _marker(text: str) -> str:
    match = _MARKERS.search(text[: 10 * MAX_CHARS])
    if match:
        return match.group().strip()
    turns = {turn.lower() for turn in _TURN.findall(text[:MAX_CHARS])[:50]}
    if "assistant" in turns and turns & {"system", "user", "human"}:
        return "turns of a conversation: " + ", ".join(sorted(turns))
    return ""


def _is_talk(context: ThreatContext) -> bool:
    """Whether people talk about the matter: with somebody the account has written to, or by its names, on a list or
    under a proven sender. Law: how often somebody wrote speaks for nobody, nor does a list's header alone; whoever
    means harm writes harmless mail first, and sends any header.
    """
    if context.authenticated and context.history.sent > 0:
        return True
    names = 1 if context.by_list else 2
    if not context.by_list and (not context.authenticated or context.sender.organisation in FREE_MAIL):
        return False
    return read_lure_text(FAMILY, context.subject, context.text).counts.get("about_injection", 0) >= names


DETECTORS = (visible_instruction, hidden_instruction, role_marker, encoded_instruction)
