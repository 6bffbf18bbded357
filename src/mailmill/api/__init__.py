"""The HTTP door: the API under ``/v1``, the probes at the root, and the page at ``/``.

Laws: it knows mail only through ``contract.UseCases`` (JSON-ready values in, JSON-ready values out) and never sees a
database or an IMAP connection. Nothing is answered before ``gate`` has let it pass. Every error has one shape,
``{"error": {"code", "message", "hint"}}``, and the table from error to HTTP status stands in ``errors`` alone. What a
sender wrote reaches the page as text only.

::

    contract.py       what the API needs of the application (a Protocol)
    schemas.py        the shapes of requests and answers, for OpenAPI
    application.py    create_app: routes, error handlers and the layers around them
    access.py         who may look: token, session, one-time link, host and origin rules (no I/O)
    gate.py           the ASGI layer that asks ``access``; the security headers
    door.py           what the routes share
    assets.py         the page's files
    errors.py         error → status, and the one shape
    routes_*.py       one file per family of endpoints
    server.py         listens on TCP and on the service's unix socket, inside our loop
    static/           the page: own HTML, CSS and JavaScript modules, nothing from outside
"""
