"""Which trees have a result that depends on neither timing nor faults, and which of them need a message.

The rule: a tree is confluent if each of its nodes is, whatever the others do. What tasks of one run share is left
out (refs, counters, names of signals), so are clocks and races, but for those between timers of one turn.
"""

from __future__ import annotations

from itertools import dropwhile
from typing import Any

from tests.simulation.flows import Node

LONG_S = 3600.0
"""How long a child waits that is cancelled: nothing else takes so long, whatever goes wrong."""

PLAIN = {"work", "sleep", "draw", "side", "patch", "raise", "late", "collect", "read", "expire", "pause"}
PLAIN |= {"main", "seq", "all", "together", "crew", "waitall", "count", "catch", "again"}
PLAIN |= {"show", "answer", "flop"}
PLAIN |= {"run", "fan", "carry", "carried", "twice", "rejoin", "mapping"}
PATIENT = frozenset({"all", "children", "completed", "outcome"})
"""Ways to wait for all children, however they end."""
STRICT = frozenset({"gather", "failfast"})
"""Ways to wait that raise what goes wrong first: at most one child may fail."""
APART = frozenset({"run", "fan", "carry", "twice", "rejoin", "mapping"})
"""What is inside of these belongs to other runs."""
STEADY = frozenset({"main", "again", "seq", "all", "waitall", "catch"})
"""What never cancels what is inside, and never lets its run end before that has."""


def confluent(node: Node) -> bool:
    """Say whether ``node`` has one result."""
    kind, *args = node
    if kind not in PLAIN or not all(confluent(inner) for inner in parts(node)):
        return False
    match kind:
        case "work":
            return bool(args[1].get("fails", 0) < args[1].get("tries", 1))
        case "late":
            return bool(args[0] < args[1])
        case "together" | "crew":
            return sum(map(may_fail, args[0])) <= 1
        case "count":
            return bool(args[0] == len(args[1]))
        case "fan":
            how, _, kids = args
            few = how not in STRICT or sum(map(kid_may_fail, kids)) <= 1
            return few and how in PATIENT | STRICT | {"each", "abandon"} and all(map(kid_confluent, kids))
        case "mapping":
            return args[0]["limit"] is None and not may_fail(node)
        case "carry":
            return all(one["limit"] is None for one in args[0])
        case "carried":
            return args[0] in PATIENT
        case _:
            return True


def kid_confluent(one: dict[str, Any]) -> bool:
    """Say whether a child ends in one way; one that is cancelled must be waiting by then."""
    return (one["cancel"] is None and one["limit"] is None) or lasts(one["tree"])


def kid_may_fail(one: dict[str, Any]) -> bool:
    return one["cancel"] is not None or one["limit"] is not None or may_fail(one["tree"], tries(one))


def tries(one: dict[str, Any]) -> int:
    """Return how many attempts a child has, or each of a map."""
    again = one.get("retry")
    return again["tries"] if again else 1


def may_fail(node: Node, attempts: int = 1) -> bool:
    """Say whether ``node`` can raise, and whether it does so in the last of the attempts of its run."""
    kind, *args = node
    match kind:
        case "raise":
            return True
        case "flop":
            return bool(args[0] >= attempts)
        case "main":
            return any(may_fail(inner, attempts) for inner in args[0])
        case "work":
            spec = args[1]
            return bool(spec.get("ever") or spec.get("fails", 0) >= spec.get("tries", 1))
        case "seq" | "together" | "crew" | "run":
            return any(may_fail(inner) for inner in parts(node))
        case "fan":
            return (args[0] in STRICT or args[0] == "each") and any(map(kid_may_fail, args[2]))
        case "mapping":
            how, trees = args
            lossy = how["limit"] is not None or any(may_fail(tree, tries(how)) for tree in trees)
            return how["enough"] is not None or (how["tolerate"] is not None and lossy)
        case _:
            return kind not in PLAIN


def lasts(node: Node) -> bool:
    """Say whether ``node`` waits for ``LONG_S`` before it ends in any way."""
    kind, *args = node
    match kind:
        case "expire":
            return bool(args[1] >= LONG_S)
        case "main" | "seq":
            return next((lasts(inner) for inner in args[0] if lasts(inner) or not brief(inner)), False)
        case "all" | "waitall":
            return any(map(lasts, args[0]))
        case "run":
            return lasts(args[1])
        case "fan":
            left = [one for one in args[2] if one["cancel"] is None and one["limit"] is None]
            return args[0] in PATIENT and any(lasts(one["tree"]) for one in left)
        case _:
            return False


def brief(node: Node) -> bool:
    """Say whether ``node`` surely lets go on what comes behind it."""
    return not may_fail(node) and node[0] != "again"


def parts(node: Node) -> list[Node]:
    """Return the nodes directly inside ``node``, those of children included."""
    found: list[Node] = []
    for part in node[1:]:
        for inner in part if isinstance(part, list) and part and not isinstance(part[0], str) else [part]:
            if isinstance(inner, dict) and "tree" in inner:
                found.append(inner["tree"])
            elif isinstance(inner, list) and inner and isinstance(inner[0], str):
                found.append(inner)
    return found


def demanded(node: Node) -> dict[str, int]:
    """Return the signals and updates without which this run waits for ever, by name: how many it may take."""
    kind, *args = node
    if kind in ("collect", "read", "answer"):
        return {args[0]: args[1]}
    total: dict[str, int] = {}
    for inner in () if kind in APART else parts(node):
        for name, count in demanded(inner).items():
            total[name] = total.get(name, 0) + count
    return total


def flops_first(node: Node) -> bool:
    """Say whether a run fails as often as it does before it has read anything: what it is sent is handed on."""
    first, *others = [*dropwhile(lambda inner: inner[0] == "sleep", node[1]), ["pause"]]
    return first[0] == "flop" and all(brief(other) and other[0] != "flop" for other in others)


def provided(node: Node, *, steady: bool = True) -> bool:
    """Say whether all children in ``node`` are sent what they demand, so that they end.

    A node that is not ``steady`` may be cancelled, or left by a run that fails, before it has sent everything.
    """
    kind, *args = node
    if kind in ("run", "twice", "rejoin", "mapping") and any(map(demanded, parts(node))):
        return False
    for one in args[-1] if kind in ("fan", "carry") else ():
        sent = [name for name, _ in [*one["now"], *(one["then"] if steady else [])]]
        if kind == "carry" and sent:
            return False
        if one.get("retry") and demanded(one["tree"]) and not flops_first(one["tree"]):
            return False  # what an attempt has read the next one has not
        if any(sent.count(name) < count for name, count in demanded(one["tree"]).items()):
            return False
    keeps = kind in STEADY or (kind == "count" and args[0] == len(args[1]))
    return all(provided(inner, steady=kind in APART or (steady and keeps)) for inner in parts(node))
