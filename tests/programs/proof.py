"""Histories in a file, and their replay in another process, hash seed and Python.

python -m tests.programs.proof record FILE FIRST STOP    run the programs of these seeds, restarted at every point
python -m tests.programs.proof verify FILE [FIRST EVERY] replay what a file holds, or some of it
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from continuum._core.entries import Entry
from tests.programs.driver import History, Mismatch, record, verify
from tests.programs.planted import PLANTED


def write(path: Path, histories: Iterable[History]) -> int:
    """Write one history a line; return how many."""
    count = 0
    with path.open("w", encoding="utf-8") as lines:
        for history in histories:
            rows = [[entry.type, entry.key, entry.at_us, entry.payload.decode()] for entry in history.entries]
            line = [history.seed, history.tree, rows, history.turns, history.ended]
            lines.write(json.dumps(line) + "\n")
            count += 1
    return count


def read(path: Path) -> Iterator[History]:
    """Yield what ``write`` wrote."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            seed, tree, rows, turns, ended = json.loads(line)
            entries = [Entry(type_, key, at_us, payload.encode()) for type_, key, at_us, payload in rows]
            yield History(seed, tree, entries, turns, ended)


def main(arguments: list[str]) -> int:
    """Record or verify, and print a count. Exit 1 after the first program that fails, or with how many differ."""
    if plant := os.environ.get("CONTINUUM_PLANT"):
        PLANTED[plant]()
    command, path = arguments[0], Path(arguments[1])
    if command == "record":
        return record_all(path, range(int(arguments[2]), int(arguments[3])))
    first, every = map(int, arguments[2:] or ("0", "1"))
    return verify_all(path, first, every)


def record_all(path: Path, seeds: range) -> int:
    """Record into a file. A planted bug is left for ``verify_all`` to find, so then nothing is restarted."""
    restarts = not os.environ.get("CONTINUUM_PLANT")
    seed = seeds.start

    def histories() -> Iterator[History]:
        nonlocal seed
        for seed in seeds:
            yield record(seed, restarts=restarts)

    try:
        print(f"recorded {write(path, histories())}")
    except Mismatch as mismatch:
        print(f"failed {seed}\n{mismatch}")
        return 1
    return 0


def verify_all(path: Path, first: int, every: int) -> int:
    """Verify a file, or one in ``every`` of its histories; show the first mismatches."""
    total, bad = 0, 0
    for history in islice(read(path), first, None, every):
        total += 1
        try:
            verify(history)
        except Exception as mismatch:
            bad += 1
            if bad <= 3:
                print(mismatch if isinstance(mismatch, Mismatch) else f"seed {history.seed}: {mismatch!r}")
    print(f"verified {total}, {bad} differ, on {sys.version.split()[0]}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
