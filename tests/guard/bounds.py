"""Figures beside their bounds.

The rule: a bound is what was counted when it was set, and a little more: what a busy machine or another Python may
add. ``proposed`` says how much that is. Whoever makes the hot path cheaper lowers the bounds.
"""

from __future__ import annotations

from collections.abc import Mapping

WAY_OUT = """\
`make guard ARGS='--functions 40'` prints all figures, and what is called most.
If it is meant to cost more, raise the bound at the top of this file and say in the commit why it is worth it."""

HEADROOM = {"our calls": 1.05, "all calls": 1.05, "WAL bytes": 1.05, "commits": 1.3, "statements": 1.3}


def proposed(name: str, figure: float) -> float:
    """Return a bound for a figure as it is now, with three digits."""
    return float(f"{figure * HEADROOM.get(name, 1.0):.3g}")


def beyond(figures: Mapping[str, float], bounds: Mapping[str, float]) -> str:
    """Return what is beyond its bound, as an assertion's message; nothing if all are within."""
    assert figures.keys() == bounds.keys()
    found = [
        f"{name}: {figure:.4g}, where at most {bounds[name]:.4g} are allowed"
        for name, figure in figures.items()
        if figure > bounds[name]
    ]
    return "\n".join([*found, WAY_OUT]) if found else ""
