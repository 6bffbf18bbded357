"""The IMAP client: a sans-I/O core and a thin asyncio shell.

It serves mailmill and stands on its own: what this package exports is its public surface, for any asyncio program
(``docs/imap-client.md`` is its guide, with worked examples)::

    endpoint, credentials = Endpoint("imap.example.org", 993), Credentials("me@example.org", "secret")
    async with await ImapConnection.connect(endpoint, credentials) as connection:
        await connection.select("INBOX")
        async for message in connection.fetch_bodies(await connection.search()): ...

Of the rest of mailmill it imports ``model``, ``errors``, ``uid_set`` and ``clock`` only, and of other packages none.

How bytes become answers, one file for each step::

    link.py ──bytes──▶ wire.py ──parts──▶ responses.py (fetch, envelope, tokens) ──event──▶ session.py ──▶ collectors.py
    link.py ◀─bytes─── commands.py (utf7) ◀── dialogue.py (exchanges, IDLE) ◀── connection.py, opening.py

=================  =============================================================================================
``wire``           framing: lines and literals, caps; literals too large for memory go to a sink         (pure)
``tokens``         parts into nested values, without recursion                                           (pure)
``responses``      parts into one typed event; never raises, what cannot be read is `Malformed`          (pure)
``fetch``          FETCH, with the fast readings                                                         (pure)
``commands``       the one encoder of arguments, and a function for each command                         (pure)
``session``        tags, state, capabilities, the selected mailbox, news that nobody asked for           (pure)
``notify``         what nobody asked for, by mailbox: NOTIFY (RFC 5465) and the selected mailbox's news       (pure)
``collectors``     what each command takes for itself out of the stream                                  (pure)
``auth``           which login, and what a refusal means                                                 (pure)
``providers``      limits and quirks as data                                                             (pure)
``limits``         the caps
``link``           the transport: waiting, silence, back-pressure, TLS upgrade
``spool``          large literals to disk, in threads
``tls``            when plain text is allowed, certificates, what a failed connection means
``dialogue``       commands and their ends, bursts, IDLE
``opening``        from an endpoint to a connection that is logged in
``searching``      UID SEARCH, whole or not at all
``writing``        STORE, COPY, MOVE, EXPUNGE, APPEND
``write_codes``    what servers tell of copies and refused changes, bounded                              (pure)
``connection``     `ImapConnection`, the door of this package
``replies``        what its methods return
``pool``           connections of one account, leased one owner at a time
``host_budget``    logins per second and connections at one host, for all accounts; peace for a host that fails
=================  =============================================================================================

Laws:

- Every untagged response is taken in order. What no command asked for is kept as a hint; nothing is dropped.
- An exchange that was cut, cancelled or left half read closes its connection for ever.
- Everything a server sends is bounded (``limits``); a response that cannot be read never ends a connection.
- Nothing is sent in the clear but to this machine, unless the endpoint says so. Secrets are in no repr, log or error.
- Sequence numbers never leave this package.
"""

from __future__ import annotations

from mailmill.errors import (
    ArgumentError,
    AuthenticationError,
    CertificateError,
    CommandError,
    ConnectError,
    ConnectionLostError,
    ContradictionError,
    ImapError,
    InsecureError,
    LimitError,
    PoolTimeoutError,
    ProtocolError,
    UnsupportedError,
)
from mailmill.imap.connection import (
    AppendReply,
    ConnectionSettings,
    CopyReply,
    Features,
    FetchedBody,
    ImapConnection,
    Limits,
    ListedMailbox,
    MetaReply,
    SelectedMailbox,
    StoreReply,
    Told,
)
from mailmill.imap.pool import Pool, PoolSettings, PoolStats
from mailmill.imap.providers import Provider
from mailmill.model import (
    INBOX,
    Address,
    Credentials,
    Endpoint,
    Envelope,
    Flags,
    MailboxRef,
    MailboxStatus,
    MessageMeta,
    Tls,
    Uid,
)
from mailmill.uid_set import UidSet

__all__ = [
    "INBOX",
    "Address",
    "AppendReply",
    "ArgumentError",
    "AuthenticationError",
    "CertificateError",
    "CommandError",
    "ConnectError",
    "ConnectionLostError",
    "ConnectionSettings",
    "ContradictionError",
    "CopyReply",
    "Credentials",
    "Endpoint",
    "Envelope",
    "Features",
    "FetchedBody",
    "Flags",
    "ImapConnection",
    "ImapError",
    "InsecureError",
    "LimitError",
    "Limits",
    "ListedMailbox",
    "MailboxRef",
    "MailboxStatus",
    "MessageMeta",
    "MetaReply",
    "Pool",
    "PoolSettings",
    "PoolStats",
    "PoolTimeoutError",
    "ProtocolError",
    "Provider",
    "SelectedMailbox",
    "StoreReply",
    "Tls",
    "Told",
    "Uid",
    "UidSet",
    "UnsupportedError",
]
