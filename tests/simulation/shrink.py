"""Make a failing scenario small: leave out and simplify as long as it still fails.

The rule: what is tried is ``whole``, so a smaller scenario fails for a reason of the engine's and not because
nobody sends a signal any more. The order of tries depends on the scenario alone, and there is a limit on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tests.simulation.confluence import APART, parts
from tests.simulation.flows import Node
from tests.simulation.programs import Scenario, WorkerPlan, whole, write

T = TypeVar("T")
MAX_TRIES = 300
FEW = 5


def shrink(found: Scenario, fails: Callable[[Scenario], bool], *, tries: int = MAX_TRIES) -> Scenario:
    """Return a smallest scenario found that still ``fails``, as ``found`` does, after ``tries`` calls at most."""
    tried = {write(found)}
    again = True
    while again:
        again = False
        for way in (_faults, _roots, _workers, _trees, _actions, _settings, _starts, _earlier):
            smaller: Scenario | None = found
            while smaller is not None:
                smaller = None
                for candidate in way(found):
                    text = write(candidate)
                    if text in tried or not whole(candidate):
                        continue
                    if len(tried) > tries:
                        return found
                    tried.add(text)
                    if fails(candidate):
                        found = smaller = candidate
                        again = True
                        break
    return found


def without(items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """Yield ``items`` without a part: first without all, then halves, and so on to each one."""
    size = len(items)
    while size:
        for start in range(0, len(items), size):
            yield (*items[:start], *items[start + size :])
        size //= 2


def _faults(found: Scenario) -> Iterator[Scenario]:
    return (replace(found, faults=left) for left in without(found.faults))


def _roots(found: Scenario) -> Iterator[Scenario]:
    for roots in without(found.roots):
        ids = {root.run_id for root in roots}
        actions = tuple(action for action in found.actions if action.run_id.split("/")[0] in ids)
        yield replace(found, roots=roots, actions=actions)


def _workers(found: Scenario) -> Iterator[Scenario]:
    return (replace(found, workers=workers) for workers in without(found.workers))


def _actions(found: Scenario) -> Iterator[Scenario]:
    return (replace(found, actions=actions) for actions in without(found.actions))


def _settings(found: Scenario) -> Iterator[Scenario]:
    for index, worker in enumerate(found.workers):
        for left in without(tuple(worker.settings.items())):
            yield replace(found, workers=_put(found.workers, index, WorkerPlan(dict(left))))


def _starts(found: Scenario) -> Iterator[Scenario]:
    for index, root in enumerate(found.roots):
        if root.start_at_s:
            yield replace(found, roots=_put(found.roots, index, replace(root, start_at_s=0.0)))


def _earlier(found: Scenario) -> Iterator[Scenario]:
    """Yield scenarios in which a fault strikes sooner: less happens before it, so less has to be read."""
    for index, fault in enumerate(found.faults if len(found.faults) <= FEW else ()):
        for operation in sorted({0, fault.operation // 2, fault.operation - 1} & set(range(fault.operation))):
            yield replace(found, faults=_put(found.faults, index, replace(fault, operation=operation)))


def _trees(found: Scenario) -> Iterator[Scenario]:
    for index, root in enumerate(found.roots):
        for tree in _inner_runs(root.tree):
            yield replace(found, roots=_put(found.roots, index, replace(root, tree=tree)))
        for tree in _smaller(root.tree):
            yield replace(found, roots=_put(found.roots, index, replace(root, tree=tree)))


def _inner_runs(node: Node) -> Iterator[Node]:
    """Yield the trees of other runs and generations: each may fail by itself."""
    for inner in parts(node):
        if inner[0] == "main":
            yield inner
        yield from _inner_runs(inner)


def _smaller(node: Node) -> Iterator[Node]:
    """Yield nodes that are one step simpler, the boldest first."""
    if node[0] not in {*APART, "main", "again"}:
        yield from parts(node)
    for position, part in enumerate(node):
        if _many(part):
            for left in without(part):
                yield _with(node, position, list(left))
    if node[0] == "main" and node[1] and node[1][-1][0] == "again":
        yield node[1][-1][1]
    if node[0] == "work" and len(node[2]) > 1:
        for plain in without([name for name in node[2] if name != "value"]):
            yield ["work", node[1], {name: node[2][name] for name in ("value", *plain)}]
    if node[0] == "sleep" and node[1]:
        yield ["sleep", 0]
    if node[0] == "mapping":
        yield from (["mapping", {**node[1], name: None}, node[2]] for name in ("enough", "limit", "retry"))
    for position, part in enumerate(node):
        yield from (_with(node, position, changed) for changed in _changed(part))


def _changed(part: Any) -> Iterator[Any]:
    """Yield what one step inside can make of a part of a node."""
    if _many(part):
        for index, inner in enumerate(part):
            for changed in _kid(inner) if isinstance(inner, dict) else _smaller(inner):
                yield [*part[:index], changed, *part[index + 1 :]]
    elif isinstance(part, list) and part and isinstance(part[0], str):
        yield from _smaller(part)


def _kid(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for when in ("now", "then"):
        for left in without(one[when]):
            yield {**one, when: list(left)}
    for tree in _smaller(one["tree"]):
        yield {**one, "tree": tree}
    for name in ("id", "cancel", "limit", "retry"):
        if one.get(name) is not None:
            yield {**one, name: None}
    if one.get("close") == "cancel":
        yield {**one, "close": "abandon"}


def _many(part: Any) -> bool:
    """Say whether a part of a node is a list of nodes or of children."""
    return isinstance(part, list) and bool(part) and isinstance(part[0], (list, dict))


def _with(node: Node, position: int, part: Any) -> Node:
    return [*node[:position], part, *node[position + 1 :]]


def _put(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    return (*items[:index], item, *items[index + 1 :])
