"""Keeping the store equal to the server, one account at a time.

The way through the room: ``account_sync`` owns an account's connections and decides *when* a pass is due;
``account_pass`` asks the server for all mailboxes' state in one round trip and hands each mailbox that moved to
``mailbox_sync``; there ``plan`` (pure) says *what* to ask, ``changes`` asks it and checks that the answer adds up,
``download`` fetches what is missing, newest first, and every step ends in one transaction of ``apply_batch``.

Laws (design §4): the cursor holds what the server said *before* the fetch; it moves with the data, in the same
transaction, and only over what is covered (``uncovered`` names the rest); absence is not deletion until an exact search
says so; a notification is a hint, the poll is the guarantee.

``failures`` is the one place where an error becomes a decision.
"""
