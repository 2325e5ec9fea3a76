"""What was measured, as values and as the JSON that is kept beside the page.

The rule: a figure has all that its line in a table needs; what could not be measured has a ``problem`` instead.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

What = Literal["steps", "children", "latency", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement of one setting. Costs are for one step, one child or one run.

    ``rate`` is a second's steps or children. ``app_us`` and ``store_us`` are CPU time of the engine's own
    processes, its client included, and of Postgres or the engine's own server. What nobody could tell is None.
    """

    engine: str
    setting: str
    default: bool
    what: What
    how: str = ""
    count: int = 0
    at_once: int = 0
    rate: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    app_us: float | None = None
    store_us: float | None = None
    commits: float | None = None
    statements: float | None = None
    bytes: float | None = None
    memory_mb: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Sitting:
    """All that was measured in one sitting, and on what."""

    facts: dict[str, Any]
    figures: list[Figure] = field(default_factory=list[Figure])

    def of(self, what: What, engine: str = "") -> list[Figure]:
        """Return the figures of one kind, of one engine or all, in the order they were taken."""
        return [
            figure
            for figure in self.figures
            if figure.what == what and figure.problem is None and engine in ("", figure.engine)
        ]

    def averaged(self, engine: str) -> Sitting:
        """Return it with all turns of an engine as one: what was measured alike is its mean."""
        alike: dict[tuple[str, str, int, int], list[Figure]] = {}
        for figure in self.figures:
            if figure.engine == engine and figure.problem is None:
                alike.setdefault((figure.what, figure.how, figure.count, figure.at_once), []).append(figure)
        others = [figure for figure in self.figures if figure.engine != engine or figure.problem is not None]
        return Sitting(self.facts, [*map(_mean, alike.values()), *others])

    def save(self, path: Path) -> None:
        """Write it down."""
        kept = {"facts": self.facts, "figures": [_short(asdict(figure)) for figure in self.figures]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def number(value: float | None) -> str:
    """Return a number with as many digits as it deserves; a dash for none."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def load(path: Path) -> Sitting:
    """Read what was written down."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    return Sitting(kept["facts"], [Figure(**figure) for figure in kept["figures"]])


def _mean(figures: Sequence[Figure]) -> Figure:
    told = {name: [getattr(figure, name) for figure in figures] for name in _MEASURED}
    return replace(figures[0], **{name: mean(values) for name, values in told.items() if None not in values})


_MEASURED = ("rate", "p50_ms", "p99_ms", "app_us", "store_us", "commits", "statements", "bytes", "memory_mb")


def _short(figure: dict[str, Any]) -> dict[str, Any]:
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in figure.items()
        if value is not None
    }
