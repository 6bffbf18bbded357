"""What servers say, written down by hand after real ones, with what it means. One transcript is one stream of bytes.

Used by the unit tests (is it read right?) and the property tests (is it read the same wherever the stream is cut?).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transcript:
    """``kinds`` are the names of the event types, in order."""

    name: str
    stream: bytes
    kinds: tuple[str, ...]


def _crlf(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")


DOVECOT = Transcript(
    "dovecot",
    _crlf(
        rb"""* OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ STARTTLS AUTH=PLAIN] Dovecot ready.
A1 OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE CONDSTORE QRESYNC ESEARCH LIST-STATUS LITERAL+] Logged in
* ID ("name" "Dovecot")
A2 OK ID completed (0.001 + 0.000 secs).
* ENABLED QRESYNC
A3 OK Enabled (0.001 + 0.000 secs).
* LIST (\HasNoChildren \Sent) "/" Sent
* STATUS Sent (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 1700000001 HIGHESTMODSEQ 1)
* LIST (\HasNoChildren) "/" "Entw&APw-rfe (alt)"
* STATUS "Entw&APw-rfe (alt)" (MESSAGES 2 UIDNEXT 3 UIDVALIDITY 1700000002 HIGHESTMODSEQ 4)
* LIST (\Noselect \HasChildren) "/" shared
A4 OK List completed (0.001 + 0.000 secs).
* FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Label1)
* OK [PERMANENTFLAGS ()] Read-only mailbox.
* 3 EXISTS
* 0 RECENT
* OK [UIDVALIDITY 1700000003] UIDs valid
* OK [UIDNEXT 12] Predicted next UID
* OK [HIGHESTMODSEQ 21] Highest
A5 OK [READ-ONLY] Examine completed (0.001 + 0.000 secs).
* VANISHED (EARLIER) 1:4,7
* 1 FETCH (UID 5 FLAGS (\Seen $Label1) MODSEQ (21))
* 2 FETCH (UID 6 FLAGS () INTERNALDATE " 5-Mar-2024 10:11:12 +0100" RFC822.SIZE 44827 MODSEQ (9))
A6 OK Fetch completed (0.001 + 0.000 secs).
* 1 FETCH (UID 5 BODY[] {36}
Subject: a {5}

A1 OK not an end
)
* 2 FETCH (UID 6 BODY[] "" FLAGS (\Seen))
A7 OK Fetch completed (0.001 + 0.000 secs).
* ESEARCH (TAG "A8") UID ALL 5:6,11
A8 OK Search completed (0.001 + 0.000 secs).
+ idling
* 4 EXISTS
* 2 EXPUNGE
* OK Still here
A9 OK Idle completed (3.121 + 3.110 + 3.120 secs).
* BYE Logging out
A10 OK Logout completed (0.001 + 0.000 secs).
"""
    ),
    (
        *(
            "Status",
            "Tagged",
            "ServerId",
            "Tagged",
            "Enabled",
            "Tagged",
            "Listed",
            "StatusData",
            "Listed",
            "StatusData",
        ),
        *("Listed", "Tagged", "MailboxFlags", "Status", "Exists", "Recent", "Status", "Status", "Status", "Tagged"),
        *("Vanished", "Fetch", "Fetch", "Tagged", "Fetch", "Fetch", "Tagged", "Esearch", "Tagged", "Continuation"),
        *("Exists", "Expunge", "Status", "Tagged", "Status", "Tagged"),
    ),
)

CYRUS = Transcript(
    "cyrus",
    _crlf(
        rb"""* OK [CAPABILITY IMAP4rev1 LITERAL+ ID ENABLE AUTH=PLAIN SASL-IR] mail Cyrus IMAP 3.6.1 server ready
* 5 EXISTS
* 0 RECENT
* FLAGS (\Answered \Flagged \Draft \Deleted \Seen $Forwarded)
* OK [PERMANENTFLAGS (\Answered \Flagged \Draft \Deleted \Seen \*)] Ok
* OK [UNSEEN 1] Ok
* OK [MAILBOXID (3f8c-1)] Ok
* OK [ANNOTATIONS 65536] Ok
A3 OK [READ-WRITE] Completed
* 1 FETCH (FLAGS (\Recent \Seen) UID 4 INTERNALDATE "12-Feb-2023 23:59:60 -0330" RFC822.SIZE 12 MODSEQ (18) """
        rb"""EMAILID (M00af) THREADID (T77))
