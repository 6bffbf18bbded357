"""The service on sample mail, with nothing to set up: ``mailmill demo``.

``samples`` writes the mail, ``mail_server`` runs pymap and puts mail into it, ``receiver`` is the webhook's far end,
``narrator`` tells what happens line by line, and ``show`` writes a configuration into a folder of its own and hands it
to the same ``run_service`` as ``mailmill run``. Everything is gone when it ends.
"""

from mailmill.app.demo.show import run_demo

__all__ = ["run_demo"]
