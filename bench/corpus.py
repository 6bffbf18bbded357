"""Mail to measure with: pseudo-random, the same on every run, sized like a real mailbox.

Sizes are log-normal (median 13 KB, a few of megabytes, as attachments make them), scaled so that the whole comes to
``MEAN_BYTES`` a message. Lines end in CRLF, as they came over SMTP. All content is made up here.
"""

from __future__ import annotations

import base64
import email.utils
import math
import random
from collections.abc import Iterator

MEAN_BYTES = 47_800
_MEDIAN_BYTES = 13_000
_SMALLEST_BYTES = 1_500
_LARGEST_BYTES = 6_000_000
_SPREAD = math.sqrt(2 * math.log(MEAN_BYTES / _MEDIAN_BYTES))
_FIRST_DATE = 1_735_700_000
_POOL_BYTES = 6_500_000
_SMALL_DATE = email.utils.formatdate(_FIRST_DATE)

_TEXT = (
    "account agenda answer attached balance before board budget call change client code contract customer date "
    "deadline delivery design document draft estimate feedback figures finance invoice issue launch letter list "
    "meeting minutes month note number offer office order page part payment people plan please price project "
    "question quarter quote reminder reply report request review room sample schedule section service sheet site "
    "status summary supplier support table task team term thanks ticket time today tomorrow travel update version "
    "week when which work year"
)
_WORDS = tuple(_TEXT.split())
_PEOPLE = ("Ada Brandt", "Ben Okafor", "Chiara Rossi", "Dmitri Volkov", "Emma Lindqvist", "Farid Haddad", "Grace Chen")
_HOSTS = ("example.org", "example.com", "example.net", "mail.example.org", "news.example.com")


