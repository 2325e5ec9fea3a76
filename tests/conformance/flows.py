"""Small workflows that several conformance tests run."""

from __future__ import annotations

from continuum import activity, child, wait_signal, workflow


@activity
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def double(n: int) -> int:
    return await add(n, n)


@workflow
async def waiter(name: str) -> str:
    """Wait for the signal "go"."""
    return f"{name} {await wait_signal('go', str)}"


@workflow
async def fails(text: str) -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError(text) from error


@workflow
async def idle() -> None:
    await wait_signal("never")


@workflow
async def parent_of_waiter(name: str) -> str:
    return f"parent of {await child(waiter, name, id='kid')}"


@workflow
async def counts(n: int) -> int:
    total = 0
    for number in range(n):
        total = await add(total, number)
    return total
