"""What of two plays is compared: how each run ended, its journal without times, and what the outside world has.

The rule: a journal is compared generation by generation and without the order of its entries, for who ends first
of several is nobody's promise. What differs by nature (times, tracebacks, values of side effects) is left out.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from pprint import pformat
from typing import Any, cast

from continuum._journal.memory.store import entry_rows
from continuum._journal.memory.tables import RunRow
from continuum.descriptions import failure_of, plain
from continuum.testing.played import Played

LEFT_OUT = frozenset(("traceback", "child_deadlines", "at", "carried_at"))
NO_DECISION = frozenset(("activity_started",))  # told of what takes long, wherever it is under way
SHOWN = 60  # lines of a difference
Normalise = Callable[[Any], Any]


def lines_of(played: Played, normalise: Normalise) -> list[str]:
    """Return a play as lines: each run with its end, and its entries."""
    lines: list[str] = []
    for run_id in sorted(played.memory.runs):
        run = played.memory.runs[run_id]
        lines.append(f"run {run_id}: {_end(run, normalise)}")
        entries = [
            (generation, f"  {entry.type} {entry.key}".rstrip() + _payload(entry.type, entry.payload, normalise))
            for generation, _, entry in entry_rows(run, None)
            if entry.type not in NO_DECISION
        ]
        for generation, line in sorted(entries):
            lines.append(line if run.generation == 1 else f"  generation {generation}:{line}")
    return lines


def ledger_lines(played: Played) -> list[str]:
    """Return the state of the outside world as lines."""
    return (
        [] if played.ledger is None else ["ledger:", *(f"  {line}" for line in pformat(played.ledger).split("\n"))]
    )


def difference(before: list[str], after: list[str]) -> str:
    """Return two sides as a diff, "" if they are equal."""
    if before == after:
        return ""
    found = list(difflib.unified_diff(before, after, "without a crash", "with it", lineterm="", n=1))
    more = len(found) - SHOWN
    return "\n".join(found[:SHOWN]) + (f"\nand {more} more lines" if more > 0 else "")


def _end(run: RunRow, normalise: Normalise) -> str:
    if run.state == "completed":
        return f"completed with {_shown(None if run.result is None else plain(run.result), normalise)}"
    if run.error is not None:
        failure = failure_of(run.error)
        return f"{run.state}, {failure.type}: {failure.message}"
    return run.state


def _payload(kind: str, payload: bytes, normalise: Normalise) -> str:
    found = plain(payload)
    if kind == "side_effect_recorded" or found == {}:
        return ""
    return f" {_shown(found, normalise)}"


def _shown(value: Any, normalise: Normalise) -> str:
    return json.dumps(_without(normalise(value)), sort_keys=True, ensure_ascii=False, default=str)


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        named = cast("dict[str, Any]", value)
        return {name: _without(part) for name, part in named.items() if name not in LEFT_OUT}
    if isinstance(value, list):
        return [_without(part) for part in cast("list[Any]", value)]
    return value
