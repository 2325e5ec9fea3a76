"""The tables of a sitting, as Markdown.

The rule: a table says of each engine what it does as it comes and what it does at its best, and a peer's best is
the best of everything that was measured. Nothing is left out because it looks bad for somebody, or for us.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from bench.peers.better import OURS, sentences
from bench.peers.figures import Figure, Sitting, What, number
from bench.peers.settings import NAMES


def text(sitting: Sitting) -> str:
    """Return everything that the page says in figures."""
    parts = [_about(sitting.facts), "**Steps.** " + _finding(sitting, "steps"), _steps(sitting)]
    parts += ["**Children.** " + _finding(sitting, "children"), _children(sitting)]
    parts += ["**From start to result**, one run at a time, everything else idle:", _latencies(sitting)]
    found = sentences(sitting) or ["Nothing of what was measured."]
    parts.append("**Where a peer is better**\n\n" + "\n".join(f"- {sentence}" for sentence in found))
    if problems := [figure for figure in sitting.figures if figure.problem]:
        lines = [f"- {NAMES[figure.engine]}, {figure.setting}: {figure.problem}" for figure in problems]
        parts.append("Not measured:\n\n" + "\n".join(lines))
    return "\n\n".join(part for part in parts if part)


def best(figures: Iterable[Figure]) -> Figure | None:
    """Return the figure with the highest rate."""
    return max(figures, key=lambda figure: figure.rate or 0.0, default=None)


def as_it_comes(figures: Iterable[Figure]) -> Figure | None:
    """Return the figure of default settings: of several the one with most in flight."""
    found = [figure for figure in figures if figure.default]
    return max(found, key=lambda figure: figure.at_once, default=None)


def ours(figures: Sequence[Figure]) -> float | None:
    """Return our rate: of our first and our last turn the mean of each one's best."""
    turns: dict[str, float] = {}
    for figure in figures:
        if figure.engine == OURS and figure.rate is not None:
            turns[figure.setting] = max(turns.get(figure.setting, 0.0), figure.rate)
    return statistics.mean(turns.values()) if turns else None


def next_best(figures: Sequence[Figure]) -> Figure | None:
    """Return the best figure of the peers."""
    return best(figure for figure in figures if figure.engine != OURS)


def times(ratio: float) -> str:
    """Return a ratio in words, with as many digits as it deserves."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _about(facts: dict[str, Any]) -> str:
    settings = ", ".join(f"`{name}` {value}" for name, value in facts.get("settings", {}).items())
    versions = facts.get("versions", {})
    engines = ", ".join(f"{NAMES[engine]} {versions[engine]}" for engine in NAMES if engine in versions)
    commits = " and ".join(f"{value:.2f}" for value in facts.get("plain_commit_ms", []))
    return (
        f"Measured {facts['when']} in {facts.get('took_s', 0) / 60:.0f} minutes: {facts['cpu']}, "
        f"{facts['cores']} cores, {facts['memory_gb']} GB, "
        f"{facts['system']}, {facts.get('file_system', '')}; Python {facts['python']}, "
        f"Postgres {facts.get('postgres', '')} on the same machine ({settings}); {engines}. "
        f"A plain commit took {commits} ms before and after."
    )


def _finding(sitting: Sitting, what: What) -> str:
    figures = sitting.of(what)
    mean, peer = ours(figures), next_best(figures)
    if mean is None or peer is None or not peer.rate:
        return "A second's, and what one costs:"
    return (
        f"Continuum does {times(mean / peer.rate)} times what the next does at its best, "
        f"{NAMES[peer.engine]}. A second's, and what one costs:"
    )


def _steps(sitting: Sitting) -> str:
    figures = sitting.of("steps")
    rows = [["as it comes", "in flight", "steps/s", *_COSTS, "memory, MB"]]
    mean = ours(figures)
    for engine in NAMES:
        own = sitting.of("steps", engine)
        if engine == OURS:
            turns = dict.fromkeys(figure.setting for figure in own)
            chosen = [best(figure for figure in own if figure.setting == turn) for turn in turns]
        else:
            chosen = list(dict.fromkeys([as_it_comes(own), best(own)]))
        for figure in chosen:
            if figure is not None:
                count = f"{figure.at_once:,}"
                rows.append(
                    [_named(figure), count, _rate(figure, mean), *_costs(figure), number(figure.memory_mb)]
                )
    rows[0][0] = "Engine and setting"
    return _markdown(rows)


def _children(sitting: Sitting) -> str:
    figures = sitting.of("children")
    rows = [["Engine and setting", "children", "children/s", *_COSTS, "memory, MB"]]
    for figure in figures:
        named = _named(figure) + (f"; {figure.how}" if figure.engine != OURS else "")
        costs = [*_costs(figure), number(figure.memory_mb)]
        rows.append([named, f"{figure.count:,}", _rate(figure, ours(figures)), *costs])
    return _markdown(rows)


def _latencies(sitting: Sitting) -> str:
    rows = [["Engine and setting", "runs", "p50, ms", "p99, ms", "statements a run"]]
    for figure in sitting.of("latency"):
        named = f"{_named(figure)}; {figure.how}"
        found = [number(figure.p50_ms), number(figure.p99_ms), number(figure.statements)]
        rows.append([named, f"{figure.count:,}", *found])
    return _markdown(rows)


_COSTS = ["CPU, µs: engine / store", "commits / statements", "bytes of WAL"]


def _costs(figure: Figure) -> list[str]:
    stored = number(figure.bytes) if figure.commits is not None else f"({number(figure.bytes)} written)"
    return [
        f"{number(figure.app_us)} / {number(figure.store_us)}",
        f"{number(figure.commits)} / {number(figure.statements)}",
        stored,
    ]


def _named(figure: Figure) -> str:
    return f"{NAMES[figure.engine]}, {figure.setting}"


def _rate(figure: Figure, mean: float | None) -> str:
    assert figure.rate is not None
    if figure.engine == OURS or mean is None:
        return f"**{figure.rate:,.0f}**" if figure.engine == OURS else f"{figure.rate:,.0f}"
    return f"{figure.rate:,.0f} (1/{times(mean / figure.rate)})"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    lines = [head, ["---"] * len(head), *others]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
