"""``python -m ashnets`` is ``ashnets``."""

import sys

from ashnets.cli import main

sys.exit(main())
