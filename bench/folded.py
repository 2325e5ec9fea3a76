"""py-spy's folded stacks as a table: how many microseconds of a step are spent where.

The rule: a sample belongs to the innermost function of ours on its stack, the libraries that it called included;
which they were stands beside it. What has no function of ours above the command's own is the event loop. A thread
that waits for a lock takes no time: the watchdog's is taken for running by py-spy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

OURS, FLOWS = "continuum/", "bench/flows.py"
# At the bottom of every stack: what runs the event loop, and not what it runs.
BELOW = ("continuum/__main__.py", "continuum/cli/")
LOOP = "the event loop"
PLACES_SHOWN = 40
LEAST_US = 0.05
_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]*?)(?::\d+)?\)")


@dataclass(slots=True)
class Place:
    """What is spent in one place: in all, by function, and by library below it."""

    total: int = 0
    functions: Counter[str] = field(default_factory=Counter[str])
    libraries: Counter[str] = field(default_factory=Counter[str])


def table(one: str, raw: str, each_us: float) -> str:
    """Return markdown: a line a module, what one costs there, and by which functions and libraries."""
    places: dict[str, Place] = {}
    for frames, count in _stacks(raw):
        name, function, library = _place(frames)
        place = places.setdefault(name, Place())
        place.total += count
        place.functions[function] += count
        if library:
            place.libraries[library] += count
    samples = sum(place.total for place in places.values())
    us = each_us / samples if samples else 0.0
    lines = [
        f"A {one}: {each_us:.1f} µs of the worker's core, {samples:,} samples.",
        "",
        f"| Where | µs a {one} | by function | of which in libraries |",
        "|---|---|---|---|",
    ]
    ranked = sorted(places.items(), key=lambda item: -item[1].total)
    for name, place in ranked[:PLACES_SHOWN]:
        lines.append(
            f"| {name} | {place.total * us:.2f} | {_told(place.functions, us)} | {_told(place.libraries, us)} |"
        )
    if rest := sum(place.total for _, place in ranked[PLACES_SHOWN:]):
        lines.append(f"| elsewhere | {rest * us:.2f} | | |")
    return "\n".join([*lines, ""])


def _told(counts: Counter[str], us: float) -> str:
    found = [(name, count * us) for name, count in counts.most_common() if count * us >= LEAST_US]
    return ", ".join(f"{name} {spent:.2f}" for name, spent in found)


def _stacks(raw: str) -> Iterator[tuple[list[tuple[str, str]], int]]:
    """Yield each stack, the outermost function first, and how often it was seen."""
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        found = [_FRAME.fullmatch(frame) for frame in stack.split(";")]
        frames = [(frame["function"], frame["file"]) for frame in found if frame]
        if frames and not _waits(*frames[-1]):
            yield frames, int(count)


def _waits(function: str, file: str) -> bool:
    return file == "threading.py" and function.endswith("wait")  # 3.11 knows what class a function is of


def _place(frames: list[tuple[str, str]]) -> tuple[str, str, str]:
    """Return module, function and library: the innermost frame of ours, and where it stood below that."""
    innermost = frames[-1]
    for function, file in reversed(frames):
        if file == FLOWS:
            return "the author's code", f"`{function}`", _library(innermost[1])
        if file.startswith(OURS) and not file.startswith(BELOW):
            module = file.removeprefix(OURS).removesuffix(".py")
            return f"`{module}`", f"`{function}`", _library(innermost[1])
    return LOOP, f"`{innermost[0]}`", _library(innermost[1])


def _library(file: str) -> str:
    """Return the library that a file belongs to; nothing if it is ours."""
    if file.startswith(OURS) or file == FLOWS:
        return ""
    return file.split("/")[0].removesuffix(".py")
