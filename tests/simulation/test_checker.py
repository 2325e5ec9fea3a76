"""The checker is not blind: whatever it looks for, a violation made by hand is seen."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.effects import Message, NewRun
from continuum._core.entries import Entry, entry_of_decision, entry_of_event
from continuum._journal.commit import Commit, Committed, Complete, NewRoot, Swept, TakenOver, Undone
from continuum._journal.memory import writing
from continuum._journal.memory.cascade import Cascade
from continuum._journal.memory.store import Memory
from continuum._journal.memory.tables import RunRow
from continuum._journal.memory.writing import Group, Written
from continuum.definitions import Definitions
from continuum.errors import DefinitionError
from continuum.policies import ChildOptions
from tests.simulation import checker
from tests.simulation.blame import blame
from tests.simulation.checker import Broken, Watched
from tests.simulation.cluster import Cluster
from tests.simulation.flows import DEFINITIONS, LAST, MIXED_UP, Plan, simulated
from tests.simulation.programs import Action, Root, Scenario

T0 = 1_700_000_000_000_000
NOTHING = simulated.input.encode(Plan(["main", []]))
"""The input of a run that completes in its first turn."""
Violation = Callable[["World"], None]
VIOLATIONS: dict[str, Violation] = {}


class World:
    """A watched journal with one worker ``w``, which holds the one run ``r``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        definitions = Definitions(DEFINITIONS)
        definitions.prepare()
        self.watched = Watched(lambda: T0, definitions)
        self.watched.register("w", 10)
        self.watched.start([NewRoot("r", simulated.name, simulated.version, NOTHING)])
        self.watched.claim("w", [(simulated.name, simulated.version)], 1)
        self.run: RunRow = self.watched.runs["r"]

    def credulous(self) -> None:
        """Let the journal take every commit from anybody, and write nothing."""

        def taken(_tables: object, _worker: str | None, groups: list[Group]) -> Written:
            return Written([tuple(Committed(T0) for _ in group) for group in groups])

        self.patch.setattr(writing, "flush", taken)

    def commit(self, *, worker: str = "w", **parts: Any) -> None:
        """Write a commit of the run, as its holder unless the parts say otherwise."""
        given = {"run_id": "r", "token": self.run.token, "generation": 1, "seq": 1, **parts}
        self.watched.flush(worker, [[Commit(**given)]])

    def complete(self, *, published: bytes | None = b"[1,%d]" % LAST) -> None:
        """Let the run complete, as it should."""
        self.commit(status=Complete(b"[[]]"), published=published)

    def write(self, *entries: Entry, generation: int = 1) -> None:
        """Put entries into the run's journal, past everybody."""
        rows = self.run.journal.setdefault(generation, {})
        rows.update(enumerate(entries, len(rows) + (generation == 1)))

    def told(self) -> int:
        """Send the run a signal; return the message's number."""
        self.watched.send([Message("r", "signal_received", "hello", b'{"payload":1}')])
        return self.watched.messages


def breaks(sentence: str) -> Callable[[Violation], Violation]:
    def noted(violation: Violation) -> Violation:
        VIOLATIONS[sentence] = violation
        return violation

    return noted


def child_started() -> Entry:
    start = c.StartChild("k", "r/k", simulated.name, simulated.version, NOTHING, ChildOptions())
    return entry_of_decision(start, T0)


def child() -> NewRun:
    return NewRun("r/k", "r", "k", 1, simulated.name, simulated.version, NOTHING, ChildOptions())


ENDED = entry_of_event(e.ChildCompleted(T0, "k", b"1"))
ANSWERED = Entry("update_answered", "u", T0, b'{"result":1}')


@breaks("of a group only a part was written")
def _(world: World) -> None:
    half = Written([(Committed(T0), Undone())])
    world.patch.setattr(writing, "flush", lambda *_: half)
    world.watched.flush("w", [[Commit("r", 1, 1, 1), Commit("r", 1, 1, 1)]])


@breaks("was written after it had ended")
def _(world: World) -> None:
    world.complete()
    world.credulous()
    world.commit()


@breaks("'other' wrote run 'r' under 1, which is 'w''s, 1")
def _(world: World) -> None:
    world.credulous()
    world.commit(worker="other")


