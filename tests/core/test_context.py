"""What a workflow may know of itself, and a signal to its parent."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.harness import START_US, Run, recorded

from continuum import (
    EncodeError,
    InvalidId,
    ParentRef,
    WorkflowMisuse,
    activity,
    activity_info,
    parent,
    run_info,
    wait_signal,
    workflow,
)
from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.machine import Machine, RunContext

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@workflow
async def reports() -> str:
    above = parent()
    assert above is not None
    above.signal("progress", {"done": 1})
    await wait_signal("go")
    above.signal("progress", {"done": 2})
    return above.id


def sent(number: int) -> c.SendSignal:
    return c.SendSignal(f"signal_progress-{number}", "p", "progress", b'{"done":%d}' % number)


def test_a_signal_to_the_parent_is_a_decision() -> None:
    run = Run(reports, id="p/kid", depth=1)
    assert run.command == sent(1)
    run.signal("go")
    assert run.commands[0] == sent(2)
    assert run.result == "p"


def test_a_recorded_signal_to_the_parent_is_not_sent_again() -> None:
    first = recorded("signal_sent", "signal_progress-1", run_id="p", name="progress", payload={"done": 1})
    run = Run.replayed(reports, None, first, id="p/kid", depth=1)
    assert run.commands == ()
    run.signal("go")
    assert run.commands[0] == sent(2)


def test_a_recorded_signal_that_is_not_sent_now_is_a_divergence() -> None:
    @workflow
    async def silent() -> None:
        await wait_signal("go")

    first = recorded("signal_sent", "signal_progress-1", run_id="p", name="progress", payload={"done": 1})
    run = Run.replayed(silent, None, first, id="p/kid", depth=1, allow_fault=True)
    assert "signal_sent signal_progress-1" in str(run.divergence)


def test_a_root_has_no_parent() -> None:
    @workflow
    async def root() -> bool:
        return parent() is None and run_info().parent_run_id is None

    assert Run(root).result is True


@pytest.mark.parametrize(
    ("name", "payload", "error"),
    [
        ("", 1, InvalidId),
        (" ", 1, InvalidId),
        ("x" * 201, 1, InvalidId),
        (3, 1, TypeError),
        ("ok", "nul\0", EncodeError),
    ],
)
def test_what_cannot_be_a_signal_is_refused_before_anything_is_decided(
    name: Any, payload: Any, error: type[Exception]
) -> None:
    @workflow
    async def flow() -> str:
        above = parent()
        assert above is not None
        with pytest.raises(error):
            above.signal(name, payload)
        return "refused"

    run = Run(flow, id="p/kid", depth=1)
    assert run.commands == (c.CompleteRun(b'"refused"'),)


def test_a_ref_of_another_runs_parent_is_refused() -> None:
    @workflow
    async def flow() -> None:
        ParentRef("q").signal("progress")

    assert "not this run's parent; that is 'p'" in Run(flow, id="p/kid", depth=1).failure.message


def test_run_info_says_what_the_run_was_started_with() -> None:
    @workflow(version=4)
    async def flow() -> dict[str, Any]:
        info = run_info()
        info.attributes["added"] = "here"  # reaches nobody
        again = run_info()
        return {
            "id": again.id,
            "of": [again.workflow, again.version, again.generation, again.attempt, again.depth],
            "parent": again.parent_run_id,
            "labels": [again.namespace, again.attributes, again.traceparent],
        }

    machine = Machine(flow, RunContext("a/b/c", 3, 2, 10, "blue", b'{"tenant":"t1"}', TRACE))
    closing = machine.apply(e.RunStarted(START_US, b"null")).closing
    machine.discard()
    assert isinstance(closing, c.CompleteRun)
    assert flow.result.decode(closing.result) == {
        "id": "a/b/c",
        "of": ["flow", 4, 3, 1, 2],
        "parent": "a/b",
        "labels": ["blue", {"tenant": "t1"}, TRACE],
    }


@pytest.mark.parametrize(
    ("given", "stored"),  # as an author spells them, and as a jsonb column gives them back
    [
        (b'{"zz":1,"a":{"yy":2,"b":[{"dd":3,"c":4}]}}', b'{"a": {"b": [{"c": 4, "dd": 3}], "yy": 2}, "zz": 1}'),
        (b'{"limit":1e20}', b'{"limit": 100000000000000000000}'),
        (b'{"limit":1.5e+23}', b'{"limit": 150000000000000000000000}'),
        (b'{"limit":-1e300}', b'{"limit": -1%b}' % (b"0" * 300)),
        (b'{"limit":9100000000000000.0}', b'{"limit": 9100000000000000.0}'),
        (b'{"small":-0.0,"tiny":5e-324}', b'{"tiny": 0.%b5, "small": 0.0}' % (b"0" * 323)),
        (b'{"half":0.50,"one":1.0,"whole":1}', b'{"one": 1.0, "half": 0.50, "whole": 1}'),
    ],
    ids=["names", "large", "larger", "largest", "no exponent", "small", "as they are"],
)
def test_attributes_are_told_alike_whether_they_have_been_in_the_database_or_not(
    given: bytes, stored: bytes
) -> None:
    @workflow
    async def flow() -> str:
        return repr(run_info().attributes)

    def told(attributes: bytes) -> bytes:
        machine = Machine(flow, RunContext("r", 1, 0, 10, "default", attributes))
        closing = machine.apply(e.RunStarted(START_US, b"null")).closing
        machine.discard()
        assert isinstance(closing, c.CompleteRun)
        return closing.result

    assert told(given) == told(stored)


def test_without_a_row_there_are_defaults() -> None:
    @workflow
    async def flow() -> list[Any]:
        info = run_info()
        return [info.namespace, info.attributes, info.traceparent, info.attempt]

    assert Run(flow).result == ["default", {}, None, 1]


def test_outside_a_workflow_or_an_activity_there_is_nothing_to_tell() -> None:
    @activity
    def asks() -> str:
        return activity_info().run_id

    for function in (run_info, parent, activity_info, asks):
        with pytest.raises(WorkflowMisuse):
            function()
