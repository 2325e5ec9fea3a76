"""Figures beside other engines: what is written to the page, and engines that do not do what they are told."""

import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench.peers import page
from bench.peers.__main__ import words_of
from bench.peers.better import sentences
from bench.peers.engine import EngineFailed, running
from bench.peers.figures import Figure, Sitting, load

FACTS = {"when": "2026-01-01", "cpu": "some", "cores": 2, "memory_gb": 8, "system": "Linux", "python": "3.11"}


def steps(engine: str, rate: float, at_once: int) -> Figure:
    return Figure(
        engine=engine,
        setting="as it comes",
        default=True,
        what="steps",
        count=100,
        at_once=at_once,
        rate=rate,
        app_us=5.0 if engine == "continuum" else 9.0,
        store_us=1.0,
    )


SITTING = Sitting(
    FACTS,
    [
        steps("continuum", 200.0, 1),
        steps("continuum", 9_000.0, 32),
        steps("restate", 300.0, 1),
        steps("restate", 1_000.0, 32),
        Figure(engine="dbos", setting="", default=False, what="none", problem="not installed: no network"),
    ],
)


def test_what_people_wrote_around_the_figures_stays(tmp_path: Path) -> None:
    written = tmp_path / "performance.md"
    written.write_text(f"before\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n", encoding="utf-8")
    SITTING.save(page.kept(tmp_path))
    for _ in range(2):
        page.write(load(page.kept(tmp_path)), tmp_path)
    text = written.read_text(encoding="utf-8")
    assert text.startswith(f"before\n\n{page.BEGIN}\n")
    assert text.endswith(f"{page.END}\n\nafter\n")
    assert "old" not in text
    assert text.count("| Restate, as it comes | 32 | 1,000 (1/9.0) |") == 1
    assert "not installed: no network" in text
    title = ElementTree.parse(tmp_path / "peers" / "steps.svg").getroot()[0].text
    assert title == "Continuum runs 9.0 times the steps of the next, Restate"


def test_it_is_said_where_a_peer_is_better_and_only_there() -> None:
    assert sentences(SITTING) == ["Restate, 1 in flight: 300 steps/s, ours 200."]


def test_a_peer_is_compared_with_the_mean_of_our_turns() -> None:
    ours = [replace(steps("continuum", rate, 1), p50_ms=rate / 100) for rate in (200.0, 400.0)]
    ours += [replace(figure, what="latency") for figure in ours]
    peer = [steps("dbos", 299.0, 1), steps("absurd", 301.0, 1)]
    assert sentences(Sitting(FACTS, [*ours, *peer])) == ["Absurd, 1 in flight: 301 steps/s, ours 300."]
    (mean,) = Sitting(FACTS, ours).averaged("continuum").of("latency")
    assert (mean.p50_ms, mean.commits) == (3.0, None)


async def test_an_engine_that_ends_at_once_has_failed(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="it ended: it said nothing"):
        async with running(Path(sys.executable), "orders", "", {}, tmp_path / "log"):
            pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["--only", "dbos,nobody"],
            "--only: no such engine: 'nobody'; there are continuum, dbos, absurd, restate",
        ),
        (["--only", ""], "--only: no such engine: ''; there are"),
        (["--again"], "--again: there are no figures of an earlier sitting in"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_installed(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        words_of([*given, "--to", str(tmp_path)])
    assert said in capsys.readouterr().err
