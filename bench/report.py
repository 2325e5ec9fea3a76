"""Rounds, medians and JSON lines."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing to measure: a name, a unit, what measures it once, and what it should reach."""

    name: str
    unit: str
    measure: Callable[[], float]
    at_most: float | None = None


Judged = Literal["median of the rounds", "worst round"]


@dataclass(frozen=True, slots=True)
class Line:
    """A figure of samples that many measurements share: the name of its samples, and of those it is held against.

    ``judged`` says what ``at_most`` and ``at_least`` hold for; bounds of the ratio are for the median of the
    rounds' ratios. With ``p99`` the samples are single events, not one a round; its bound is for all of them.
    """

    name: str
    unit: str
    beside: str | None = None
    at_most: float | None = None
    at_least: float | None = None
    ratio_at_most: float | None = None
    ratio_at_least: float | None = None
    p99_at_most: float | None = None
    judged: Judged = "median of the rounds"
    p99: bool = False


Samples = Mapping[str, Sequence[float]]


def run(figures: Sequence[Figure], rounds: int) -> None:
    """Measure all figures in interleaved rounds, after one that does not count, and print a JSON line for each.

    The first figure is the yardstick.
    """
    say(facts(rounds))
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
        line = spread(figure.name, figure.unit, values)
        if figure.unit.startswith("us"):
            line["ratio"] = round(statistics.median(values) / yardstick, 2)
        say(line | _held(_bounds("", statistics.median(values), figure.at_most, None)))


def show(lines: Sequence[Line], samples: Samples) -> None:
    """Print a JSON line for each figure that has samples. Ratios are taken round by round."""
    for wanted in lines:
        values = samples.get(wanted.name)
        if not values:
            continue
        line = spread(wanted.name, wanted.unit, values)
        worst = max if wanted.at_least is None else min
        bounded = worst(values) if wanted.judged == "worst round" else statistics.median(values)
        found = _bounds("", bounded, wanted.at_most, wanted.at_least)
        judged = {"judged": wanted.judged} if found else {}
        if wanted.p99:
            line |= {"p99": _short(p99(values)), "events": len(values)}
            found += _bounds("p99_", p99(values), wanted.p99_at_most, None)
        others = samples.get(wanted.beside, []) if wanted.beside is not None else []
        if ratios := [value / other for value, other in zip(values, others, strict=False) if other]:
            ratio = statistics.median(ratios)
            line |= {"beside": wanted.beside, "ratio": round(ratio, 3)}
            found += _bounds("ratio_", ratio, wanted.ratio_at_most, wanted.ratio_at_least)
        say(line | _held(found) | judged)


def spread(name: str, unit: str, values: Sequence[float]) -> dict[str, object]:
    """Return a figure's line so far: median, smallest and largest."""
    return {
        "figure": name,
        "unit": unit,
        "median": _short(statistics.median(values)),
        "min": _short(min(values)),
        "max": _short(max(values)),
    }


def p99(values: Sequence[float]) -> float:
    """Return the value that at most one in a hundred exceeds: of fewer than 100 the largest."""
    return sorted(values)[(len(values) * 99 + 99) // 100 - 1]


def _short(value: float) -> float:
    return round(value, 2 if abs(value) >= 1 else 4)


def _bounds(of: str, value: float, at_most: float | None, at_least: float | None) -> list[tuple[str, float, bool]]:
    """Return each bound there is: what it is called, what it is, and whether it is reached."""
    found: list[tuple[str, float, bool]] = []
    if at_most is not None:
        found.append((f"{of}at_most", at_most, value <= at_most))
    if at_least is not None:
        found.append((f"{of}at_least", at_least, value >= at_least))
    return found


def _held(bounds: Sequence[tuple[str, float, bool]]) -> dict[str, object]:
    """Return what is printed of bounds: each, and whether all of them are reached."""
    if not bounds:
        return {}
    found: dict[str, object] = {name: bound for name, bound, _ in bounds}
    return found | {"reached": all(reached for *_, reached in bounds)}


def facts(rounds: int) -> dict[str, object]:
    """Return what figures depend on: the interpreter, the machine, and how busy it was when we came."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "rounds": rounds,
    }


def say(line: Mapping[str, object]) -> None:
    """Print one JSON line, at once."""
    print(json.dumps(line), flush=True)


def resident_bytes() -> int:
    """Return the process's resident memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])  # Linux only
    return pages * os.sysconf("SC_PAGE_SIZE")
