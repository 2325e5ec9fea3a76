"""The workflow that runs a generated program, writing down all it sees in the order it sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from continuum import (
    ChildCancelled,
    ChildFailed,
    ChildRef,
    MapFailed,
    activity,
    as_completed,
    await_child,
    await_children,
    child,
    continue_as_new,
    map_children,
    now,
    patched,
    random,
    side_effect,
    start_child,
    uuid4,
    wait_condition,
    wait_signal,
    workflow,
)


@activity
async def act(n: int) -> int:
    return n


@workflow
async def kid(n: int) -> int:
    return n


@workflow
async def program(tree: Any) -> list[str]:
    run = Interpreter()
    try:
        await run.node(tree)
    except (ValueError, TimeoutError, ChildFailed, ChildCancelled, ExceptionGroup) as error:
        run.note("ended", error)
        if run.total % 3 == 0:
            raise
    return run.trace


class Interpreter:
    """One run of a program."""

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.total = 0
        self.refs: list[ChildRef[int]] = []
        self.names = 0

    def note(self, what: str, value: object = "") -> None:
        if isinstance(value, BaseException):
            value = type(value).__name__
        if len(self.trace) < 400:
            self.trace.append(f"{what} {value}".rstrip())

    async def node(self, node: list[Any]) -> None:
        kind, *args = node
        try:
            await getattr(self, f"do_{kind}")(*args)
        except asyncio.CancelledError:
            self.note(f"{kind} cancelled")
            raise

    def tasks(self, nodes: list[Any]) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.node(node)) for node in nodes]

    async def settle(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            self.note("settled", result)

    # Leaves.

    async def do_act(self, n: int) -> None:
        try:
            self.note("act", await act(n))
        except Exception as error:
            self.note("act failed", error)
            if n == 3:
                raise ValueError("act") from error

    async def do_sleep(self, n: int) -> None:
        await asyncio.sleep(n)
        self.note("slept", n)

    async def do_pause(self) -> None:
        await asyncio.sleep(0)

    async def do_child(self, n: int) -> None:
        self.note("child", await child(kid, n))

    async def do_start(self, n: int) -> None:
        self.refs.append(start_child(kid, n))

    async def do_named(self, n: int) -> None:
        self.names += 1
        self.refs.append(start_child(kid, n, id=f"n{self.names}"))

    async def do_cancel_ref(self) -> None:
        if self.refs:
            self.refs[-1].cancel()
            self.refs[-1].signal("note", self.total)

    async def do_refs(self, how: str) -> None:
        refs = self.refs[-3:]
        match how:
            case "gather":
                self.note("refs", await asyncio.gather(*refs, return_exceptions=True))
            case "all":
                self.note("refs", await await_children(refs))
            case "completed":
                async for ref in as_completed(refs):
                    self.note("ref", ref.id)
            case "wait" if refs:
                done, _ = await asyncio.wait(refs, return_when="FIRST_COMPLETED")  # type: ignore[type-var]
                self.note("refs", [ref.id for ref in done])
            case _:
                for ref in refs:
                    self.note("ref", await await_child(ref))

    async def do_map(self, n: int, how: str) -> None:
        """Map over some items, one or two at a time: all of them, the first that complete, or paged in."""
        options: dict[str, Any] = {"concurrency": 1 + n % 2, "tolerate_failures": n if how == "all" else n // 2}
        if how == "first":
            options |= {"min_successful": 1, "tolerate_failures": None, "rest": ("cancel", "abandon")[n % 2]}
        elif how == "counted":
            options["collect"] = False
        try:
            done = await map_children(kid, self.paged(n) if how == "paged" else iter(range(n)), **options)
        except MapFailed as error:
            self.note("map failed", error.__cause__ or "")
            done = error.result
        self.note("map", [done.results, done.completed, done.failed, [ref.id for ref in done.decided_by]])

    async def paged(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            if number % 2:
                await act(number)
            yield number

    async def do_signal(self, name: str) -> None:
        self.note("signal", await wait_signal(name, int))

    async def do_cond(self, n: int) -> None:
        try:
            await wait_condition(lambda: self.total >= n, timeout=3)
        except TimeoutError as error:
            self.note("cond", error)

    async def do_bump(self) -> None:
        self.total += 1

    async def do_side(self, n: int) -> None:
        self.note("side", side_effect(lambda: n * 2))

    async def do_patch(self, name: str) -> None:
        self.note("patch", patched(name))

    async def do_draw(self) -> None:
        self.note("draw", f"{random().randrange(1000)} {uuid4()}")

    async def do_now(self) -> None:
        self.note("now", now().isoformat())

    async def do_fail(self) -> None:
        raise ValueError("planned")

    async def do_again(self) -> None:
        continue_as_new(["seq", []])

    # Compounds.

    async def do_seq(self, nodes: list[Any]) -> None:
        for node in nodes:
            await self.node(node)

    async def do_gather(self, return_exceptions: bool, nodes: list[Any]) -> None:
        results = await asyncio.gather(*(self.node(node) for node in nodes), return_exceptions=return_exceptions)
        self.note("gathered", [type(result).__name__ for result in results])

    async def do_group(self, nodes: list[Any]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for node in nodes[1:]:
                    group.create_task(self.node(node))
                await self.node(nodes[0])
        except* ValueError as errors:
            self.note("group", len(errors.exceptions))
            await self.do_act(1)

    async def do_wait(self, when: str, nodes: list[Any]) -> None:
        tasks = self.tasks(nodes)
        done, pending = await asyncio.wait(tasks, return_when=when, timeout=4)
        self.note("waited", [task.get_name() for task in done])
        for task in pending:
            task.cancel()
        self.note("pending", [task.get_name() for task in pending])
        await self.settle(tasks)

    async def do_race(self, nodes: list[Any]) -> None:
        tasks = self.tasks(nodes)
        try:
            await asyncio.wait(set(tasks), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in {*tasks}:
                task.cancel()
        await self.settle(tasks)

    async def do_shields(self, nodes: list[Any]) -> None:
        """Futures in a set: what ``shield`` and ``gather`` return must hash alike in every process."""
        tasks = self.tasks(nodes)
        futures = [asyncio.shield(task) for task in tasks]
        groups = {asyncio.gather(future, asyncio.sleep(1), return_exceptions=True) for future in futures}
        for number, group in enumerate(groups):
            group.add_done_callback(lambda _, number=number: self.note("group of", number))
        done, pending = await asyncio.wait(set(futures) | groups, return_when=asyncio.FIRST_COMPLETED)
        self.note("shields", [futures.index(f) if f in futures else -1 for f in done])
        for future in pending:
            future.cancel()
        self.note("shields left", [futures.index(f) if f in futures else -1 for f in pending])
        await asyncio.gather(*pending, return_exceptions=True)
        await self.settle(tasks)

    async def do_wait_for(self, seconds: int, node: list[Any]) -> None:
        try:
            await asyncio.wait_for(self.node(node), seconds)
        except TimeoutError as error:
            self.note("wait_for", error)

    async def do_timeout(self, seconds: int, node: list[Any]) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.node(node)
        except TimeoutError as error:
            self.note("timeout", error)
            await self.do_pause()

    async def do_shield(self, node: list[Any]) -> None:
        inner = asyncio.create_task(self.node(node))
        try:
            await asyncio.shield(inner)
        except asyncio.CancelledError:
            self.note("shield", inner.done())
            raise
        self.note("shield", "done")

    async def do_try(self, node: list[Any], handler: list[Any], final: list[Any], swallow: bool) -> None:
        try:
            await self.node(node)
        except asyncio.CancelledError:
            await self.node(handler)
            if not swallow:
                raise
        except Exception as error:
            self.note("caught", error)
            await self.node(handler)
        finally:
            await self.node(final)

    async def do_later(self, node: list[Any]) -> None:
        task = asyncio.create_task(self.node(node))
        await self.do_act(0)
        task.cancel("late")
        self.note("cancelling", task.cancelling())
        await self.settle([task])

    async def do_queue(self, size: int, consumers: int, node: list[Any]) -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def consume(number: int) -> None:
            while True:
                self.note(f"got {number}", await queue.get())
                try:
                    await self.node(node)
                finally:
                    queue.task_done()

        tasks = [asyncio.create_task(consume(number)) for number in range(consumers)]
        try:
            async with asyncio.timeout(9):
                for number in range(size):
                    await queue.put(number)
                await queue.join()
        except TimeoutError as error:
            self.note("queue", error)
        finally:
            await self.settle(tasks)

    async def do_sem(self, size: int, nodes: list[Any]) -> None:
        semaphore = asyncio.Semaphore(size)

        async def enter(node: list[Any]) -> None:
            async with semaphore:
                await self.node(node)

        await asyncio.gather(*(enter(node) for node in nodes), return_exceptions=True)

    async def do_lock(self, node: list[Any]) -> None:
        lock = asyncio.Lock()

        async def hold() -> None:
            async with lock:
                await self.node(node)

        tasks = [asyncio.create_task(hold()) for _ in range(2)]
        await self.do_pause()
        self.note("locked", lock.locked())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def do_event(self, setter: list[Any], nodes: list[Any]) -> None:
        event = asyncio.Event()

        async def waiter(node: list[Any]) -> None:
            await event.wait()
            await self.node(node)

        tasks = [asyncio.create_task(waiter(node)) for node in nodes]
        try:
            await self.node(setter)
        finally:
            event.set()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def do_baton(self, count: int, nodes: list[Any]) -> None:
        condition = asyncio.Condition()

        async def waiter(node: list[Any]) -> None:
            async with condition:
                await condition.wait()
                self.note("baton")
            await self.node(node)

        tasks = [asyncio.create_task(waiter(node)) for node in nodes]
        await self.do_act(2)
        async with condition:
            condition.notify(count)
        await self.do_pause()
        await self.settle(tasks)
