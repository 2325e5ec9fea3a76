"""In the testing kit code knows where it runs as in a worker, and a recorded run replays with its labels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from continuum import activity, activity_info, child, parent, run_info, wait_signal, workflow
from continuum.testing import WorkflowEnvironment, assert_replays, load_history, save_history

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def seen() -> list[Any]:
    called, span = activity_info(), trace.get_current_span().get_span_context()
    return [called.run_id, called.key, called.attempt, called.traceparent, f"{span.trace_id:032x}"]


@activity
async def on_loop() -> list[Any]:
    return seen()


@activity
def in_thread() -> list[Any]:
    return seen()


@activity
async def replaced() -> list[Any]:
    raise AssertionError("its stand-in is called")


@workflow
async def kid() -> list[Any]:
    above = parent()
    assert above is not None
    above.signal("word", run_info().attributes)
    return [await on_loop(), await in_thread(), await replaced()]


@workflow
async def root() -> list[Any]:
    found = await child(kid, id="kid", attributes={"own": 1})
    return [await wait_signal("word"), *found]


async def test_activities_and_their_stand_ins_know_what_they_are_called_for() -> None:
    async with WorkflowEnvironment([root, kid, on_loop, in_thread, replaced]) as env:
        env.replace(replaced, seen)
        run = await env.client.start(root, id="r", attributes={"tenant": "t1"}, traceparent=TRACE)
        word, *told = await run.result()
    assert word == {"tenant": "t1", "own": 1}
    names = ("on_loop-1", "in_thread-1", "replaced-1")
    assert told == [["r/kid", name, 1, TRACE, TRACE.split("-")[1]] for name in names]
    assert not trace.get_current_span().get_span_context().is_valid, "the test's own context is left alone"


async def test_a_recorded_run_replays_with_the_labels_that_it_had(tmp_path: Path) -> None:
    @workflow
    async def labelled() -> list[Any]:
        info = run_info()
        return [info.attributes, info.namespace, info.traceparent, await on_loop()]

    path = tmp_path / "labelled.json"
    async with WorkflowEnvironment([labelled, on_loop]) as env:
        run = await env.client.start(labelled, namespace="blue", attributes={"a": [1]}, traceparent=TRACE)
        await run.result()
        saved = await save_history(run, path)
    assert load_history(path) == saved
    assert_replays(labelled, path)
    with pytest.raises(AssertionError, match="the result"):
        assert_replays(labelled, dataclasses.replace(saved, attributes=None))


async def test_a_history_saved_before_there_were_labels_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.json"

    @workflow
    async def plain() -> int:
        return 3

    async with WorkflowEnvironment([plain]) as env:
        run = await env.start(plain)
        await run.result()
        await save_history(run, path)
    old = json.loads(path.read_text())
    for name in ("namespace", "attributes", "traceparent"):
        del old[name]
    path.write_text(json.dumps(old))
    assert_replays(plain, path)
