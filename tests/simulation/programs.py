"""Scenarios: what is run, what is done to it from outside, by which workers, and what goes wrong.

One seed gives one scenario, as a value that becomes JSON and back. Times are seconds of the simulated clock. The
tree of a confluent root has one result, whatever happens around it; see ``confluence``.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Literal

from tests.simulation.confluence import confluent, demanded, provided
from tests.simulation.flows import DEFINITIONS, UPDATES, Node, Plan, simulated
from tests.simulation.generate import Grower
from tests.simulation.ledger import Calls, Ledger, install

__all__ = [
    "DEFINITIONS",
    "Action",
    "Calls",
    "Fault",
    "Ledger",
    "Root",
    "Scenario",
    "WorkerPlan",
    "as_python",
    "install",
    "read",
    "scenario",
    "simulated",
    "whole",
    "write",
]


@dataclass(frozen=True, slots=True)
class Root:
    """A root run of ``simulated`` on ``plan()``. A ``confluent`` one's result, or failure, is always the same."""

    run_id: str
    tree: Node
    confluent: bool
    start_at_s: float = 0.0

    def plan(self, pace: float = 1.0) -> Plan:
        """Return the run's input. ``pace`` stretches all times in it."""
        return Plan(self.tree, self.confluent, pace)


@dataclass(frozen=True, slots=True)
class Action:
    """Something from outside, on a root or a child; that may not be there yet, or no more.

    ``start`` starts a root again as it was. A ``signal`` is sent until it is known to be durable, an ``update``
    asked for until it is known what came of it, under their ``delivery_id``. To ``stop`` is to be cancelled with a
    grace of ``payload`` seconds. A root is sent nothing before it is started.
    """

    at_s: float
    kind: Literal["signal", "update", "cancel", "stop", "describe", "start"]
    run_id: str
    name: str = ""
    payload: Any = None
    delivery_id: str = ""


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """A worker, by what its settings have instead of the defaults."""

    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with the ``operation``-th thing that can; what ``amount`` means, ``kind`` says."""

    operation: int
    kind: str
    amount: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that a simulation depends on."""

    seed: int
    roots: tuple[Root, ...]
    actions: tuple[Action, ...] = ()
    workers: tuple[WorkerPlan, ...] = (WorkerPlan({}),)
    faults: tuple[Fault, ...] = ()


def scenario(seed: int) -> Scenario:
    """Return the scenario of ``seed``, without faults."""
    random = Random(f"scenario {seed}")
    count = random.choices([1, 2, 3, 4], [30, 35, 20, 15])[0]
    crowded = random.randrange(count) if random.random() < 0.08 else None
    roots: list[Root] = []
    actions: list[Action] = []
    for number in range(count):
        calm = random.random() < 0.5
        runs = random.choices([0, 1, 3, 6, 10], [3, 6, 4, 2, 0.5])[0]
        grower = Grower(random, f"s{seed}-{number}", calm=calm, runs=runs, crowd=number == crowded)
        start = round(random.uniform(0, 10), 3) if number else 0.0
        root = Root(f"s{seed}-{number}", grower.root(), calm, start)
        roots.append(root)
        actions += _needed(random, root, grower) + _unasked(random, root, grower) + _stops(root, grower)
    actions.sort(key=lambda action: action.at_s)
    workers = tuple(_worker(random) for _ in range(random.choices([1, 2, 3, 4], [15, 40, 30, 15])[0]))
    return Scenario(seed, tuple(roots), tuple(actions), workers)


def _needed(random: Random, root: Root, grower: Grower) -> list[Action]:
    """Return the signals and updates that the root waits for; some updates are asked for twice."""
    actions = [
        Action(_later(random, root), "signal", root.run_id, name, payload, f"needed-{number}")
        for number, (name, payload) in enumerate(grower.wanted)
    ]
    for number, (name, payload) in enumerate(grower.asked):
        times = random.choice([1, 1, 2])
        asked = [_later(random, root) for _ in range(times)]
        actions += [Action(at_s, "update", root.run_id, name, payload, f"asked-{number}") for at_s in asked]
    return actions


