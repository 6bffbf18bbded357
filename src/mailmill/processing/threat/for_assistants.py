"""May an assistant be given a message's text? The mark ``promptInjection``, for what runs beside the threat scan.

Processors run in any order and see no results of one another, so what hands mail to a model asks here, of the message
itself. Programs outside read the mark that the scan leaves (``threat.promptInjection`` in the API and in webhooks).
"""

from __future__ import annotations

from itertools import chain

from mailmill.message_parser import ParsedMessage
from mailmill.processing.registry import Context
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.families.prompt_injection import DETECTORS, addressed_to_assistant


def speaks_to_assistant(message: ParsedMessage, context: Context | None = None) -> bool:
    """Whether the message holds text addressed to an assistant, in sight or hidden: then no assistant should read it.

    It says what the threat scan's mark says, but for three things. Attached files are not opened, so their insides are
    not for an assistant either. What an administrator's scoring table changes of severity does not count. And without
    the sender's history (``wants_history``), or without ``context``, the processor's own, less is believed: mail that
    talks about such text may be refused too.

    Pure; milliseconds of computing, not for the event loop (the first call reads phrases from disk). What it raises is
    a bug, and no leave to go on.
    """
    if context is None:
        prepared = prepare(message)
    else:
        prepared = prepare(
            message, own_address=context.account_email, authserv_id=context.authserv_id, history=context.history
        )
    return addressed_to_assistant(chain.from_iterable(detector(prepared) for detector in DETECTORS))