@breaks("two workers wrote run 'r' under token 1")
def _(world: World) -> None:
    world.commit()
    world.watched.give(world.run, "other")
    world.commit(worker="other")


@breaks("is in generation 1, not in 2")
def _(world: World) -> None:
    world.credulous()
    world.commit(generation=2)


@breaks("message 1 of run 'r' was taken twice")
def _(world: World) -> None:
    number = world.told()
    world.commit(consumed=(number,), entries=(Entry("signal_received", "hello", T0, b'{"payload":1}'),))
    world.credulous()
    world.commit(consumed=(number,))


@breaks("left the inbox of run 'r' and is in no journal")
def _(world: World) -> None:
    world.commit(consumed=(world.told(),))


@breaks("message 1 of run 'r' was lost")
def _(world: World) -> None:
    world.told()
    world.watched.inbox.clear()
    world.watched.note_ends()


@breaks("shows [1, 1], and has shown [1, 2]")
def _(world: World) -> None:
    world.commit(published=b"[1,2]")
    world.commit(published=b"[1,1]")


@breaks("came without its parent's entry")
def _(world: World) -> None:
    world.commit(children=(child(),))


@breaks("says that it started {'k'}, and there was no child")
def _(world: World) -> None:
    world.commit(entries=(child_started(),))


@breaks("run 'r/k' ended, and nobody tells its parent")
def _(world: World) -> None:
    world.commit(entries=(child_started(),), children=(child(),), claimed=1)
    world.commit(run_id="r/k", status=Complete(b"[[]]"))


@breaks("run 'r' is running, and 'r' was cancelled with all below it")
def nobody_is_cancelled(world: World) -> None:
    world.patch.setattr(Memory, "cancel", lambda *_: Cascade("running", 1, trees=["r"]))
    world.watched.cancel("r", "enough")


@breaks("the sweep dropped mail of live runs")
def _(world: World) -> None:
    def dropping(memory: Memory, _every_s: float, _budget: int) -> object:
        memory.inbox.clear()
        return Swept(0, 1, True), set()

    world.told()
    world.patch.setattr(Memory, "sweep", dropping)
    world.watched.sweep(30, 1000)


@breaks("'w' declared ('x',) dead")
def _(world: World) -> None:
    world.watched.away_us = T0 - 1_000_000
    world.patch.setattr(Memory, "take_over", lambda *_: (TakenOver(0, (), ("x",)), set()))
    world.watched.take_over("w")


@breaks("is parked, and only 0 workers died of it")
def _(world: World) -> None:
    world.patch.setattr(Memory, "take_over", lambda *_: (TakenOver(1, ("r",), ()), set()))
    world.watched.take_over("w")


@breaks("had 0 entries when it ended, and has 1")
def _(world: World) -> None:
    world.complete()
    world.watched.note_ends()
    world.write(ENDED)
    world.watched.note_ends()


@breaks("an activity of run 'nobody', which does not exist")
def _(world: World) -> None:
    world.watched.check_cause("nobody", "g1.w1.1")


@breaks("began before its cause was durable")
def _(world: World) -> None:
    world.watched.check_cause("r", "g1.w1.1")


@breaks("run 'r' is running for ever")
def _(world: World) -> None:
    world.watched.check_end()


@breaks("child 'r' was born 0 times")
def _(world: World) -> None:
    world.complete()
    world.run.depth = 1
    world.watched.check_end()


@breaks("took another child's end for that of its own")
def _(world: World) -> None:
    world.patch.setattr(checker, "MIXED_UP", "[[]]")
    world.complete()
    world.watched.check_end()


@breaks("leases are left")
def _(world: World) -> None:
    world.complete()
    world.watched.give(world.run, "w")
    world.watched.check_end()


@breaks("has completed and shows None")
def _(world: World) -> None:
    world.complete(published=None)
    world.watched.check_end()


@breaks("answered an update twice")
def _(world: World) -> None:
    world.write(ANSWERED, ANSWERED)
    world.complete()
    world.watched.check_end()


@breaks("answered update 'u', and who asks finds no answer")
def _(world: World) -> None:
    world.write(ANSWERED)
    world.complete()
    world.watched.check_end()


