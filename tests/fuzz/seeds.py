"""The first inputs of each target, made up by hand; every run begins with them.

A fuzzer finds its way from shapes like real ones much sooner than from nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from imap_transcripts import TRANSCRIPTS

# Caps and cut, then sinks and commands under way: see `fuzz_wire.check`.
_HEADS = (b"\x00\x00", b"\x01\x03", b"\x02\x07", b"\x04\x10", b"\x09\x1c", b"\x0d\x28", b"\x10\x34", b"\x06\x40")

_ANSWERS = (
    b"* OK [CAPABILITY IMAP4rev1 LITERAL+ IDLE] ready\r\n",
    b"* PREAUTH welcome\r\n* BYE [UNAVAILABLE] later\r\n",
    b"* OK x\r\n* 1 FETCH (UID 5 FLAGS (\\Seen $x) MODSEQ (21))\r\n* 2 FETCH (FLAGS () UID 7 MODSEQ (9))\r\nA1 OK\r\n",
    b"* OK x\r\n* 1 FETCH (UID 5 BODY[] {5}\r\nab\r\n\n)\r\n* 2 FETCH (BODY[] {3+}\r\nabc UID 8)\r\nA1 OK done\r\n",
    b"* OK x\r\n* VANISHED (EARLIER) 1:3,8\r\n* VANISHED 900\r\n* 4 EXISTS\r\n* 4 EXPUNGE\r\nA1 NO [NOMODSEQ] no\r\n",
    b'* OK x\r\n* LIST (\\Noselect \\Sent) "/" "a&AOk-b" ("OLDNAME" ("c"))\r\n* STATUS a (MESSAGES 2 UIDNEXT 9)\r\n',
    b'* OK x\r\n* SEARCH 1 2 3 (MODSEQ 5)\r\n* ESEARCH (TAG "A1") UID ALL 1:5,9 MODSEQ 7\r\nA1 OK\r\n',
    b"* OK x\r\n* OK [CLOSED]\r\n* FLAGS (\\Seen)\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT 5] x\r\n"
    b"A1 OK [READ-ONLY]\r\n",
    b'* OK x\r\n* 1 FETCH (ENVELOPE ("d" "=?utf-8?q?=C3=A9?=" ((NIL NIL "a" "b")) '
    b'NIL NIL NIL NIL NIL NIL "<1@x>") UID 5)\r\n',
    b"* OK x\r\n+ idling\r\n* 5 EXISTS\r\n* 3 RECENT\r\nA1 BAD [X {3}\r\n",
    b'* OK x\r\n* ID ("name" {3}\r\nabc "version" NIL)\r\n* ENABLED QRESYNC\r\n* CAPABILITY IMAP4rev2\r\n',
    b"* OK x\r\n* 1 FETCH (UID 5 FLAGS (a)\r\n* X ((((((((\r\nnonsense\r\n* 9 FETCH (UID 5 X {3}\r\nabc\r\n)\r\n",
    b'* OK x\r\n* 1 FETCH (UID 5 BODY[HEADER.FIELDS (A "]")]<0> ~{2}\r\nab BODY[TEXT] "c\\"d" '
    b'INTERNALDATE " 1-Jan-2024 01:02:03 +0100")\r\n',
    b"* OK x\r\n* 1 FETCH (X-GM-MSGID 5 X-GM-THRID 6 EMAILID (M1) THREADID NIL RFC822.SIZE 7 UID 5)\r\n"
    b"A1 OK [COPYUID 1 2 3] x\r\n",
    b"* OK " + b"long " * 40 + b"\r\n* SEARCH " + b" 12345" * 60 + b"\n\n\r\n* 1 EXISTS\n",
)

_MULTIPART = (
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\nContent-Type: multipart/alternative;\r\n"
    b' boundary="c"\r\n\r\n--c\r\n\r\nplain\r\n--c\r\nContent-Type: text/html; charset=iso-8859-1\r\n'
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>caf=E9</p>=\r\n\r\n--c--\r\n--b\r\n"
    b"Content-Type: application/pdf; name*0*=utf-8''%e2%82; name*1*=%ac.pdf\r\nContent-Disposition: attachment;\r\n"
    b' filename="a b.pdf"\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <1@x>\r\n\r\nSGVsbG8=\r\n--b--\r\nend'
)
_MESSAGES = (
    b"From: A <a@b.example>\r\nTo: c@d.example, G: e@f.example;\r\nSubject: hello\r\n"
    b"Date: Tue, 3 Mar 2026 10:00:00 +0100\r\n"
    b"Message-ID: <1@b.example>\r\nReferences: <0@x> <00@x>\r\n\r\nbody\r\n",
    b"Subject: =?utf-8?q?caf=C3=A9?= =?iso-2022-jp?b?GyRCRnxLXBsoQg==?=\r\nFrom: =?gb2312?b?1tDOxA==?= <x@y>\r\n\r\n",
    _MULTIPART,
    b"Content-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: in\n\nx\n--d\n"
    b"Content-Type: text/plain\n\ny\n--d--\n",
    b"Content-Type: text/plain; charset=utf-7\r\n\r\n+2AA- +AOk-\r\n",
    b"Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\n//5hAGIA\r\n=AAAA=B",
    b"Content-Type: multipart/mixed\r\n\r\n--guess\r\n\r\none\r\n--guess--\r\n",
    b"Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
    b'From: "a \\" b" (c (d)) <@r:e@f> , \xe9@\xc3\xa9\rSubject: bare\rDate: 31 Feb 99 25:61 EST\r\rbody',
    b"\r\n\r\nno: colon\r\n folded\r\n\tmore\r\nnot a field\r\n:\r\n\0: \0\r\n\r\n\0",
    b"Content-Type: text/html; charset*=us-ascii'en'x%; charset=\"a\\\"b\r\n\r\n<html>\xff",
    b"Content-Type: text/plain; charset=hz\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\n~{VPND~}\r\n",
)


def inputs(target: str) -> Iterator[bytes]:
    if target == "wire":
        for head in _HEADS:
            for answer in (*_ANSWERS, *(transcript.stream for transcript in TRANSCRIPTS)):
                yield head + answer
    else:
        for message in _MESSAGES:
            yield message
            yield message.replace(b"\r\n", b"\n")


def write(target: str, folder: Path) -> None:
    for data in inputs(target):
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