def messages(count: int, *, seed: int = 1, mean_bytes: int = MEAN_BYTES) -> Iterator[bytes]:
    """``count`` different messages of ``mean_bytes`` on average (their sum differs from that by less than 1 %)."""
    rng = random.Random(f"mailmill {seed}")
    attachment = base64.encodebytes(rng.randbytes(_POOL_BYTES * 3 // 4)).replace(b"\n", b"\r\n")
    for number, size in enumerate(_sizes(count, rng, mean_bytes)):
        yield _message(number, size, rng, seed, attachment)


def one(number: int, *, seed: int = 2, size_bytes: int = 12_000) -> bytes:
    """A single message of about ``size_bytes``, below 100 kB; its Message-ID is `message_id` of the same numbers."""
    return _message(number, size_bytes, random.Random(f"mailmill {seed} {number}"), seed, b"")


def small(number: int, *, seed: int = 3) -> bytes:
    """A message of 1 to 3 kB, made in microseconds: for mailboxes of a hundred thousand."""
    rng = random.Random(seed * 1_000_003 + number)
    sender, recipient = _PEOPLE[number % len(_PEOPLE)], _PEOPLE[(number + 1) % len(_PEOPLE)]
    host = _HOSTS[number % len(_HOSTS)]
    words = rng.choices(_WORDS, k=rng.randrange(120, 400))
    lines = [" ".join(words[i : i + 10]) for i in range(0, len(words), 10)]
    head = (
        f"Received: from mx.{host} (mx.{host} [192.0.2.7]) by mx.example.org with ESMTPS id {rng.getrandbits(60):x};",
        f"\t{_SMALL_DATE}",
        f"From: {sender} <{_local(sender)}@{host}>",
        f"To: {recipient} <{_local(recipient)}@example.org>",
        f"Subject: {' '.join(words[:5])} {number}",
        f"Date: {_SMALL_DATE}",
        f"Message-ID: {message_id(number, seed)}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "",
    )
    return "\r\n".join((*head, *lines, "")).encode()


def message_id(number: int, seed: int) -> str:
    return f"<{seed}.{number}.bench@example.org>"


def _sizes(count: int, rng: random.Random, mean_bytes: int) -> list[int]:
    """Evenly spaced quantiles of the log-normal distribution, shuffled: a small run has the shape of a large one."""
    raw = [math.exp(_SPREAD * _quantile((i + 0.5) / count)) for i in range(count)]
    scale = mean_bytes * count / sum(raw)
    sizes = [min(_LARGEST_BYTES, max(_SMALLEST_BYTES, round(size * scale))) for size in raw]
    # What the two bounds took away is given back to those between.
    between = sum(size for size in sizes if _SMALLEST_BYTES < size < _LARGEST_BYTES)
    factor = (mean_bytes * count - (sum(sizes) - between)) / between if between else 1.0
    sizes = [round(size * factor) if _SMALLEST_BYTES < size < _LARGEST_BYTES else size for size in sizes]
    rng.shuffle(sizes)
    return sizes


def _quantile(probability: float) -> float:
    """Of the standard normal distribution, by bisection of its error function."""
    low, high = -6.0, 6.0
    for _ in range(60):
        middle = (low + high) / 2
        if (1 + math.erf(middle / math.sqrt(2))) / 2 < probability:
            low = middle
        else:
            high = middle
    return low


def _message(number: int, size: int, rng: random.Random, seed: int, attachment: bytes) -> bytes:
    sender, recipient = rng.sample(_PEOPLE, 2)
    host = rng.choice(_HOSTS)
    date = email.utils.formatdate(_FIRST_DATE + number * 601)
    boundary = f"=_{seed}_{number}_{rng.getrandbits(64):016x}"
    head = [
        f"Return-Path: <{_local(sender)}@{host}>",
        f"Received: from mx.{host} (mx.{host} [192.0.2.{rng.randrange(1, 255)}])",
        f"\tby mx.example.org with ESMTPS id {rng.getrandbits(60):x}; {date}",
        f"Authentication-Results: mx.example.org; dkim=pass header.d={host}; spf=pass smtp.mailfrom={host}",
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={host}; s=s1; h=from:to:subject:date;",
        f"\tb={base64.b64encode(rng.randbytes(128)).decode()}",
        f"From: {sender} <{_local(sender)}@{host}>",
        f"To: {recipient} <{_local(recipient)}@example.org>",
        f"Subject: {' '.join(rng.choices(_WORDS, k=6)).capitalize()}",
        f"Date: {date}",
        f"Message-ID: {message_id(number, seed)}",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/mixed; boundary="{boundary}"',
        "",
        "",
    ]
    text_bytes = min(size // 2, rng.randrange(600, 9_000))
    text = _prose(rng, text_bytes // 3)
    html = _html(rng, text_bytes - text_bytes // 3)
    parts = [
        "\r\n".join(head),
        f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n",
        f"--{boundary}\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}\r\n",
    ]
    raw = "".join(parts).encode()
    room = size - len(raw) - 200
    if room > 0 and len(attachment) > room:
        start = rng.randrange((len(attachment) - room) // 78 + 1) * 78
        content = attachment[start : start + room // 78 * 78]
        name = f'Content-Disposition: attachment; filename="document-{number}.pdf"'
        part = f"--{boundary}\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n{name}\r\n\r\n"
        raw += part.encode() + content + b"\r\n"
    elif room > 0:
        raw += f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{_prose(rng, room)}\r\n".encode()
    return raw + f"--{boundary}--\r\n".encode()


def _prose(rng: random.Random, size: int) -> str:
    words = rng.choices(_WORDS, k=max(8, size // 7))
    lines = [" ".join(words[i : i + 10]).capitalize() + "." for i in range(0, len(words), 10)]
    return "\r\n".join(lines)


def _html(rng: random.Random, size: int) -> str:
    paragraphs = _prose(rng, size * 3 // 4).split("\r\n")
    link = f'<a href="https://www.example.com/{rng.getrandbits(40):x}">{rng.choice(_WORDS)}</a>'
    body = "\r\n".join(f'<p style="margin:0">{line}</p>' for line in paragraphs)
    return f"<html><body>\r\n{body}\r\n<p>{link}</p>\r\n</body></html>"


def _local(name: str) -> str:
    return name.lower().replace(" ", ".")
