"""Keeping the store equal to the server, one account at a time.

The way through the room: ``account_sync`` owns an account's connections and its life; in a session ``rounds`` decides
*when* a pass is due and follows what ``watch`` hears (NOTIFY, IDLE or nothing), ``wake`` tells that the machine slept;
``account_pass`` asks the server for all mailboxes' state in one round trip and hands each mailbox that moved to
``mailbox_sync``; there ``plan`` (pure) says *what* to ask, ``changes`` asks it and checks that the answer adds up,
``download`` fetches what is missing, newest first, and every step ends in one transaction of ``apply_batch``.

Laws (design §4): the cursor holds what the server said *before* the fetch; it moves with the data, in the same
transaction, and only over what is covered (``uncovered`` names the rest); absence is not deletion until an exact search
says so; a notification is a hint, the poll is the guarantee.

The way back up: ``write_back`` carries out what stands in ``request``, on the same connection; ``write_plan`` (pure)
says what a row and the server's state come to, ``write_search`` finds what a command may have made.

``failures`` is the one place where an error becomes a decision. ``verify`` is the second opinion: it enumerates both
sides by itself and shares nothing with the rest of the room but the pass it asks for.
"""
