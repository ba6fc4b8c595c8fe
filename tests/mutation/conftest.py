"""The scripts of this folder find each other, and their tests find them, as they do from the command line."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
