"""Two kinds of plots as SVG: lines over a logarithmic plane, and two dots a row on a logarithmic line.

The rule: what is shown is named where it is shown, there is no legend. Text stays text, the ground stays
transparent, and the colours follow the reader's light or dark page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
_TOP, _FOOT, _RIGHT = 74, 44, 206
_FEW = 200  # the most that the ends of a scale may lie apart for ticks at 2 and 5
_STYLE = (
    "text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}"
    ".t{font-size:17px;font-weight:600}.s{fill:#59636e}.g{stroke:#d8dee4}.l{fill:none;stroke-width:2.5}"
    ".p0{stroke:#0969da;fill:#0969da}.p1{stroke:#bc4c00;fill:#bc4c00}.p2{stroke:#8250df;fill:#8250df}"
    ".p3{stroke:#1a7f37;fill:#1a7f37}text.n{stroke:none;font-weight:600}.l{fill:none}.o{fill-opacity:.25}"
    "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.s{fill:#9198a1}.g{stroke:#3d444d}"
    ".p0{stroke:#4493f8;fill:#4493f8}.p1{stroke:#f0883e;fill:#f0883e}.p2{stroke:#ab7df8;fill:#ab7df8}"
    ".p3{stroke:#3fb950;fill:#3fb950}.l{fill:none}}"
)


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name, its colour's number, its points."""

    name: str
    colour: int
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of two dots, an open one and a full one; ``low`` may be missing."""

    name: str
    colour: int
    low: float | None
    high: float


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic scale from values to places. It begins and ends at a power of ten or a half of one."""

    least: float
    most: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the place of a value."""
        share = math.log(value / self.least) / math.log(self.most / self.least)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Return the powers of ten within, and what lies between them if they are few."""
        powers = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
        between = (1, 2, 5) if self.most / self.least < _FEW else (1,)
        ticks = [10.0**power * digit for power in powers for digit in between]
        return [tick for tick in ticks if self.least * 0.999 <= tick <= self.most * 1.001]


def lines(title: str, about: str, across: str, series: Sequence[Series]) -> str:
    """Return a plot of lines, each with its name and most at its right end; ``across`` names the axis below."""
    xs, ys = ([point[axis] for line in series for point in line.points] for axis in (0, 1))
    height = 420
    x = Scale(min(xs), max(*xs, min(xs) * 10), 60, WIDTH - _RIGHT)
    y = Scale(min(ys) / 1.3, max(ys) * 1.3, height - _FOOT, _TOP)
    parts = _grid(y, horizontal=True) + _grid(x, horizontal=False)
    for line in series:
        path = " ".join(f"{x.at(along)},{y.at(up)}" for along, up in line.points)
        parts.append(f'<polyline class="l p{line.colour}" points="{path}"/>')
        parts += [
            f'<circle class="p{line.colour}" cx="{x.at(a)}" cy="{y.at(u)}" r="3.5"/>' for a, u in line.points
        ]
    ends = sorted(series, key=lambda line: y.at(line.points[-1][1]))
    for line, place in zip(ends, _apart([y.at(line.points[-1][1]) for line in ends]), strict=True):
        along, _ = line.points[-1]
        name = f"{escape(line.name)}, up to {_short(max(point[1] for point in line.points))}"
        parts.append(f'<text class="n p{line.colour}" x="{x.at(along) + 10}" y="{place + 4}">{name}</text>')
    parts.append(f'<text class="s" x="{x.start}" y="{height - 6}">{escape(across)}</text>')
    return _whole(title, about, height, parts)


def dots(title: str, about: str, rows: Sequence[Row]) -> str:
    """Return a plot of rows, from the open dot to the full one, which has its value on the other side."""
    values = [value for row in rows for value in (row.low, row.high) if value]
    left, height = 300, _TOP + 28 * len(rows) + _FOOT
    x = Scale(min(values) / 1.5, max(values) * 1.3, left, WIDTH - 60)
    parts = _grid(x, horizontal=False, foot=height)
    for number, row in enumerate(rows):
        y = _TOP + 16 + 28 * number
        high = x.at(row.high)
        parts.append(f'<text x="8" y="{y + 4}">{escape(row.name)}</text>')
        if row.low:
            low = x.at(row.low)
            parts.append(f'<path class="l p{row.colour}" d="M{low} {y}H{high}"/>')
            parts.append(f'<circle class="o p{row.colour}" cx="{low}" cy="{y}" r="5"/>')
        parts.append(f'<circle class="p{row.colour}" cx="{high}" cy="{y}" r="5"/>')
        left_of = row.low is not None and row.low > row.high
        anchor = f'x="{high - 10}" text-anchor="end"' if left_of else f'x="{high + 10}"'
        parts.append(f'<text class="n p{row.colour}" {anchor} y="{y + 4}">{_short(row.high)}</text>')
    return _whole(title, about, height, parts)


def _grid(scale: Scale, *, horizontal: bool, foot: int = 420) -> list[str]:
    parts: list[str] = []
    for tick in scale.ticks():
        at = scale.at(tick)
        if horizontal:
            parts.append(f'<path class="g" d="M60 {at}H{WIDTH - _RIGHT}"/>')
            parts.append(f'<text class="s" x="52" y="{at + 4}" text-anchor="end">{_short(tick)}</text>')
        else:
            parts.append(f'<path class="g" d="M{at} {_TOP}V{foot - _FOOT}"/>')
            y = foot - _FOOT + 17
            parts.append(f'<text class="s" x="{at}" y="{y}" text-anchor="middle">{_short(tick)}</text>')
    return parts


def _apart(places: Sequence[float], distance: float = 17) -> list[float]:
    """Return places from the top down, none nearer to the one above than that."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + distance) if found else place)
    return found


def _short(value: float) -> str:
    if value >= 1:
        return f"{float(f'{value:.3g}'):,.0f}" if value >= 10 else f"{value:.2g}"
    return f"{value:.2g}"


def _whole(title: str, about: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<text class="t" x="8" y="24">{escape(title)}</text>\n'
        f'<text class="s" x="8" y="46">{escape(about)}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )
