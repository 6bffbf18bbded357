"""``python -m mailmill``."""

from mailmill.cli.main import main

main()
