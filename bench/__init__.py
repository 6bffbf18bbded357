"""The benchmarks: what mailmill must show, each measured beside a peer on a real private Dovecot.

``python -m bench [NAME…] [--json] [--quick] [--profile FOLDER]``; what each row measures is in ``docs/benchmarks.md``.

Laws:

- Both sides of a comparison run in one run, interleaved (A B A B …), so that the machine's moods meet both alike.
- Each timed side is a process of its own where CPU time or memory is told.
- Goals are those of the plan; a row never bends its work to meet one. All raw samples are in ``--json``.
- Peers never enter the project's environment: they live in ``bench/.cache`` (pip) or on PATH (Debian).

Files::

    figures.py     what was measured: samples, goals, lines      report.py      the table and the JSON
    corpus.py      mail, pseudo-random and reproducible          stage.py       what a row is given to work with
    processes.py   programs: wall time, CPU, memory              service.py     a running ``mailmill run`` and its API
    receiver.py    webhooks received, with the moment            bare_imap.py   watching and appending, without mailmill
    observed.py    what an observer in the service tells         distance.py    a server that is far away
    roomy.py       mailboxes of a hundred thousand               companions.py  programs of ours beside what is measured
    light_imap.py  a server for a thousand idle accounts         counting_proxy.py  round trips of a thousand
    peers.py       aioimaplib, imapclient, imapflow, mbsync …    machine.py     where it was measured
    durable.py     PostgreSQL and Redis, syncing to disk         backlog.py     a queue of a million, made by statements
    queue_stores.py  stores for the rows about the queue         fleet.py        nodes that come and go
    steady_mail.py   mail to many accounts, and how long each waits
    rows/          one module for each row of the table          sides/         programs timed in their own process
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

# The private servers (Dovecot, the counting proxy) are the tests'.
sys.path.insert(0, str(REPOSITORY / "tests"))
