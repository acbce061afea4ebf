"""``python -m ashnets`` does the same as ``ashnets``."""

import sys

from ashnets.cli import main

sys.exit(main())
