"""The command line: data on stdout, everything else on stderr, the same answers as the HTTP API.

Laws: every command but ``run``, ``demo``, ``doctor`` and ``threat`` speaks HTTP, to the running service through its
socket or, where none runs, to the application opened in this process: one code path. What mail or a server wrote is
made harmless (``safe_text``) before it reaches a terminal. Exit codes stand in ``errors`` alone. Heavy modules are
imported where they are used, so that ``mailmill --help`` and completion answer at once.

::

    main.py            the commands put together; the last net for errors
    streams.py         stdout and stderr there, and written in whole
    invocation.py      what one call was asked (--config, --json, --debug) and how it runs
    service_client.py  HTTP to the running service, or to the application in this process
    output.py          tables, fields and JSON; colours on a terminal only
    safe_text.py       control characters made visible; sizes, times and ages in words (pure)
    errors.py          error → lines and exit code
    serving.py         the API, the socket and the page's link while ``run`` or ``demo`` runs
    logs.py            the application's log lines while it runs inside a command
    commands/          one file per command or family of commands
    diagnosis/         what ``doctor`` looks at
    threat_views.py    verdicts on mail in files: a table, JSON lines, one message explained
    scan_table.py      the table of many verdicts, for any width of a terminal
    threat_figures.py  the figures of an evaluation as tables
"""
