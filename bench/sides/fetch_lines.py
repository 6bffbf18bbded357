"""Lines of ``FETCH (UID FLAGS MODSEQ)`` as a large mailbox sends them. Standard library only: peers import it too."""

from __future__ import annotations

import random

_FLAGS = (b"", b"\\Seen", b"\\Seen", b"\\Answered \\Seen", b"\\Flagged \\Seen", b"\\Seen $Forwarded", b"$Junk")


def lines(count: int, seed: int) -> list[bytes]:
    """Untagged responses without ``* `` and line end; UIDs grow with holes, flags as people set them."""
    rng = random.Random(seed)
    uid = 0
    made = []
    for number in range(1, count + 1):
        uid += rng.choice((1, 1, 1, 2))
        flags, mod_seq = rng.choice(_FLAGS), rng.randrange(10_000, 9_000_000)
        made.append(b"%d FETCH (UID %d FLAGS (%b) MODSEQ (%d))" % (number, uid, flags, mod_seq))
    return made
