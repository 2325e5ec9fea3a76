"""What goes wrong in a scenario, drawn from its seed.

The rule: a fault names the operation it befalls by number, so that a schedule of faults is a plain list, which can
be shortened. ``KINDS`` says what each does, and what its amount means.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.simulation.programs import Fault, Scenario

KINDS = {
    "lost": "the operation happens and nobody hears of it",
    "lost, and late": "its sender hears at once that it is lost, and it happens so many seconds later",
    "unsent": "it does not happen, and its sender is told so",
    "late": "it happens so many seconds later",
    "slow": "its answer takes so many seconds",
    "kill": "its process dies: before it if the amount is below a half, else it happens all the same",
    "kill at point": "the process that passes the so-manieth point of the engine dies there",
    "freeze": "its process stands still for so many seconds",
    "outage": "for so many seconds there is no journal",
    "crash": "likewise, and claims that nothing durable followed are lost: they wait for no disk",
    "lock": "somebody's transaction holds a run's row for so many seconds",
    "clock": "the journal's clock is set by so many seconds",
    "deaf": "no hint of any kind ever arrives",
}
WEIGHTS = {
    "lost": 6,
    "lost, and late": 2,
    "unsent": 4,
    "late": 6,
    "slow": 4,
    "kill": 6,
    "kill at point": 6,
    "freeze": 4,
    "outage": 1.5,
    "crash": 1.5,
    "lock": 2,
    "clock": 0.5,
}
EXPECTED = 400  # operations of a scenario without faults, roughly


def with_faults(scenario: Scenario) -> Scenario:
    """Return ``scenario`` with the faults of its seed: none, a few, or many."""
    random = Random(f"faults {scenario.seed}")
    count = random.choice([0, 1, 2, 4, 8, 16, 32])
    lease = max(float(worker.settings.get("lease", 10)) for worker in scenario.workers)
    faults = [_fault(random, lease) for _ in range(count)]
    if random.random() < 0.15:
        faults.append(Fault(0, "deaf"))
    unique = {(fault.kind == "kill at point", fault.operation): fault for fault in faults}
    return replace(scenario, faults=tuple(sorted(unique.values(), key=_place)))


def _fault(random: Random, lease_s: float) -> Fault:
    kind = random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    number = int(random.random() ** 1.5 * EXPECTED) + 1
    match kind:
        case "late" | "slow" | "lost, and late":
            amount = random.choice([0.01, 0.3, 2.0, lease_s * 1.5]) * random.uniform(0.5, 1.5)
        case "freeze":
            amount = random.choice([0.2, 0.6, 1.2, 2.5]) * lease_s
        case "outage" | "crash":
            amount = random.choice([0.05, 0.4, 1.5, 3.0]) * lease_s
        case "lock":
            amount = random.choice([0.1, 1.0, 8.0])
        case "clock":
            amount = random.choice([-30.0, -1.0, 1.0, 30.0])
        case "kill":
            amount = float(random.random() < 0.5)
        case _:
            amount = 0.0
    return Fault(number, kind, round(amount, 3))


def _place(fault: Fault) -> tuple[int, str]:
    return fault.operation, fault.kind
