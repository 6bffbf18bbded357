"""Servers that tests and benchmarks talk to: real ones in a private folder, and ones that misbehave on demand.

``tests/`` is on ``sys.path`` in a test run, so tests write ``from servers.dovecot import Dovecot``. The fixtures stand
in ``tests/conftest.py``.

- ``dovecot``     a private Dovecot 2.3: plain, STARTTLS and implicit TLS; QRESYNC, CONDSTORE or plain tier
- ``cyrus``       a private Cyrus 3: plain, STARTTLS and implicit TLS; QRESYNC and OBJECTID
- ``over_imap``   what another client does to a server that nothing but IMAP reaches (Cyrus, pymap)
- ``pymap``       pymap in a child process: a server with no CONDSTORE (the plain tier), mail from its demo data
- ``scripted``    an asyncio server that plays a script: what real servers do not do on demand
- ``mail_server`` what a test may ask of any of these, and in what they differ
- ``proxy``       a TCP proxy that counts round trips, and delays, drips, stalls, cuts or half-opens
- ``tls``         a throw-away certificate authority
- ``ports``       free ports, and waiting for a listener

Laws: every server listens on 127.0.0.1 only, is a context manager, leaves no process and no file behind, and is ready
when its ``start`` returns. What a test does to a running server is ``async def`` and never blocks the loop.
"""
