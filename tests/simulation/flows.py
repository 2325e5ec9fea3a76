"""The workflow that plays a generated tree, and its activity.

The rule: a calm tree's result is made of what its nodes return, in the order of the tree; only a wild one's has a
trace in the order of time. So a calm run gives the same result however its events are interleaved.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from continuum import (
    ActivityTimedOut,
    ChildRef,
    DuplicateChildId,
    RemoteError,
    Retry,
    Update,
    activity,
    as_completed,
    await_child,
    await_children,
    child,
    continue_as_new,
    now,
    on_update,
    patched,
    random,
    run_info,
    set_state,
    side_effect,
    start_child,
    uuid4,
    wait_condition,
    wait_signal,
    workflow,
)
from continuum._core.loop import running_workflow
from tests.programs.flows import Interpreter, kid
from tests.simulation import ledger
from tests.simulation.maps import play_map

Node = list[Any]
MOST_NOTES = 60
UPDATES = tuple(Update(f"ask{number}", int, int) for number in range(1, 4))
LAST = 1_000_000  # the number that a generation's last published state has


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run plays. ``pace`` stretches all times, ``refs`` and ``past`` come from the generation before."""

    tree: Node
    calm: bool = True
    pace: float = 1.0
    refs: list[ChildRef[Any]] = field(default_factory=list)
    past: list[Any] = field(default_factory=list)


@activity
async def work(run_id: str, key: str, label: str, spec: dict[str, Any]) -> Any:
    """Do as ``spec`` says: fail its first calls or always, take its time, or never end. ``key`` names one request.

    ``fails`` counts calls as the world sees them, those of workers that died included: so a worker that begins
    anew does not fail more often.
    """
    called = ledger.note(run_id, key, label)
    if spec.get("hangs"):
        await asyncio.Event().wait()
    if takes := spec.get("takes"):
        await asyncio.sleep(takes)
    if called <= spec.get("fails", 0):
        raise OSError("no luck")
    if spec.get("ever"):
        raise OSError(f"{label} fails for good")
    return spec["value"]


@workflow(version=1, updates=UPDATES, state=list[int])
async def simulated(plan: Plan) -> Any:
    player = Player(plan)
    value = await player.node(plan.tree)
    set_state([player.generation, LAST])
    return [*plan.past, value] if plan.calm else {"values": [*plan.past, value], "trace": player.trace}


MIXED_UP = "this is how another child ended"


def words(value: object) -> Any:
    """Return a value as it is, and an error as text that is the same wherever and whenever it was raised."""
    if isinstance(value, BaseExceptionGroup):
        return [type(value).__name__, *map(words, value.exceptions)]
    if isinstance(value, RemoteError):
        return f"{type(value).__name__} {value.failure}"
    return f"{type(value).__name__} {value}".rstrip() if isinstance(value, BaseException) else value


