"""``python -m bench [PART] [ROUNDS]``: measure, one JSON line a figure. ``--help`` names the parts."""

import argparse
import sys
from collections.abc import Callable

from bench import core, counts, engine, history, journal, million, shapes, timers, wide, workers
from bench.disk import InMemory
from bench.ending import Ending
from bench.report import run

ABOUT = """Print one JSON line a figure. A round of the journal takes 20 to 30 s, after about 10 s to fill the
tables, a round of the engine less than 60 s: with core these are all. One of timers takes three minutes and one
of shapes two. Scale is wide (a parent of 100,000 children), million (that many suspended runs) and workers (one,
two and four processes), with about half a minute a round each. History does the same work beside none and beside
ten million entries of ended runs: a minute to fill 7 GB of disk, half a minute a round. Counts says what one of
each kind comes to, in a minute a round. Each part but core has a server of its own, which takes 1.2 GB of disk
below the checkout and 0.2 GB more each round, and is removed at the end."""
ALL, SCALE = ("core", "journal", "engine"), ("wide", "million", "workers")
SERVED: dict[str, tuple[Callable[[int, Ending], None], int]] = {  # and how many rounds
    "journal": (journal.run, 5),
    "engine": (engine.run, 5),
    "timers": (timers.run, 1),
    "shapes": (shapes.run, 3),
    "wide": (wide.run, 5),
    "million": (million.run, 5),
    "workers": (workers.run, 5),
    "history": (history.run, 3),
    "counts": (counts.run, 3),
}


def _rounds(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} rounds cannot be measured: give 1 or more")
    return int(word)


def _words(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=ABOUT)
    parser.add_argument("what", nargs="?", choices=("core", *SERVED, "scale", "all"), default="all")
    parser.add_argument(
        "rounds",
        nargs="?",
        type=_rounds,
        metavar="ROUNDS",
        help="default: 7 of core, 1 of timers, 3 of shapes, history and counts, 5 of the others",
    )
    return parser.parse_args(["all", *given] if given and given[0].isdecimal() else given)


def main() -> None:
    """Measure what is asked for."""
    words, ending = _words(sys.argv[1:]), Ending()
    ending.watch()
    try:
        for part in {"all": ALL, "scale": SCALE}.get(words.what, (words.what,)):
            if part == "core":
                run(core.figures(), words.rounds or 7)
            else:
                measure, usual = SERVED[part]
                measure(words.rounds or usual, ending)
    except InMemory as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:  # one that is not ours cannot be: the signals are watched
        assert ending.number is not None
    if ending.number is not None:
        sys.exit(128 + ending.number)


if __name__ == "__main__":
    main()