@breaks("generation 2 of run 'r' has no start")
def _(world: World) -> None:
    world.complete(published=b"[2,%d]" % LAST)
    world.run.generation = 2
    world.watched.check_end()


@breaks("heard of the end of 'k' twice")
def _(world: World) -> None:
    world.write(child_started(), ENDED, ENDED)
    world.complete()
    world.watched.check_end()


@breaks("took another child's end for that of its own")
def _(world: World) -> None:
    world.complete()
    world.run.result = f'["{MIXED_UP}"]'.encode()
    world.watched.check_end()


@breaks("generation 1 of run 'r' does not replay")
def _(world: World) -> None:
    world.write(child_started())
    world.complete()
    world.watched.check_end()


@breaks("generation 1 of run 'r' ended with CompleteRun")
def _(world: World) -> None:
    world.complete(published=b"[2,%d]" % LAST)
    world.run.generation = 2
    world.write(entry_of_event(e.RunStarted(T0, NOTHING)), generation=2)
    world.watched.check_end()


@breaks("run 'r' is completed with b'[[1]]'")
def _(world: World) -> None:
    world.complete()
    world.run.result = b"[[1]]"
    world.watched.check_end()


def test_a_run_that_is_as_it_should_be_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.told()
    world.commit(published=b"[1,1]")
    world.commit(published=b"[1,1]")  # a first turn that was taken again
    world.complete()
    world.watched.check_end()


@pytest.mark.parametrize("sentence", VIOLATIONS)
def test_a_violation_is_seen(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Broken) as found:
        VIOLATIONS[sentence](World(monkeypatch))
    assert sentence in str(found.value)


def test_there_is_a_violation_for_each_thing_that_is_looked_for() -> None:
    seen: set[int] = set()
    for violation in VIOLATIONS.values():
        with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Broken) as found:
            violation(World(monkeypatch))
        seen.add(found.traceback[-1].lineno + 1)
    tree = ast.parse(inspect.getsource(checker))
    raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise) and "Broken" in ast.unparse(node)]
    untried = [node for node in raised if seen.isdisjoint(range(node.lineno, (node.end_lineno or 0) + 1))]
    assert raised
    assert [ast.unparse(node) for node in untried] == []


# --- what callers were told

ASKED = Scenario(
    0,
    (Root("r", ["main", [["answer", "ask1", 1, 0]]], True),),
    (Action(1.0, "update", "r", "ask1", 4, "u"), Action(2.0, "update", "r", "ask1", 4, "u")),
)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"results": {"r": ("failed", "no")}}, "its caller was told that it is failed"),
        ({"results": {"r": ("completed", 5)}}, "its caller was told 5"),
        ({"answers": {("r", "u"): [("answered", 8), ("answered", 9)]}}, "somebody heard ('answered', 9)"),
        (
            {"answers": {("r", "u"): [("unanswered", "")]}},
            "is ('answered', 8), and somebody heard ('unanswered', '')",
        ),
        ({"answers": {("r", "never"): [("answered", 8)]}}, "is ('unanswered', ''), and somebody heard"),
    ],
)
def test_whoever_is_told_what_is_not_so_is_noticed(told: dict[str, Any], sentence: str) -> None:
    cluster = Cluster(ASKED)
    outside = cluster.run()
    assert outside.results == {"r": ("completed", [[[4]]])}
    assert set(outside.answers[("r", "u")]) == {("answered", 8)}
    for name, value in told.items():
        setattr(outside, name, value)
    with pytest.raises(Broken) as found:
        outside.check(cluster.memory)
    assert sentence in str(found.value)


# --- whose fault it is


def test_what_the_engine_raises_is_a_broken_promise_and_what_the_simulation_raises_is_not() -> None:
    with pytest.raises(DefinitionError) as engines:
        Definitions([5])  # type: ignore[list-item]
    assert isinstance(blame(engines.value), Broken)
    assert "DefinitionError" in str(blame(engines.value))
    with pytest.raises(IndexError) as own:
        Cluster(replace(ASKED, workers=())).launch(3)
    assert blame(own.value) is own.value
    broken = Broken("a promise")
    assert blame(ExceptionGroup("services", [ExceptionGroup("callers", [broken]), own.value])) is broken
