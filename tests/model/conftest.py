"""Lets the tests of the model import ``small_model`` from their own folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
