"""Plays simulated clusters from the command line.

    --seeds N          so many seeds, from --first on (default 500 from 0), on --jobs processes
    --seed S           one seed, with a transcript of all that happened
    --found FILE       one scenario that was kept as a file, likewise
    --stop             end at the first seed that fails
    --keep             shrink each seed that fails, and keep what is left of it in tests/simulation/found

The exit code is 0 if every promise was kept, 1 if one was broken, 2 if the simulation itself failed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.faults import with_faults
from tests.simulation.found import FOLDER, keep, kept, smallest
from tests.simulation.play import Played, play
from tests.simulation.programs import Scenario, scenario, write

PORTION = 25  # seeds that a process plays before it reports
LONGEST = 600  # characters of a broken promise
DAY_S = 86_400


@dataclass
class Tally:
    """What came of some seeds."""

    broken: list[Played] = field(default_factory=list[Played])
    crashed: list[Played] = field(default_factory=list[Played])
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter[str])
    struck: Counter[str] = field(default_factory=Counter[str])

    def add(self, played: Played) -> None:
        """Count one scenario."""
        self.broken += [played] if played.broken else []
        self.crashed += [played] if played.crashed else []
        self.seconds += played.seconds
        self.counts.update(runs=played.runs, entries=played.entries, operations=played.operations)
        self.struck += played.struck

    def take_in(self, other: Tally) -> None:
        """Count what another one has."""
        self.broken += other.broken
        self.crashed += other.crashed
        self.seconds += other.seconds
        self.counts += other.counts
        self.struck += other.struck


def main(arguments: Sequence[str]) -> int:
    """Play what is asked for, print what came of it, return the exit code."""
    title, _, options = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        "python -m tests.simulation",
        description=title,
        epilog=options,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=500, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="S")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="J")
    parser.add_argument("--seed", type=int, metavar="S")
    parser.add_argument("--found", type=Path, metavar="FILE")
    parser.add_argument("--stop", action="store_true")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.found is not None:
        return _one(kept(asked.found).scenario)
    if asked.seed is not None:
        return _one(with_faults(scenario(asked.seed)))
    seeds = range(asked.first, asked.first + asked.seeds)
    return _first(seeds) if asked.stop else _many(seeds, asked.jobs, asked.keep)


def _one(chosen: Scenario) -> int:
    print(write(chosen))
    played = play(chosen, print)
    if played.crashed:
        print(f"the simulation failed:\n{played.crashed}")
    else:
        print(f"broken: {played.broken}" if played.broken else "every promise was kept")
    return _code(played.broken, played.crashed)


def _first(seeds: range) -> int:
    """Play until one fails, which is how a planted bug is looked for."""
    for number, seed in enumerate(seeds, 1):
        played = play(with_faults(scenario(seed)))
        if played.broken or played.crashed:
            print(f"seed {seed}, the {number}. one: {(played.broken or played.crashed)[:LONGEST]}")
            return _code(played.broken, played.crashed)
    print(f"{len(seeds):,} seeds, 0 broken")
    return 0


def _many(seeds: range, jobs: int, keeping: bool) -> int:
    began = time.monotonic()
    total = Tally()
    for tally in _tallies([seeds[at : at + PORTION] for at in range(0, len(seeds), PORTION)], jobs):
        for played in tally.broken:
            print(f"seed {played.scenario.seed}: {played.broken[:LONGEST]}", flush=True)
        for played in tally.crashed:
            print(f"seed {played.scenario.seed}: the simulation failed:\n{played.crashed}", flush=True)
        total.take_in(tally)
    _tell(total, len(seeds), time.monotonic() - began)
    for played in total.broken if keeping else ():
        _keep(played)
    return _code(total.broken, total.crashed)


def _tell(total: Tally, count: int, took_s: float) -> None:
    print("faults: " + ", ".join(f"{name} {number:,}" for name, number in sorted(total.struck.items())))
    broken = f"{len(total.broken)} broken"
    broken += f", {len(total.crashed)} without a verdict" if total.crashed else ""
    told = ", ".join(f"{number:,} {name}" for name, number in total.counts.items())
    days = total.seconds / DAY_S
    print(f"{count:,} seeds, {broken}; {told}; {days:,.1f} simulated days; {took_s:.0f} s")


def _tallies(portions: list[range], jobs: int) -> Iterator[Tally]:
    if jobs <= 1:
        yield from map(_portion, portions)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_portion, portions)


def _portion(seeds: range) -> Tally:
    tally = Tally()
    for seed in seeds:
        tally.add(play(with_faults(scenario(seed))))
    return tally


def _keep(played: Played) -> None:
    """Shrink what fails, and keep it."""
    seed = played.scenario.seed
    path = FOLDER / f"seed_{seed}.json"
    found = smallest(played)
    keep(found, path)
    print(f"seed {seed}, shrunk: {path}: {found.broke[:LONGEST]}", flush=True)


def _code(broken: object, crashed: object) -> int:
    return 2 if crashed else int(bool(broken))
