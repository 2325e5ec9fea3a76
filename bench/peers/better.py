"""Where a peer is better than we are, found in the figures and said in sentences.

The rule: everything that the tables show is compared, the best of a peer with the mean of our two turns, where
more is better as where less is. So nobody has to remember to say it, and nobody can forget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.peers.figures import Figure, Sitting, What, number
from bench.peers.settings import NAMES

OURS = "continuum"
_Value = Callable[[Figure], float | None]
_COSTS: tuple[tuple[str, _Value], ...] = (
    ("µs of CPU", lambda figure: (figure.app_us or 0.0) + (figure.store_us or 0.0)),
    ("bytes of WAL", lambda figure: None if figure.commits is None else figure.bytes),
    ("commits", lambda figure: figure.commits),
    ("statements", lambda figure: figure.statements),
)
_COSTLY: tuple[tuple[What, str], ...] = (("steps", "a step"), ("children", "a child"))


def sentences(sitting: Sitting) -> list[str]:
    """Return one sentence for each thing that a peer does better."""
    fair = sitting.averaged(OURS)
    return [sentence for engine in NAMES if engine != OURS for sentence in _of(fair, engine)]


def _of(sitting: Sitting, engine: str) -> Iterator[str]:
    name, steps = NAMES[engine], sitting.of("steps", engine)
    for at_once in sorted({figure.at_once for figure in steps}):
        same = [figure for figure in sitting.of("steps", OURS) if figure.at_once == at_once]
        rate, our_rate = _most(_at(steps, at_once)), _most(same)
        if same and rate > our_rate:
            yield f"{name}, {at_once} in flight: {rate:,.0f} steps/s, ours {our_rate:,.0f}."
    rate, our_rate = _most(sitting.of("children", engine)), _most(sitting.of("children", OURS))
    if rate > our_rate:
        yield f"{name}: {rate:,.0f} children/s, ours {our_rate:,.0f}."
    yield from _soonest(sitting, engine)
    for what, one in _COSTLY:
        for thing, value in _COSTS:
            found = _least(sitting, what, engine, value)
            our = _least(sitting, what, OURS, value)
            if found is not None and our is not None and found < our:
                yield f"{name}: {number(found)} {thing} of {one}, ours {number(our)}."
    memory, our_memory = _memory(steps), _memory(sitting.of("steps", OURS))
    if memory is not None and our_memory is not None and memory < our_memory:
        yield f"{name}: at least {memory:.0f} MB of memory for workers, ours {our_memory:.0f}."


def _soonest(sitting: Sitting, engine: str) -> Iterator[str]:
    our = [figure for figure in sitting.of("latency", OURS) if figure.p50_ms and figure.p99_ms]
    for figure in sitting.of("latency", engine):
        for share, value, ours in (
            ("p50", figure.p50_ms, [other.p50_ms for other in our]),
            ("p99", figure.p99_ms, [other.p99_ms for other in our]),
        ):
            least = min((other for other in ours if other is not None), default=0.0)
            if value is not None and value < least:
                where = f"{NAMES[engine]}, {figure.how}"
                yield f"{where}: {number(value)} ms from start to result ({share}), ours {number(least)}."


def _at(figures: Sequence[Figure], at_once: int) -> list[Figure]:
    return [figure for figure in figures if figure.at_once == at_once]


def _most(figures: Sequence[Figure]) -> float:
    return max((figure.rate or 0.0 for figure in figures), default=0.0)


def _least(sitting: Sitting, what: What, engine: str, value: _Value) -> float | None:
    found = [told for figure in sitting.of(what, engine) if (told := value(figure)) is not None]
    return min(found, default=None)


def _memory(figures: Sequence[Figure]) -> float | None:
    return min((figure.memory_mb for figure in figures if figure.memory_mb), default=None)
