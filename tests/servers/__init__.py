"""Servers that tests and benchmarks talk to: real ones in a private folder, and ones that misbehave on demand.

``tests/`` is on ``sys.path`` in a test run, so tests write ``from servers.dovecot import Dovecot``. The fixtures stand
in ``tests/conftest.py``.

- ``dovecot``   a private Dovecot 2.3: plain, STARTTLS and implicit TLS; QRESYNC, CONDSTORE or plain tier
- ``pymap``     pymap in a child process: a server with no CONDSTORE (the plain tier), users and mail from its demo data
- ``scripted``  an asyncio server that plays a script: what real servers do not do on demand
- ``proxy``     a TCP proxy that counts round trips and delays, stalls or cuts
- ``tls``       a throw-away certificate authority
- ``ports``     free ports, and waiting for a listener

Laws: every server listens on 127.0.0.1 only, is a context manager, leaves no process and no file behind, and is ready
when its ``start`` returns. What a test does to a running server is ``async def`` and never blocks the loop.
"""
