"""The IMAP client: a sans-I/O core and a thin asyncio shell.

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
``collectors``     what each command takes for itself out of the stream                                  (pure)
``auth``           which login, and what a refusal means                                                 (pure)
``providers``      limits and quirks as data                                                             (pure)
``limits``         the caps
``link``           the transport: waiting, silence, back-pressure, TLS upgrade
``spool``          large literals to disk, in threads
``tls``            when plain text is allowed, certificates, what a failed connection means
``dialogue``       commands and their ends, bursts, IDLE
``opening``        from an endpoint to a connection that is logged in
``connection``     `ImapConnection`, the door of this package
``pool``           connections of one account, leased one owner at a time
=================  =============================================================================================

Laws:

- Every untagged response is taken in order. What no command asked for is kept as a hint; nothing is dropped.
- An exchange that was cut, cancelled or left half read closes its connection for ever.
- Everything a server sends is bounded (``limits``); a response that cannot be read never ends a connection.
- Nothing is sent in the clear but to this machine, unless the endpoint says so. Secrets are in no repr, log or error.
- Sequence numbers never leave this package.
"""
