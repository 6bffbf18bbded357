"""The same lines by imapclient's parser of FETCH. Runs in the peers' environment, never in ours.

Arguments: how many lines, a seed. It is given them as imaplib hands them over: framed, without ``* `` and line end.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

from imapclient.response_parser import parse_fetch_response

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fetch_lines import lines


def main(count: str, seed: str) -> None:
    # imaplib leaves the word FETCH out, and imapclient's parser wants it so.
    texts = [text.replace(b" FETCH ", b" ", 1) for text in lines(int(count), int(seed))]
    gc.collect()
    gc.freeze()  # as the other side does
    cpu, began = time.process_time(), time.perf_counter()
    parsed = parse_fetch_response(texts, normalise_times=False, uid_is_key=True)
    seconds = time.perf_counter() - began
    cpu = time.process_time() - cpu
    told = {
        "messages": len(parsed),
        "flags": sum(len(message[b"FLAGS"]) for message in parsed.values()),
        "mod_seqs": sum(message[b"MODSEQ"][0] for message in parsed.values()),
    }
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, **told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
