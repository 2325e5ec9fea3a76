"""The flows that are killed at every boundary, a shape each: fan-out, cascade, chain, retry, closing."""

from __future__ import annotations

from continuum import ChildCancelled, Retry, await_child, await_children, start_child, wait_signal, workflow
from tests.crash import children
from tests.crash.children import Link
from tests.processes.flows import step


@workflow
async def fan_out(run: str) -> int:
    """Fan out over two levels, and in again."""
    await step(f"{run}#0")
    refs = [start_child(children.middle, f"{run}/m{number}", id=f"m{number}") for number in range(2)]
    total = sum(await await_children(refs))
    await step(f"{run}#1")
    return total


@workflow
async def cascade(run: str) -> None:
    """Be cancelled from outside while a tree of three levels runs."""
    await step(f"{run}#0")
    await await_children([start_child(children.tree, f"{run}/t{number}", id=f"t{number}") for number in range(2)])


@workflow
async def cancelling(run: str) -> str:
    """Cancel one of two trees, be told of it, and cancel the other."""
    refs = [start_child(children.tree, f"{run}/t{number}", id=f"t{number}") for number in range(2)]
    await wait_signal("now")
    for ref in refs:
        ref.cancel("enough")
        try:
            await await_child(ref)
        except ChildCancelled:
            await step(f"{run}#{ref.id.rpartition('/')[2]}")
    return "both are cancelled"


@workflow
async def chained(run: str) -> list[int]:
    """Have children that continue as new, and wait for their last generations."""
    links = [Link(f"{run}/c0"), Link(f"{run}/c1", most=2)]
    refs = [start_child(children.chain, link, id=f"c{number}") for number, link in enumerate(links)]
    found = await await_children(refs)
    await step(f"{run}#0")
    return found


@workflow
async def activity_retry(run: str) -> list[str]:
    """Have children with an activity that is tried again."""
    refs = [start_child(children.trier, f"{run}/c{number}", id=f"c{number}") for number in range(2)]
    return await await_children(refs)


@workflow
async def child_retry(run: str) -> int:
    """Have a child that is tried again, and has one that is."""
    retry = Retry(max_attempts=2, initial=0)
    made = start_child(children.two_levels_of_beginners, f"{run}/c", id="c", retry=retry)
    found = await await_child(made)
    await step(f"{run}#0")
    return found


@workflow
async def closing(run: str) -> str:
    """End before the children, of which a tree closes with it and another child goes on."""
    start_child(children.tree, f"{run}/t", id="t", on_parent_close="cancel")
    start_child(children.late, f"{run}/l", id="l", on_parent_close="abandon")
    await wait_signal("now")
    await step(f"{run}#0")
    return "closed"
