"""Simulated clusters keep every promise, happen again exactly, and show what is broken.

``make simulate`` does the first at length.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from continuum._engine.cache import Cache
from continuum._engine.resident import Resident, TurnTaken
from continuum._journal.commit import Passivate
from tests.simulation import cluster as simulated_cluster
from tests.simulation import play as playing
from tests.simulation.command import main
from tests.simulation.faults import KINDS, WEIGHTS, with_faults
from tests.simulation.found import FOLDER, Found, keep, kept, smallest
from tests.simulation.outside import Outside
from tests.simulation.play import play
from tests.simulation.programs import Action, Fault, Root, Scenario, WorkerPlan, scenario

ROOT = Path(__file__).parents[2]
SEEDS = 5
SOON_S = 100.0
"""Without a commit for so long, a scenario without long waits has come to a halt."""
KEPT = sorted(FOLDER.glob("*.json"))


def simulate(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    """Run the command, whose texts hash as they do for whoever repeats it."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )


def transcript(found: Scenario) -> list[str]:
    lines: list[str] = []
    played = play(found, lines.append)
    assert (played.broken, played.crashed) == ("", "")
    return lines


# --- every promise is kept


def test_some_seeds_keep_every_promise() -> None:
    done = simulate("--seeds", str(SEEDS), "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds, 0 broken" in done.stdout


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_was_found_once_is_not_broken_any_more(path: Path) -> None:
    found = kept(path)
    assert found.broke, "a scenario is kept with the sentence that it broke"
    played = play(found.scenario)
    assert (played.broken, played.crashed) == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fault_strikes_and_breaks_nothing(kind: str) -> None:
    amounts = {"late": 4.0, "slow": 4.0, "freeze": 8.0, "outage": 8.0, "crash": 8.0, "lock": 3.0, "clock": -5.0}
    tree = ["main", [["work", "w1", {"value": 1}], ["sleep", 2], ["run", None, ["main", [["sleep", 1]]]]]]
    workers = (WorkerPlan({"lease": 3, "heartbeat": 1}),) * 2
    faults = tuple(Fault(number, kind, amounts.get(kind, 0.0)) for number in ((0,) if kind == "deaf" else (3, 20)))
    played = play(Scenario(3, (Root("r", tree, True),), workers=workers, faults=faults))
    assert (played.broken, played.crashed) == ("", "")
    assert played.struck[kind] > 0 or kind == "deaf"  # nobody counts what is not heard
    assert kind in WEIGHTS or kind == "deaf"


def test_the_page_on_reliability_names_every_fault() -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    rows = "".join(f"| {kind} | {what} |\n" for kind, what in KINDS.items())
    assert f"| Fault | What happens |\n|---|---|\n{rows}\n" in page


# --- what happened once happens again


def test_a_scenario_played_twice_does_the_same_line_for_line() -> None:
    found = with_faults(scenario(5))
    assert len(found.faults) > 3
    first = transcript(found)
    assert len(first) > 100
    assert transcript(found) == first


@pytest.mark.skipif(not os.environ.get("CONTINUUM_LONG"), reason="at length: CONTINUUM_LONG=1")
def test_a_seed_does_the_same_in_every_process() -> None:
    first, second = (simulate("--seed", "12", hash_seed=seed) for seed in ("1", "2"))
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr
    assert len(first.stdout.splitlines()) > 100
    assert first.stdout == second.stdout


# --- what is broken is seen, made small and kept


def drop_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that leaves memory does not say when its earliest timer is due."""

    def passivate(self: Any, run: Resident, wakeup_us: int | None) -> None:
        left = TurnTaken(run)
        assert run.machine is not None
        left.commit = run.standing(Passivate(None, run.machine.waiting_for()))
        run.committing = True
        self._turns.submit(left)

    monkeypatch.setattr(Cache, "_passivate", passivate)


PLANTED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {"wake-dropped-at-passivation": drop_wakes}


@pytest.mark.parametrize("path", [path for path in KEPT if kept(path).bug], ids=lambda path: path.stem)
def test_what_was_found_with_a_planted_bug_breaks_when_it_is_planted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated_cluster, "LONGEST_STILL_S", SOON_S)
    found = kept(path)
    PLANTED[found.bug](monkeypatch)
    assert play(found.scenario).broken == found.broke


def test_a_planted_bug_is_found_made_small_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_cluster, "LONGEST_STILL_S", SOON_S)
    drop_wakes(monkeypatch)
    tree = ["main", [["work", "w1", {"value": 1}], ["all", [["sleep", 60], ["side", 2]]]]]
    roots = (Root("r", tree, True), Root("other", ["main", [["draw"]]], True))
    large = Scenario(
        5, roots, workers=(WorkerPlan({"passivate_after": 0.1}),) * 2, faults=(Fault(9, "slow", 0.3),)
    )
    played = play(large)
    assert "it does not end; live: {'r': 'timer t1.timer-1'}" in played.broken
    small = smallest(played, bug="a wake")
    assert [root.tree for root in small.scenario.roots] == [["main", [["sleep", 60]]]]
    assert (small.scenario.faults, len(small.scenario.workers)) == ((), 1)
    keep(small, tmp_path / "found.json")
    assert kept(tmp_path / "found.json") == small == Found(small.scenario, small.broke, "a wake")
    assert play(small.scenario).broken == small.broke
    monkeypatch.undo()
    assert play(small.scenario).broken == ""


def test_the_command_says_what_is_broken_and_what_has_failed_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulated_cluster, "LONGEST_STILL_S", SOON_S)
    path = tmp_path / "found.json"
    lonely = Scenario(1, (Root("r", ["main", [["collect", "s1", 1]]], True),))
    mistaken = replace(lonely, actions=(Action(0.0, "signal", "nobody"),))
    verdicts = [
        (Scenario(1, (Root("r", ["main", []], True),)), 0, "every promise was kept"),
        (lonely, 1, "broken: it does not end; live: {'r': 'signal s1'}"),
        (mistaken, 2, "StopIteration"),
    ]
    for told, code, says in verdicts:
        keep(Found(told, ""), path)
        assert main(["--found", str(path)]) == code
        assert says in capsys.readouterr().out


def test_a_simulation_that_fails_itself_has_broken_no_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mistaken(self: Outside) -> None:
        raise ZeroDivisionError("in the simulation")

    monkeypatch.setattr(Outside, "_run", mistaken)
    played = play(scenario(1))
    assert played.broken == "", "what a test raises is no bug of the engine's"
    assert "ZeroDivisionError: in the simulation" in played.crashed


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "raise ZeroDivisionError('in the engine')",
            "ZeroDivisionError: in the engine (cache.py, line 2, in run)",
        ),
        ("while True: pass", "after 0.2 s of work it is still in run of cache.py"),
    ],
)
def test_a_worker_that_fails_or_does_not_come_to_wait_has_broken_a_promise(
    statement: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    place = str(sys.modules[Cache.__module__].__file__)  # as if it stood there
    exec(compile(f"async def run(self):\n    {statement}\n", place, "exec"), names)
    monkeypatch.setattr(Cache, "run", names["run"])
    monkeypatch.setattr(playing, "MOST_CPU_S", 0.2)
    played = play(Scenario(1, (Root("r", ["main", []], True),)))
    assert (played.broken, played.crashed) == (says, "")
