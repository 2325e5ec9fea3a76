"""Side effects and validators touch nothing of the workflow's: a replay does not repeat them."""

import asyncio
from collections.abc import Callable

import pytest
from tests.core.harness import Run

from continuum import SideEffectFailed, side_effect, wait_signal, workflow

WAYS: dict[str, Callable[[asyncio.Event, "asyncio.Task[None]"], object]] = {
    "a callback": lambda event, task: asyncio.get_running_loop().call_soon(event.set),
    "a timer": lambda event, task: asyncio.get_running_loop().call_later(1, event.set),
    "an event": lambda event, task: event.set(),
    "a cancellation": lambda event, task: task.cancel(),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_side_effect_moves_no_task_by_bare_asyncio(way: str) -> None:
    @workflow
    async def flow() -> str:
        event = asyncio.Event()

        async def waits() -> None:
            await event.wait()

        task = asyncio.create_task(waits())
        await wait_signal("go")
        try:
            side_effect(lambda: WAYS[way](event, task) and None)
        except SideEffectFailed as error:
            await wait_signal("end")
            return str(error)
        return "it was let through"

    run = Run(flow)
    run.signal("go")
    assert [type(command).__name__ for command in run.commands] == ["RecordSideEffect"]
    run.restart()
    run.signal("end")
    assert "which a replay does not repeat" in run.result