class Player(Interpreter):
    """One generation of one run. Compounds that race are ``Interpreter``'s; those here have an ordered result."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        loop = running_workflow()
        assert loop is not None
        self.run_id, self.generation = loop.machine.context.run_id, loop.machine.context.generation
        self.plan = plan
        self.values: list[Any] = []
        self.carried: list[ChildRef[Any]] = []
        self.times: Counter[str] = Counter()
        self.shown = 0

    def note(self, what: str, value: object = "") -> None:
        if not self.plan.calm and len(self.trace) < MOST_NOTES:
            super().note(what, value if isinstance(value, BaseException) else str(value)[:40])

    async def node(self, node: Node) -> Any:
        """Play one node and return its value."""
        kind, *args = node
        try:
            value = await getattr(self, f"do_{kind}")(*args)
        except asyncio.CancelledError:
            self.note(f"{kind} cancelled")
            raise
        self.note(kind, "" if value is None else value)
        return value

    def seconds(self, given: float) -> float:
        return given * self.plan.pace

    def below(self, tree: Node) -> Plan:
        return Plan(tree, self.plan.calm, self.plan.pace)

    async def paged(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            if number % 2:
                await asyncio.sleep(self.seconds(0.5))
            yield number

    # Leaves.

    async def do_work(self, label: str, spec: dict[str, Any]) -> Any:
        self.times[label] += 1
        key = f"g{self.generation}.{label}.{self.times[label]}"
        retry = Retry(max_attempts=spec.get("tries", 1), initial=self.seconds(spec.get("wait", 1)))
        bound = self.seconds(spec["bound"]) if "bound" in spec else None
        given = {**spec, "takes": self.seconds(spec["takes"])} if "takes" in spec else spec
        try:
            return await work.with_options(retry=retry, start_to_close=bound)(self.run_id, key, label, given)
        except ActivityTimedOut:  # whose text counts attempts, and these depend on which worker died when
            return "out of time"

    async def do_act(self, n: int) -> None:
        await self.do_work(f"act{n}", {"value": n})

    async def do_sleep(self, n: float) -> None:
        await asyncio.sleep(self.seconds(n))

    async def do_draw(self) -> Any:
        return [random().randrange(1000), str(uuid4())]

    async def do_now(self) -> Any:
        return now().isoformat()

    async def do_side(self, n: int) -> Any:
        return side_effect(lambda: n * 2)

    async def do_patch(self, name: str) -> Any:
        return patched(name)

    async def do_raise(self, text: str) -> None:
        raise ValueError(text)

    async def do_flop(self, times: int) -> int:
        """Fail in the first attempts of the run."""
        attempt = run_info().attempt
        if attempt <= times:
            raise ValueError(f"attempt {attempt}")
        return attempt

    async def do_late(self, seconds: float, longer: float) -> Any:
        """A timer that is due before another one of the same turn fires first."""
        try:
            async with asyncio.timeout(self.seconds(seconds)):
                await asyncio.sleep(self.seconds(longer))
        except TimeoutError:
            return "late"
        return "in time"

    async def do_show(self) -> None:
        self.shown += 1
        set_state([self.generation, self.shown])

    # Signals, updates and conditions.

    async def do_collect(self, name: str, count: int) -> Any:
        """Read ``count`` signals of several senders, so in no order."""
        return sorted([await wait_signal(name, int) for _ in range(count)])

    async def do_read(self, name: str, count: int) -> Any:
        """Read ``count`` signals of one sender, in its order."""
        return [await wait_signal(name, int) for _ in range(count)]

    async def do_listen(self, name: str, seconds: float) -> Any:
        try:
            return await wait_signal(name, int, timeout=self.seconds(seconds))
        except TimeoutError:
            return "nothing"

    async def do_expire(self, name: str, seconds: float) -> Any:
        """Wait for what nobody sends."""
        return await self.do_listen(name, seconds)

    async def do_signal(self, name: str) -> Any:
        return await self.do_listen(name, 20)

    async def do_answer(self, name: str, count: int, pause: float) -> Any:
        """Answer ``count`` updates, in no order, and all that come later. Those below zero are refused."""
        answered: list[int] = []

        def check(given: int) -> None:
            if given < 0:
                raise ValueError(f"{given} is below zero")

        async def answer(given: int) -> int:
            try:
                await asyncio.sleep(self.seconds(pause))
                value: int = await self.do_work(f"{name}.{given}", {"value": 2 * given})
                if given % 10 == 9:
                    raise ValueError(f"{given} is none of ours")
                return value
            finally:
                answered.append(given)

        on_update(next(update for update in UPDATES if update.name == name), answer, validator=check)
        await wait_condition(lambda: len(answered) >= count)
        return sorted(answered[:count])

    async def do_cond(self, n: int) -> None:
        try:
            await wait_condition(lambda: self.total >= n, timeout=self.seconds(3))
        except TimeoutError as error:
            self.note("cond", error)

    async def do_count(self, enough: int, nodes: list[Node]) -> Any:
        """Wait until ``enough`` of ``nodes`` have ended; the others are cancelled."""
        ended = 0

        async def one(node: Node) -> Any:
            nonlocal ended
            try:
                return await self.node(node)
            finally:
                ended += 1

        tasks = [asyncio.create_task(one(node)) for node in nodes]
        await wait_condition(lambda: ended >= enough)
        for task in tasks if enough < len(nodes) else []:
            task.cancel()
        return [words(value) for value in await asyncio.gather(*tasks, return_exceptions=True)]

    # Compounds with an ordered result.

    async def do_main(self, nodes: list[Node]) -> Any:
        for node in nodes:
            self.values.append(await self.node(node))
        return self.values

    async def do_seq(self, nodes: list[Node]) -> Any:
        return [await self.node(node) for node in nodes]

    async def do_all(self, nodes: list[Node]) -> Any:
        values = await asyncio.gather(*(self.node(node) for node in nodes), return_exceptions=True)
        return [words(value) for value in values]

    async def do_together(self, nodes: list[Node]) -> Any:
        return await asyncio.gather(*(self.node(node) for node in nodes))

    async def do_crew(self, nodes: list[Node]) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.node(node)) for node in nodes]
        return [task.result() for task in tasks]

    async def do_waitall(self, nodes: list[Node]) -> Any:
        tasks = self.tasks(nodes)
        await asyncio.wait(set(tasks))
        return [words(task.exception()) or task.result() for task in tasks]

    async def do_catch(self, node: Node) -> Any:
        try:
            return await self.node(node)
        except Exception as error:
            return ["caught", words(error)]

    # What races, at this run's pace.

    async def do_wait(self, when: str, nodes: list[Node]) -> None:
        tasks = self.tasks(nodes)
        done, pending = await asyncio.wait(tasks, return_when=when, timeout=self.seconds(4))
        self.note("waited", [tasks.index(task) for task in done])
        self.note("pending", [tasks.index(task) for task in pending])
        await self.settle(tasks)

    async def do_wait_for(self, seconds: float, node: Node) -> None:
        await super().do_wait_for(self.seconds(seconds), node)  # type: ignore[arg-type]  # any number will do

    async def do_timeout(self, seconds: float, node: Node) -> None:
        await super().do_timeout(self.seconds(seconds), node)  # type: ignore[arg-type]  # any number will do

    # Children.

    async def do_run(self, key: str | None, tree: Node) -> Any:
        return await child(simulated, self.below(tree), id=key)

    async def do_fan(self, how: str, pause: float | None, kids: list[dict[str, Any]]) -> Any:
        """Start ``kids`` in one commit, tell and cancel some at once and some after ``pause``, and wait."""
        refs = [self.start(one) for one in kids]
        for when in ("now", "then"):
            if when == "then" and pause is not None:
                await asyncio.sleep(self.seconds(pause))
            for ref, one in zip(refs, kids, strict=True):
                for name, payload in one[when]:
                    ref.signal(name, payload)
                if one["cancel"] == when:
                    ref.cancel("not needed")
        return await self.ends(how, refs)

    async def do_mapping(self, how: dict[str, Any], trees: list[Node]) -> Any:
        return await play_map(simulated, [self.below(tree) for tree in trees], how, self.seconds)

    async def do_carry(self, kids: list[dict[str, Any]]) -> None:
        """Start children that a later generation waits for."""
        self.carried += [self.start(one) for one in kids]

    async def do_carried(self, how: str) -> Any:
        return await self.ends(how, self.plan.refs)

    async def do_twice(self, key: str, tree: Node, other: Node) -> Any:
        """Name one child twice, and try to name another one like it."""
        first, second = (start_child(simulated, self.below(tree), id=key) for _ in range(2))
        try:
            start_child(simulated, self.below(other), id=key)
        except DuplicateChildId:
            return [first == second, "duplicate", type(await first.outcome()).__name__]
        return [first == second, "no duplicate"]

    async def do_rejoin(self, key: str, tree: Node, other: bool = False) -> Any:
        """Name a child that an earlier generation may have started; surely, if it is another one."""
        try:
            result = await child(simulated, self.below(tree), id=key)
        except DuplicateChildId:
            return "duplicate"
        except Exception as error:
            result = words(error)
        return MIXED_UP if other else result

    async def do_again(self, tree: Node) -> None:  # type: ignore[override]  # a node of its own here
        plan = self.plan
        refs = [*plan.refs, *self.carried]
        continue_as_new(Plan(tree, plan.calm, plan.pace, refs, [*plan.past, self.values]))

    def start(self, one: dict[str, Any]) -> ChildRef[Any]:
        limit = None if one["limit"] is None else self.seconds(one["limit"])
        again, close = one.get("retry"), one.get("close", "abandon")
        retry = again and Retry(max_attempts=again["tries"], initial=self.seconds(again["wait"]))
        options = {"timeout": limit, "retry": retry, "on_parent_close": close}
        return start_child(simulated, self.below(one["tree"]), id=one["id"], **options)

    async def ends(self, how: str, refs: list[ChildRef[Any]]) -> Any:
        match how:
            case "gather":
                return await asyncio.gather(*refs)
            case "all":
                return [words(end) for end in await asyncio.gather(*refs, return_exceptions=True)]
            case "children":
                return [words(end) for end in await await_children(refs, return_exceptions=True)]
            case "failfast":
                return await await_children(refs)
            case "completed":
                return sorted([ref.id async for ref in as_completed(refs)])
            case "order":
                return [ref.id async for ref in as_completed(refs)]
            case "outcome":
                return [type(await ref.outcome()).__name__ for ref in refs]
            case "first" if refs:
                done, _ = await asyncio.wait(refs, return_when="FIRST_COMPLETED")  # type: ignore[type-var]
                return [ref.id for ref in refs if ref in done]
            case "each":
                return [await await_child(ref) for ref in refs]
            case _:
                return None  # abandoned


DEFINITIONS: list[Any] = [simulated, work, kid]
