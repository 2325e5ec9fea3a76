"""``python -m bench [ROUNDS]``: measure the core, one JSON line a figure."""

import sys

from bench.core import figures
from bench.report import run

run(figures(), int(sys.argv[1]) if len(sys.argv) > 1 else 7)
