"""Rounds, medians and JSON lines."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing to measure: a name, a unit, what measures it once, and what it should reach."""

    name: str
    unit: str
    measure: Callable[[], float]
    at_most: float | None = None


def run(figures: Sequence[Figure], rounds: int) -> None:
    """Measure all figures in interleaved rounds, after one that does not count, and print a JSON line for each.

    The first figure is the yardstick.
    """
    print(
        json.dumps({"python": platform.python_version(), "cores": os.cpu_count(), "rounds": rounds}),
        flush=True,
    )
    for figure in figures:  # a first round that does not count: imports, caches, the turns that are watched
        figure.measure()
    samples: dict[str, list[float]] = {figure.name: [] for figure in figures}
    for _ in range(rounds):
        for figure in figures:
            gc.collect()
            samples[figure.name].append(figure.measure())
    yardstick = statistics.median(samples[figures[0].name])
    for figure in figures:
        values = samples[figure.name]
        median = statistics.median(values)
        line: dict[str, object] = {
            "figure": figure.name,
            "unit": figure.unit,
            "median": round(median, 2),
            "min": round(min(values), 2),
            "max": round(max(values), 2),
        }
        if figure.unit.startswith("us"):
            line["ratio"] = round(median / yardstick, 2)
        if figure.at_most is not None:
            line["at_most"] = figure.at_most
            line["reached"] = median <= figure.at_most
        print(json.dumps(line), flush=True)


def resident_bytes() -> int:
    """Return the process's resident memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])  # Linux only
    return pages * os.sysconf("SC_PAGE_SIZE")
