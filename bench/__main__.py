"""``python -m bench [core|journal|engine|timers|shapes|all] [ROUNDS]``: measure, one JSON line a figure."""

import argparse
import sys

from bench import core, engine, journal, shapes, timers
from bench.disk import InMemory
from bench.ending import Ending
from bench.report import run

ABOUT = """Print one JSON line a figure. A round of the journal takes 20 to 30 s, after about 10 s to fill the
tables, a round of the engine less than 60 s; one of timers takes three minutes and one of shapes two: these are
not part of all. Each has a server of its own, which takes 1.2 GB of disk below the checkout and 0.2 GB more each
round, and is removed at the end."""


def _rounds(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} rounds cannot be measured: give 1 or more")
    return int(word)


def _words(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=ABOUT)
    parser.add_argument(
        "what", nargs="?", choices=("core", "journal", "engine", "timers", "shapes", "all"), default="all"
    )
    parser.add_argument(
        "rounds",
        nargs="?",
        type=_rounds,
        metavar="ROUNDS",
        help="default: 7 of core, 1 of timers, 3 of shapes, 5 of the others",
    )
    return parser.parse_args(["all", *given] if given and given[0].isdecimal() else given)


def main() -> None:
    """Measure what is asked for."""
    words, ending = _words(sys.argv[1:]), Ending()
    ending.watch()
    try:
        if words.what in ("core", "all"):
            run(core.figures(), words.rounds or 7)
        if words.what in ("journal", "all"):
            journal.run(words.rounds or 5, ending)
        if words.what in ("engine", "all"):
            engine.run(words.rounds or 5, ending)
        if words.what == "timers":
            timers.run(words.rounds or 1, ending)
        if words.what == "shapes":
            shapes.run(words.rounds or 3, ending)
    except InMemory as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:  # one that is not ours cannot be: the signals are watched
        assert ending.number is not None
    if ending.number is not None:
        sys.exit(128 + ending.number)


if __name__ == "__main__":
    main()
