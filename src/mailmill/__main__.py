"""``python -m mailmill``."""

import sys

from mailmill.cli.main import main

sys.exit(main())
