"""Where the figures go: ``performance.md`` between two marks, and plots and JSON in ``peers`` beside it.

The rule: what stands outside of the marks is written by people and never touched. Plots say in their titles what
is to be seen in them, and the title follows the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.peers import table
from bench.peers.better import OURS
from bench.peers.figures import Figure, Sitting, What
from bench.peers.settings import NAMES
from bench.peers.svg import Row, Series, dots, lines

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- make bench-peers: begin -->", "<!-- make bench-peers: end -->"


def kept(docs: Path) -> Path:
    """Return where the figures are kept."""
    return docs / "peers" / "figures.json"


def write(sitting: Sitting, docs: Path) -> None:
    """Write tables and plots. A page without marks, or none at all, gets them at its end."""
    pictures = {
        name: made
        for name, made in (
            ("steps", _steps(sitting)),
            ("children", _children(sitting)),
            ("latency", _latency(sitting)),
        )
        if made
    }
    for name, made in pictures.items():
        (docs / "peers" / f"{name}.svg").write_text(made, encoding="utf-8")
    shown = [f"![{_title(made)}](peers/{name}.svg)" for name, made in pictures.items()]
    text = "\n\n".join([BEGIN, table.text(sitting), *shown, END])
    page = docs / "performance.md"
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    head, found, rest = before.partition(BEGIN)
    tail = rest.partition(END)[2] if found else ""
    page.write_text(f"{head}{text}{tail or chr(10)}", encoding="utf-8")


def _title(made: str) -> str:
    return made.partition("<title>")[2].partition("</title>")[0]


def _steps(sitting: Sitting) -> str | None:
    figures = sitting.of("steps")
    series = [
        Series(NAMES[engine], colour, _envelope(sitting.of("steps", engine)))
        for colour, engine in enumerate(NAMES)
        if sitting.of("steps", engine)
    ]
    if not series:
        return None
    about = "recorded steps a second, each engine's best setting at each point; both axes logarithmic"
    return lines(_finding("steps", figures), about, "workflows of ten steps in flight", series)


def _envelope(figures: Sequence[Figure]) -> list[tuple[float, float]]:
    """Return the best rate for each number in flight: of our two turns and of a peer's settings."""
    best: dict[int, float] = {}
    for figure in figures:
        assert figure.rate is not None
        best[figure.at_once] = max(best.get(figure.at_once, 0.0), figure.rate)
    return [(float(at_once), best[at_once]) for at_once in sorted(best)]


def _children(sitting: Sitting) -> str | None:
    figures = sitting.of("children")
    rows: list[Row] = []
    for colour, engine in enumerate(NAMES):
        own = sitting.of("children", engine)
        most, plain = table.best(own), table.as_it_comes(own)
        if most is not None and most.rate is not None:
            same = plain is None or plain is most or (plain.default and most.default and plain.how == most.how)
            low = None if same or plain is None else plain.rate
            rows.append(
                Row(
                    f"{NAMES[engine]}{'' if low is None else ': as it comes, at its best'}", colour, low, most.rate
                )
            )
    about = "children a second of one parent, which do nothing; logarithmic"
    return dots(_finding("children", figures), about, rows) if rows else None


def _latency(sitting: Sitting) -> str | None:
    rows: list[Row] = []
    for colour, engine in enumerate(NAMES):
        for figure in sitting.of("latency", engine):
            if figure.p50_ms is not None and figure.p99_ms is not None:
                turn = figure.setting.rpartition(", ")[2]
                setting = turn if engine == OURS else "as it comes" if figure.default else "tuned"
                name = f"{NAMES[engine]}, {figure.how}, {setting}"
                rows.append(Row(name, colour, figure.p99_ms, figure.p50_ms))
    if not rows:
        return None
    soonest: dict[str, float] = {}
    for figure in sitting.averaged(OURS).of("latency"):
        if figure.p50_ms is not None:
            soonest[figure.engine] = min(figure.p50_ms, soonest.get(figure.engine, figure.p50_ms))
    (_, first), *others = sorted((p50_ms, NAMES[engine]) for engine, p50_ms in soonest.items())
    title = f"{first} answers soonest" + "".join(f", then {name}" for _, name in others)
    about = "ms from start to result of a run that does nothing: p50 full, p99 open; logarithmic"
    return dots(title, about, sorted(rows, key=lambda row: row.high))


def _finding(what: What, figures: Sequence[Figure]) -> str:
    mean, peer = table.ours(figures), table.next_best(figures)
    if mean is None or peer is None or not peer.rate:
        return f"{what.capitalize()} a second"
    return f"Continuum runs {table.times(mean / peer.rate)} times the {what} of the next, {NAMES[peer.engine]}"