* 2 FETCH (UID 5 EMAILID (M01) THREADID NIL)
* LIST (\HasNoChildren) "." INBOX.Drafts ("CHILDINFO" ("SUBSCRIBED") "OLDNAME" ({5}
INBOX))
* 2 FETCH (UID 5 ENVELOPE ("Mon, 7 Feb 1994 21:52:25 -0800" "a \"quoted) \\ (\" subject" (("Fred (Foo)" NIL "fred" """
        rb"""{11}
example.org)) (("Fred" NIL "fred" "example.org")) NIL (("undisclosed" NIL NIL NIL)) NIL NIL NIL "<1@x>"))
* SEARCH 2 3 5 (MODSEQ 917162500)
* SEARCH
A4 OK Completed (0.000 sec)
"""
    ),
    (
        *("Status", "Exists", "Recent", "MailboxFlags", "Status", "Status", "Status", "Status", "Tagged"),
        *("Fetch", "Fetch", "Listed", "Fetch", "Search", "Search", "Tagged"),
    ),
)

GMAIL = Transcript(
    "gmail",
    _crlf(
        rb"""* OK Gimap ready for requests from 192.0.2.7 ab12mb3456
* CAPABILITY IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 UIDPLUS ENABLE MOVE CONDSTORE ESEARCH
A1 OK me@example.org authenticated (Success)
* LIST (\All \HasNoChildren) "/" "[Gmail]/All Mail"
* LIST (\HasChildren \Noselect) "/" "[Gmail]"
* 1 FETCH (X-GM-THRID 1278455344230334865 X-GM-MSGID 1278455344230334866 UID 9 RFC822.SIZE 7 """
        rb"""INTERNALDATE "17-Jul-1996 02:44:25 -0700" FLAGS (\Seen NonJunk) MODSEQ (5604))
* 1 FETCH (UID 9 MODSEQ (5604) BODY[] {9}
a: b

c)
A2 OK Success
* 13 EXISTS
A3 NO [ALERT] Too many simultaneous connections. (Failure)
* BYE Session expired, please login again.
"""
    ),
    (
        *("Status", "Capability", "Tagged", "Listed", "Listed", "Fetch", "Fetch", "Tagged", "Exists", "Tagged"),
        "Status",
    ),
)

# What odd servers send and a client had better read: lower case, extra spaces, no text after OK, bare line feeds,
# blank lines, 8-bit strings, NIL where a string should be, a line end too many after a literal, text like a literal.
ODD = Transcript(
    "odd",
    b"* ok hello {3}\r\n"
    b"\r\n"
    b"*  5   exists\r\n"
    b"* 2 FETCH  (UID 7  FLAGS ( \\seen  \\ANSWERED ))\r\n"
    b"* list (\\hasnochildren) NIL NIL\r\n"
    b'* LIST () "/" "Bo\xc3\xaete"\n'
    b'* LIST () "\\\\" "a\\\\b"\r\n'
    b'* 3 FETCH (UID 8 ENVELOPE (NIL "caf\xe9" NIL NIL NIL NIL NIL NIL NIL NIL))\r\n'
    b"* 4 FETCH (UID 9 BODY[] {5}\r\nhello\r\n)\r\n"
    b'* 5 FETCH (UID 10 BODY[HEADER.FIELDS (DATE "X ]")]<0> ~{4+}\r\nDate BODY[TEXT] NIL)\r\n'
    b"* STATUS inbox (messages 2 HIGHESTMODSEQ 0)\r\n"
    b"* XSOMETHING (unheard of) 17\r\n"
    b"* OK [XCODE-UNHEARD some argument] text\r\n"
    b"* OK\r\n"
    b"* 6 FETCH (UID 11 X-NEW (a (b c) {2}\r\nde) FLAGS (NIL [x] $MDNSent))\r\n"
    b"+\r\n"
    b"a7 ok\r\n",
    (
        *("Status", "Exists", "Fetch", "Listed", "Listed", "Listed", "Fetch", "Fetch", "Fetch", "StatusData"),
        *("Other", "Status", "Status", "Fetch", "Continuation", "Tagged"),
    ),
)

# None of these can be read; none of them ends anything, and what follows is read as ever.
BROKEN = Transcript(
    "broken",
    b"* 1 FETCH (UID 5 FLAGS (\\Seen)\r\n"
    b'* 1 FETCH (UID 5 ENVELOPE ("only" "three" "fields"))\r\n'
    b"* 1 FETCH (UID 99999999999 FLAGS ())\r\n"
    b"* 1 FETCH (UID 0 FLAGS ())\r\n"
    b'* 1 FETCH (UID 5 FLAGS ("unclosed))\r\n'
    b"* 1 FETCH UID 5\r\n"
    b"* VANISHED 5:x\r\n"
    b"* SEARCH 1 2 three\r\n"
    b"* LIST (\\Noselect)\r\n"
    b"* STATUS INBOX (MESSAGES 99999999999999999999)\r\n"
    b"* 1 FETCH (UID 5 BODY[HEADER {3}\r\nabc)\r\n"
    b"*\r\n"
    b"nonsense\r\n"
    b"* 1 FETCH (UID 5 FLAGS (\\Seen))\r\n",
    (*("Malformed",) * 13, "Fetch"),
)

TRANSCRIPTS = (DOVECOT, CYRUS, GMAIL, ODD, BROKEN)
