"""The figures of history as lines, and as rows of a table with a column for each size.

The rule: rows can be pasted into ``docs/scaling.md`` as they are.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from bench.disk import COMMIT
from bench.group_commit import NAME
from bench.report import Line, Samples
from bench.yardstick import BATCHES

IN_FLIGHT = max(BATCHES)
FLUSH, YARDSTICK = f"rows, {IN_FLIGHT} in flight", f"{NAME}, {IN_FLIGHT} in flight"
IDLE = "what a worker asks by itself, each once"
RESULT = "start to result, p50"
VACUUM, HIT = "vacuum after a round", "blocks found in shared buffers"
ROWS = {
    FLUSH: ("rows/s", ("server CPU", "WAL", "blocks")),
    "start of 100": ("ms", ("server CPU", "WAL", "blocks")),
    "claim of 100": ("ms", ("server CPU", "WAL", "blocks")),
    RESULT: ("ms", ("statements", "blocks")),
    IDLE: ("ms", ("statements", "blocks")),
    "load of 100": ("ms", ("blocks",)),
    "history of a run": ("ms", ("blocks",)),
    "tree of a root": ("ms", ("blocks",)),
    "list, the newest 100": ("ms", ("blocks",)),
    "list, failed": ("ms", ("blocks",)),
    "list, one workflow in a hundred": ("ms", ("blocks",)),
    "list, a filter that fits nothing": ("ms", ("blocks",)),
    "cascade over 1,000": ("ms", ("server CPU", "blocks")),
    "prune of 1,000 runs": ("ms", ("WAL", "blocks")),
    VACUUM: ("s", ()),
    HIT: ("%", ()),
    "runs, a row": ("bytes", ("indexes",)),
    "events, a row": ("bytes", ("indexes",)),
    "tables and indexes": ("MB", ()),
}
WALKS = ("list, failed", "list, one", "list, a filter")  # over all roots until enough of them fit
DEEPER_AT_MOST = 2.0  # blocks that the same work touches: indexes have a level or two more
UNITS = {"server CPU": "us", "WAL": "bytes", "indexes": "bytes", "blocks": "blocks", "statements": "statements"}


def lines(sizes: Sequence[int]) -> list[Line]:
    """Return what is printed, in order: each figure of a size beside that without history."""
    first = sizes[0]
    found: list[Line] = []
    for name, unit in figures():
        bound = DEEPER_AT_MOST if unit == "blocks" and not name.startswith(WALKS) else None
        found.append(Line(f"{name}, {title(first)}", unit))
        found += [
            Line(f"{name}, {title(entries)}", unit, f"{name}, {title(first)}", ratio_at_most=bound)
            for entries in sizes[1:]
        ]
    return found


def figures() -> list[tuple[str, str]]:
    """Return the names of all figures, with their units."""
    found = [(COMMIT, "ms"), (YARDSTICK, "rows/s")]
    for name, (unit, costs) in ROWS.items():
        found += [(name, unit), *((f"{name}, {cost}", UNITS[cost]) for cost in costs)]
    return found


def table(sizes: Sequence[int], samples: Samples) -> list[str]:
    """Return rows of a table: medians, a column for each size, and the largest beside the first."""
    found = {name: statistics.median(values) for name, values in samples.items()}
    rows = [f"| beside | {' | '.join(title(entries) for entries in sizes)} | the last to the first |"]
    rows.append("|---" * (len(sizes) + 2) + "|")
    for name, (unit, costs) in ({COMMIT: ("ms", ()), YARDSTICK: ("rows/s", ())} | ROWS).items():
        about = " / ".join(f"{UNITS[cost]} of {cost}" if UNITS[cost] != cost else cost for cost in costs)
        names = [name, *(f"{name}, {cost}" for cost in costs)]
        columns = [[found.get(f"{each}, {title(entries)}") for each in names] for entries in sizes]
        ratios = [
            None if not last or not first else last / first
            for first, last in zip(columns[0], columns[-1], strict=True)
        ]
        cells = [_cell(column, short) for column in columns] + [_cell(ratios, "{:.2f}".format)]
        rows.append(f"| {name}: {unit}{about and '; '}{about} | {' | '.join(cells)} |")
    return rows


def _cell(values: Sequence[float | None], shown: Callable[[float], str]) -> str:
    """Return a figure and what it costs: ``2.1; 11 / 560``."""
    first, *costs = ["-" if value is None else shown(value) for value in values]
    return "; ".join([first, " / ".join(costs)] if costs else [first])


def short(value: float) -> str:
    """Return a figure as a table shows it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def title(entries: int) -> str:
    """Return how a size is called."""
    return f"{entries:,} entries"
