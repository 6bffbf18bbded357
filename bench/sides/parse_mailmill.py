"""200,000 lines of FETCH from bytes to what the sync is given, by mailmill's own classes and without a socket.

Arguments: how many lines, a seed. Framing, parsing, the session's state machine and the collector of UID FETCH are
those of production; bytes come in pieces of 256 KiB, as a transport hands them over. The other side gets whole lines.
"""

from __future__ import annotations

import json
import sys
import time

from bench.sides.fetch_lines import lines
from mailmill.app import memory
from mailmill.imap import commands
from mailmill.imap.collectors import MetaCollector
from mailmill.imap.responses import parse, parse_run
from mailmill.imap.session import Session
from mailmill.imap.wire import Framer
from mailmill.uid_set import UidSet

_PIECE_BYTES = 256 * 1024


def main(count: str, seed: str) -> None:
    texts = lines(int(count), int(seed))
    stream = b"".join(b"* " + text + b"\r\n" for text in texts)
    session, framer = Session(), Framer()
    session.receive(parse([b"* PREAUTH ready"]))
    uids = UidSet.span(1, 2 * int(count))
    collector = MetaCollector(uids)
    exchange, _ = session.begin(commands.uid_fetch(uids, ("UID", "FLAGS", "MODSEQ")), collector)
    pieces = [stream[at : at + _PIECE_BYTES] for at in range(0, len(stream), _PIECE_BYTES)]
    pieces.append(exchange.tag.encode() + b" OK done\r\n")
    memory.settle()  # as the service does at its start
    cpu, began = time.process_time(), time.perf_counter()
    receive = session.receive
    for piece in pieces:
        for framed in framer.feed(piece):
            # As `imap.link` does with what a transport hands it.
            if isinstance(framed, bytes):
                for event in parse_run(framed):
                    receive(event)
            else:
                receive(parse(framed))
    seconds = time.perf_counter() - began
    cpu = time.process_time() - cpu
    assert exchange.done and not collector.malformed
    messages = collector.messages.values()
    told = {
        "messages": len(messages),
        "flags": sum(len(message.flags or ()) for message in messages),
        "mod_seqs": sum(message.mod_seq or 0 for message in messages),
    }
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, **told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
