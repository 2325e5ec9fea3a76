"""What is looked for at the ends of runs is seen, when a violation is made by hand."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable

import pytest

from continuum._core import events as e
from continuum._core.effects import NewRun
from continuum._core.entries import entry_of_event
from continuum._core.failure import encode_failure
from continuum._journal.commit import Cancel, Commit, Complete, Continue
from continuum._journal.render import retry_text
from continuum.errors import Failure
from continuum.policies import ChildOptions, Retry
from tests.simulation import endings
from tests.simulation.checker import Broken
from tests.simulation.flows import LAST, simulated
from tests.simulation.test_checker import NOTHING, T0, World, child_started

Violation = Callable[[World], None]
VIOLATIONS: dict[str, Violation] = {}
CLOSED = encode_failure(Failure("parent_closed", "run 'r' ended, and this child closes with it"))


def breaks(sentence: str) -> Callable[[Violation], Violation]:
    def noted(violation: Violation) -> Violation:
        VIOLATIONS[sentence] = violation
        return violation

    return noted


def with_a_child(world: World, **options: object) -> None:
    """Let the run have a child that somebody still has."""
    made = ChildOptions(**options)  # type: ignore[arg-type]  # as the test says
    new = NewRun("r/k", "r", "k", 1, simulated.name, simulated.version, NOTHING, made)
    world.commit(entries=(child_started(),), children=(new,))


@breaks("run 'r/k' lives on, and 'r' let its cancellation through")
def _(world: World) -> None:
    with_a_child(world)
    world.commit(seq=2, status=Cancel(encode_failure(Failure("cancelled", "enough"))))


@breaks("run 'r/k' lives on, and was to be closed with 'r'")
def _(world: World) -> None:
    with_a_child(world, on_parent_close="cancel")
    world.commit(seq=2, status=Complete(b"[[]]"))


@breaks("run 'r/k' lives on, and its timeout ended with 'r'")
def _(world: World) -> None:
    with_a_child(world, timeout=60)
    world.commit(seq=2, status=Complete(b"[[]]"), published=b"[1,%d]" % LAST)


@breaks("was asked to stop, and goes on as its next generation")
def _(world: World) -> None:
    world.write(entry_of_event(e.CancelRequested(T0, "enough")))
    world.commit(seq=2, status=Continue(1, (entry_of_event(e.RunStarted(T0, NOTHING)),)))


@breaks("run 'r/k' was closed (abandon) with a parent that is completed")
def _(world: World) -> None:
    with_a_child(world)
    world.commit(seq=2, status=Complete(b"[[]]"), published=b"[1,%d]" % LAST)
    kid = world.watched.runs["r/k"]
    world.watched.cancel("r/k", "not needed")
    kid.error = CLOSED
    endings.check_closed(world.watched.runs, kid)


@breaks("run 'r' is failed at attempt 1 of 3")
def _(world: World) -> None:
    world.run.retry = retry_text(Retry(max_attempts=3))
    world.run.state = "failed"
    endings.check_attempts(world.run)


@breaks("generation 1 of run 'r' ended with None, not with")
def _(world: World) -> None:
    world.write(entry_of_event(e.RunStarted(T0, NOTHING)), generation=2)
    endings.check_followed(world.run, 1, None)


@pytest.mark.parametrize("sentence", VIOLATIONS)
def test_a_violation_is_seen(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Broken) as found:
        VIOLATIONS[sentence](World(monkeypatch))
    assert sentence in str(found.value)


def test_there_is_a_violation_for_each_thing_that_is_looked_for() -> None:
    tree = ast.parse(inspect.getsource(endings))
    raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise) and "Broken" in ast.unparse(node)]
    assert len(raised) == len(VIOLATIONS)


def test_attempts_and_closes_as_they_should_be_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    with_a_child(world, on_parent_close="cancel")
    world.commit(seq=2, status=Complete(b"[[]]"), published=b"[1,%d]" % LAST, descendants="close")
    kid = world.watched.runs["r/k"]
    assert not kid.live
    endings.check_closed(world.watched.runs, kid)
    world.run.retry = retry_text(Retry(max_attempts=2))
    world.run.state, world.run.generation = "failed", 2
    world.write(entry_of_event(e.RunStarted(T0, NOTHING, attempt=2)), generation=2)
    endings.check_attempts(world.run)


def test_a_commit_of_a_part_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    with_a_child(world, on_parent_close="cancel")
    endings.check_descendants(world.watched.runs, Commit("r", 1, 1, 2))
