"""``python -m bench [core|journal|all] [ROUNDS]``: measure, one JSON line a figure."""

import sys

from bench import core, journal
from bench.report import run

USAGE = "usage: python -m bench [core|journal|all] [ROUNDS]"
words = sys.argv[1:]
what = words.pop(0) if words and not words[0].isdigit() else "all"
rounds = int(words.pop(0)) if words and words[0].isdigit() else None
if words or what not in ("core", "journal", "all"):
    sys.exit(USAGE)
if what != "journal":
    run(core.figures(), rounds or 7)
if what != "core":
    journal.run(rounds or 5)
