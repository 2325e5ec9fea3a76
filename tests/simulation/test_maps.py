"""Maps are played in scenarios, and what is looked for of them is seen when a violation is made by hand."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest

from continuum._core import commands as c
from continuum._core.effects import NewRun
from continuum._core.entries import Entry, entry_of_decision
from continuum.policies import ChildOptions
from tests.simulation import maps
from tests.simulation.bare import Bare, play
from tests.simulation.checker import Broken
from tests.simulation.confluence import confluent, may_fail
from tests.simulation.flows import simulated
from tests.simulation.programs import Root, Scenario
from tests.simulation.test_checker import NOTHING, T0, World

Violation = Callable[[World], None]
VIOLATIONS: dict[str, Violation] = {}
HOW: dict[str, Any] = {"label": "m1w2c", "window": 2, "rest": "cancel", "named": True, "enough": None}
HOW |= {"tolerate": None, "collect": True, "paged": False, "limit": None, "retry": None, "close": "abandon"}
WAITS = ["main", [["expire", "never", 3600]]]


def breaks(sentence: str) -> Callable[[Violation], Violation]:
    def noted(violation: Violation) -> Violation:
        VIOLATIONS[sentence] = violation
        return violation

    return noted


def start(world: World, keys: Collection[str], *more: Entry, seq: int = 1, **parts: Any) -> None:
    """Let the run start children under ``keys``, in one commit with ``more``."""
    entries, children = [], []
    for key in keys:
        started = c.StartChild(key, f"r/{key}", simulated.name, simulated.version, NOTHING, ChildOptions())
        entries.append(entry_of_decision(started, T0))
        new = NewRun(f"r/{key}", "r", key, 1, simulated.name, simulated.version, NOTHING, ChildOptions())
        children.append(new)
    world.commit(seq=seq, entries=(*entries, *more), children=tuple(children), **parts)


def decided(*keys: str) -> Entry:
    return entry_of_decision(c.DecideMap("map_simulated-1", "enough", 2, 1, 0, 0, keys), T0)


@breaks("run 'r' has ['r/m1w1c.0', 'r/m1w1c.1'] in flight, and its map 'm1w1c' may have 1")
def _(world: World) -> None:
    start(world, ["m1w1c.0", "m1w1c.1"])


@breaks("['r/m1w2c.1'] live on, and map 'm1w2c' of run 'r' has cancelled the rest")
def _(world: World) -> None:
    start(world, ["m1w2c.0", "m1w2c.1"])
    world.watched.cancel("r/m1w2c.0", "as if it had ended")
    world.commit(seq=3, entries=(decided("m1w2c.0"),))


@breaks("run 'r' cancels 'm1w2c.1', and no entry says that its map was decided")
def _(world: World) -> None:
    start(world, ["m1w2c.0", "m1w2c.1"])
    rest = c.CancelChild("m1w2c.1", "r/m1w2c.1", maps.DECIDED)
    world.commit(seq=3, entries=(entry_of_decision(rest, T0),))


@pytest.mark.parametrize("sentence", VIOLATIONS)
def test_a_violation_is_seen(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Broken) as found:
        VIOLATIONS[sentence](World(monkeypatch))
    assert sentence in str(found.value)


def test_there_is_a_violation_for_each_thing_that_is_looked_for() -> None:
    tree = ast.parse(inspect.getsource(maps))
    raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise) and "Broken" in ast.unparse(node)]
    assert len(raised) == len(VIOLATIONS)


def test_maps_as_they_should_be_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    start(world, ["m1w2a.0", "m1w2a.1", "m2w1c.0", "m3w11c.1", "m3w11c.10"])
    world.watched.cancel("r/m2w1c.0", "as if it had ended")
    start(world, ["m2w1c.1"], decided("m1w2a.0"), seq=6)  # the rest of the first goes on, the second has room
    assert {run_id for run_id, run in world.watched.runs.items() if run.live} >= {"r/m1w2a.1", "r/m2w1c.1"}


def fails(text: str) -> list[Any]:
    return ["main", [["raise", text]]]


def test_a_map_that_waits_for_all_is_confluent_and_others_are_not() -> None:
    trees = [["main", [["draw"]]], ["main", [["side", 2]]]]
    assert confluent(["mapping", HOW, trees])
    assert confluent(["mapping", {**HOW, "tolerate": 0}, trees])
    assert not confluent(["mapping", {**HOW, "enough": 1}, trees])
    assert not confluent(["mapping", {**HOW, "limit": 10}, trees])
    assert not confluent(["mapping", HOW, [["main", [["now"]]]]])
    trees.append(fails("one"))
    assert confluent(["mapping", HOW, trees])
    assert not confluent(["mapping", {**HOW, "tolerate": 0}, trees])
    assert not may_fail(["mapping", HOW, trees])


@pytest.mark.parametrize("paged", [True, False])
@pytest.mark.parametrize(("rest", "state"), [("cancel", "cancelled"), ("abandon", "completed")])
def test_a_map_decided_early_lets_the_rest_be_as_it_says(rest: str, state: str, paged: bool) -> None:
    name = f"m1w2{rest[0]}"
    how = {**HOW, "label": name, "rest": rest, "enough": 1, "paged": paged}
    trees = [WAITS, ["main", [["side", 2]]], fails("none starts me")]
    made = Scenario(0, (Root("r", ["main", [["mapping", how, trees]]], True),))
    bare = Bare(made, 0)
    done, kinds = [[[4]]], [None, "Completed"]
    assert bare.play() == {"r": ("completed", [[[done, kinds, [f"r/{name}.1"], 1, 0, 0]]])}
    states = {run_id: run.state for run_id, run in bare.runs.items()}
    assert states == {"r": "completed", f"r/{name}.0": state, f"r/{name}.1": "completed"}


def test_a_map_that_collects_nothing_counts() -> None:
    how = {**HOW, "collect": False, "paged": True}
    tree = ["main", [["mapping", how, [["main", []], fails("one"), ["main", []]]]]]
    made = Scenario(0, (Root("r", tree, True),))
    assert play(made) == {"r": ("completed", [[[[], [], [], 2, 1, 0]]])}
    lossless = replace(
        made, roots=(Root("r", ["main", [["mapping", {**how, "tolerate": 0}, [["main", []]]]]], True),)
    )
    assert play(lossless) == {"r": ("completed", [[[[], [], [], 1, 0, 0]]])}