def _unasked(random: Random, root: Root, grower: Grower) -> list[Action]:
    """Return what changes no confluent result, and for others also what does."""
    actions: list[Action] = []
    kinds = ["describe", "noise", "start", "refused"]
    kinds += ["signal", "signal", "cancel", "cancel below"] * (not root.confluent)
    for number in range(random.choice([0, 0, 1, 2, 3])):
        kind, at_s = random.choice(kinds), _later(random, root)
        target = random.choice([root.run_id, *grower.known])
        match kind:
            case "noise":
                actions.append(Action(at_s, "signal", target, "noise", number, f"extra-{number}"))
            case "refused":
                name = random.choice(UPDATES).name
                actions.append(Action(at_s, "update", target, name, -1, f"extra-{number}"))
            case "signal":
                actions.append(Action(at_s, "signal", target, random.choice("ab"), number, f"extra-{number}"))
            case "cancel":
                actions.append(Action(at_s, "cancel", root.run_id, payload="by hand"))
            case "cancel below":
                actions.append(Action(at_s, "cancel", target, payload="by hand"))
            case "start":
                actions.append(Action(at_s, "start", root.run_id))
            case _:
                actions.append(Action(at_s, "describe", target))
    return actions


def _stops(root: Root, grower: Grower) -> list[Action]:
    """Return requests to stop, drawn from a source of their own."""
    random = Random(f"stops of {root.run_id}")
    if root.confluent or random.random() < 0.6:
        return []
    target = random.choice([root.run_id, *grower.known])
    times = random.choice([1, 1, 2])
    graces = [random.choice([0.5, 5, 60]) for _ in range(times)]
    return [Action(_later(random, root), "stop", target, payload=grace) for grace in graces]


def _later(random: Random, root: Root) -> float:
    return round(root.start_at_s + random.choice([0.01, 1, 5, 25]) * (0.05 + random.random()), 3)


def _worker(random: Random) -> WorkerPlan:
    lease = random.choice([3, 5, 10])
    settings: dict[str, Any] = {
        "cache": random.choice([2, 3, 5, 10, 50]),
        "passivate_after": random.choice([0.1, 0.3, 1, 5]),
        "claim_batch": random.choice([1, 2, 5, 20, 100]),
        "max_activities": random.choice([1, 3, 1000]),
        "poll": random.choice([0.5, 1, 2]),
        "lease": lease,
        "heartbeat": round(lease / random.choice([3, 5]), 3),
    }
    return WorkerPlan(settings)


def whole(found: Scenario) -> bool:
    """Say whether every run in it ends, and its confluent roots are: so a part of a scenario is one too."""
    starts = {root.run_id: root.start_at_s for root in found.roots}
    for root in found.roots:
        sent = _sent(found, root)
        if any(sent.count(name) < count for name, count in demanded(root.tree).items()):
            return False
        if not provided(root.tree) or (root.confluent and not confluent(root.tree)):
            return False
    late = all(starts.get(action.run_id.split("/")[0], 1e9) <= action.at_s for action in found.actions)
    return late and bool(found.roots) and bool(found.workers)


def _sent(found: Scenario, root: Root) -> list[str]:
    """Return the names of all that is sent to a root, once for each id."""
    names: dict[object, str] = {}
    for number, action in enumerate(found.actions):
        told = action.kind == "signal" or (action.kind == "update" and action.payload >= 0)
        if told and action.run_id == root.run_id:
            names[action.delivery_id or number] = action.name
    return list(names.values())


def write(found: Scenario) -> str:
    """Return a scenario as JSON text, a line for each root, action, worker and fault."""
    parts = []
    for name, value in asdict(found).items():
        lines = ",\n  ".join(map(json.dumps, value)) if isinstance(value, (list, tuple)) else None
        parts.append(
            f' "{name}": ' + (json.dumps(value) if lines is None else f"[\n  {lines}]" if lines else "[]")
        )
    return "{\n" + ",\n".join(parts) + "\n}"


def read(text: str) -> Scenario:
    """Return the scenario that ``write`` made the text of."""
    plain = json.loads(text)
    return Scenario(
        plain["seed"],
        tuple(Root(**root) for root in plain["roots"]),
        tuple(Action(**action) for action in plain["actions"]),
        tuple(WorkerPlan(**worker) for worker in plain["workers"]),
        tuple(Fault(**fault) for fault in plain["faults"]),
    )


def as_python(found: Scenario, name: str) -> str:
    """Return lines of a test module that give ``found`` the name ``name``."""
    text = textwrap.indent(write(found), "    ").replace("\\", "\\\\")
    return f'{name} = read(\n    """\n{text}\n    """\n)\n'
