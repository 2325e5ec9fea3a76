"""Random trees for one root and all that lies below it: calm ones, which are confluent, and wild ones.

The rule: every run ends. What waits for a signal without a timeout is sent it: a root by the scenario
(``wanted``), a child by the node that starts it. Nothing that can be cancelled half-way owes anybody a signal
(``steady``). Updates are asked of roots only, each node under a name of its own (``asked``).

What authors get next is a ``do_…`` in ``flows``, a weight here, and a case in ``confluence`` if it can race or
fail.
"""

from __future__ import annotations

from random import Random
from typing import Any, TypeVar

from tests.simulation.confluence import LONG_S, PATIENT, STRICT, brief, demanded, kid_may_fail, may_fail, tries
from tests.simulation.flows import UPDATES, Node
from tests.simulation.maps import drawn

T = TypeVar("T")
Signal = list[Any]
MAX_DEPTH = 3
MAX_NESTING = 3
CALM_LEAVES = {"work": 14, "sleep": 4, "draw": 1, "side": 2, "patch": 2, "expire": 2, "late": 2, "raise": 1}
CALM_LEAVES |= {"show": 3}
CALM_COMPOUNDS = {"seq": 3, "all": 3, "together": 2, "crew": 3, "waitall": 2, "count": 2, "catch": 3}
FAMILY = {"fan": 8, "run": 4, "twice": 2, "mapping": 5}
WILD_LEAVES = {
    "listen": 5,
    "signal": 2,
    "cond": 3,
    "bump": 3,
    "now": 2,
    "pause": 2,
    "refs": 4,
    "start": 4,
    "named": 2,
}
WILD_LEAVES |= {"child": 2, "cancel_ref": 2, "fail": 1, "rejoin": 1, "map": 3}
WILD_COMPOUNDS = {"wait": 3, "race": 4, "timeout": 4, "wait_for": 3, "try": 4, "later": 2, "group": 3, "enough": 2}
WILD_COMPOUNDS |= {"shield": 1, "sem": 2, "event": 1, "lock": 1, "baton": 1}
SLEEPS = {0: 2, 0.01: 3, 0.3: 4, 1: 5, 2.5: 4, 8: 3, 20: 1, 60: 0.5, 600: 0.04}


class Grower:
    """Grows the trees of one root. ``runs`` is how many children it may have, ``known`` the ids some get."""

    def __init__(self, random: Random, root_id: str, *, calm: bool, runs: int, crowd: bool) -> None:
        self.random = random
        self.calm = calm
        self.left = runs
        self.crowd = crowd
        self.known: list[str] = []
        self.wanted: list[Signal] = []
        self.asked: list[Signal] = []
        self._ends = Random(f"ends of {root_id}")  # a source of its own, so that all else stays as it was
        self._answering = [update.name for update in reversed(UPDATES)]  # names that no node has
        self._root_id = root_id
        self._count = 0

    def root(self) -> Node:
        """Return the tree of the root, with what it wants from outside in ``wanted``."""
        return self.run(0, self._root_id, self.wanted, fifo=False)

    def run(self, depth: int, run_id: str | None, wanted: list[Signal] | None, *, fifo: bool = True) -> Node:
        """Return the tree of a run that is sent what it adds to ``wanted``, if that is no None."""
        place = Place(depth, run_id, wanted, fifo)
        nodes = [self.node(place, 0) for _ in range(self.random.randint(1, 4 if depth else 6))]
        if depth == 0 and self.crowd:
            nodes.insert(self.random.randrange(len(nodes) + 1), self.many(place))
        if depth == 0 and self.left > 0 and not any(node[0] in FAMILY for node in nodes):
            nodes.append(self.family(place, 0))
        if self.random.random() < (0.25 if depth == 0 else 0.12):
            nodes = [self.safe(node) for node in nodes]
            nodes += self.next_generation(place)
        elif self.random.random() < 0.85:
            nodes = [self.safe(node) for node in nodes[:-1]] + nodes[-1:]
        return ["main", nodes]

    def next_generation(self, place: Place) -> list[Node]:
        """Return what ends a generation, with the whole next one in it."""
        before: list[Node] = []
        behind: list[Node] = []
        if place.depth < MAX_DEPTH and self.random.random() < 0.5:
            kids = [self.kid(place, told=False, steady=False) for _ in range(self.random.randint(1, 2))]
            before.append(["carry", kids])
            behind.append(["carried", self.random.choice(sorted(PATIENT))])
            if kids[0]["id"] is not None and self.random.random() < 0.6:
                behind.append(["rejoin", kids[0]["id"], kids[0]["tree"]])
            elif kids[0]["id"] is not None:  # a child like it under its key, known to have ended or not
                other = ["rejoin", kids[0]["id"], ["main", [self.work()]], True]
                behind = [*behind[self.random.randint(0, 1) :], other]
        nodes = [self.safe(self.node(place, 1)) for _ in range(self.random.randint(0, 2))]
        nodes[self.random.randrange(len(nodes) + 1) :] = behind
        if self.random.random() < 0.25:
            nodes += self.next_generation(place)
        return [*before, ["again", ["main", nodes]]]

    def node(self, place: Place, nesting: int) -> Node:
        dice = self.random.random()
        if self.left > 0 and place.depth < MAX_DEPTH and dice < 0.25:
            return self.family(place, nesting)
        if nesting >= MAX_NESTING or dice > 0.5 + 0.1 * nesting:
            return self.leaf(place)
        if not self.calm and self.random.random() < 0.6:
            return self.wild(place, nesting)
        kind = self.pick(CALM_COMPOUNDS)
        within = place.shaken() if kind in ("crew", "together") else place
        some = [self.node(within, nesting + 1) for _ in range(self.random.randint(2, 3))]
        match kind:
            case "crew" | "together":
                return [kind, self.at_most_one_fails(some)]
            case "count":
                return [kind, len(some), some]
            case "catch":
                return [kind, some[0]]
            case _:
                return [kind, some]

    def leaf(self, place: Place) -> Node:
        if place.wanted is not None and self.random.random() < 0.12:
            return self.collecting(place)
        if place.depth == 0 and place.wanted is not None and self._answering and self.random.random() < 0.1:
            return self.answering()
        if not self.calm and self.random.random() < 0.5:
            return self.wild_leaf(place)
        kind = self.pick(CALM_LEAVES)
        match kind:
            case "work":
                return self.work()
            case "sleep":
                return [kind, self.pick(SLEEPS)]
            case "late":
                return [kind, self.random.choice([0, 0.5, 2]), self.random.choice([3, 9])]
            case "expire":
                return [kind, "never", self.random.choice([0, 0.1, 2, 10])]
            case "side":
                return [kind, self.random.randint(0, 9)]
            case "patch":
                return [kind, self.random.choice("pq")]
            case "raise":
                return (
                    ["catch", [kind, self.label("planned ")]] if self.random.random() < 0.5 else [kind, "planned"]
                )
            case _:
                return [kind]

    def work(self) -> Node:
        spec: dict[str, Any] = {"value": self.random.randint(0, 99)}
        dice = self.random.random()
        if dice < 0.25:
            spec["takes"] = self.random.choice([0.01, 0.2, 1, 4, 15])
        elif dice < 0.4:
            spec["fails"] = self.random.randint(1, 2)
            spec["tries"] = spec["fails"] + self.random.randint(1, 2)
            spec["wait"] = self.random.choice([0.01, 1, 5])
        elif dice < 0.48:
            spec["ever"], spec["tries"] = True, self.random.randint(1, 3)
        elif dice < 0.52:
            spec["hangs"], spec["bound"] = True, self.random.choice([0.1, 3])
        elif dice < 0.56 and not self.calm:
            spec["fails"] = spec["tries"] = self.random.randint(1, 2)
        return ["work", self.label("w"), spec]

    def collecting(self, place: Place) -> Node:
        kind = "read" if place.fifo and self.random.random() < 0.5 else "collect"
        name, count = self.label("s"), self.random.randint(1, 3)
        assert place.wanted is not None
        place.wanted += [[name, self.random.randint(0, 99)] for _ in range(count)]
        return [kind, name, count]

    def answering(self) -> Node:
        name, count = self._answering.pop(), self.random.randint(1, 3)
        self.asked += [[name, self.random.randint(0, 99)] for _ in range(count)]
        return ["answer", name, count, self.random.choice([0, 0.3, 6])]

    # Children.

    def family(self, place: Place, nesting: int) -> Node:
        kind = self.pick(FAMILY)
        if kind == "run":
            key, run_id = self.key(place)
            self.left -= 1
            node = [kind, key, self.run(place.depth + 1, run_id, None)]
            return node if nesting or self.random.random() < 0.3 else self.safe(node)
        if kind == "twice":
            key, run_id = self.key(place, named=True)
            self.left -= 1
            return [kind, key, self.run(place.depth + 1, run_id, None), ["main", []]]
        if kind == "mapping":
            node = self.mapping(place)
            return node if self.random.random() < 0.3 else self.safe(node)
        kids = [self.kid(place, told=True) for _ in range(self.random.randint(1, 4))]
        pause = self.random.choice([None, 0, 0.5, 6])
        if place.steady is False:
            for one in kids:
                one["now"], one["then"] = [*one["now"], *one["then"]], []
                one["cancel"] = one["cancel"] and "now"
        return ["fan", self.how(kids), pause, kids]

    def how(self, kids: list[dict[str, Any]]) -> str:
        if not self.calm and self.random.random() < 0.4:
            return self.random.choice(["first", "order", *sorted(STRICT)])
        if any(one["limit"] is not None for one in kids):
            return self.random.choice(sorted(PATIENT))  # else the parent may end, and nobody ends its child
        ways = [*sorted(PATIENT), "each", "abandon"]
        if sum(map(kid_may_fail, kids)) <= 1:
            ways += [*sorted(STRICT)] * 2
        return self.random.choice(ways)

    def many(self, place: Place) -> Node:
        """Return a fan-out of up to 30 small children."""
        kids = []
        for _ in range(self.random.randint(10, 30)):
            nodes = [self.work()] if self.random.random() < 0.7 else []
            kids.append(_kid(None, ["main", [self.safe(node) for node in nodes]]))
        return ["fan", self.how(kids), None, kids]

    def mapping(self, place: Place) -> Node:
        """Return a map; one that is calm waits for all of its children, however they end."""
        how, count = drawn(self.random, self.label("m"), calm=self.calm), self.random.randint(1, 6)
        lasting = 0 if self.calm else self.random.randint(0, min(how["window"], count) - 1)
        self.left -= count
        trees: list[Node] = []
        for number in range(count):
            run_id = f"{place.run_id}/{how['label']}.{number}" if place.run_id and how["named"] else None
            self.known += [] if run_id is None else [run_id]
            depth = place.depth + 1
            trees.append(self.victim(depth, run_id) if number < lasting else self.run(depth, run_id, None))
        if how["retry"]:
            trees[-1][1].insert(0, ["flop", self.random.randint(1, 2)])
        if self.calm and not any(may_fail(tree, tries(how)) for tree in trees):
            how["tolerate"] = self.random.choice([None, 0])
        return ["mapping", how, trees]

    def kid(self, place: Place, *, told: bool, steady: bool = True) -> dict[str, Any]:
        """Return one child of a fan-out; some are there to be cancelled."""
        key, run_id = self.key(place)
        self.left -= 1
        if told and self.random.random() < 0.15:
            one = _kid(key, self.victim(place.depth + 1, run_id))
            if self.random.random() < 0.6 or not (steady and place.steady):
                one["cancel"] = self.random.choice(["now", "then"])
            else:
                one["limit"] = self.random.choice([0.05, 1, 5])
            one["close"] = self._ends.choice(["abandon", "cancel"])
            return one
        wanted: list[Signal] | None = [] if told else None
        one = _kid(key, self.run(place.depth + 1, run_id, wanted))
        if wanted:
            split = self.random.randint(0, len(wanted))
            one["now"], one["then"] = wanted[:split], wanted[split:]
        elif told and not self.calm:
            one["now"] = [[self.random.choice("ab"), n] for n in range(self.random.randint(0, 2))]
            one["cancel"] = self.random.choice([None] * 6 + ["now", "then"])
            one["limit"] = self.random.choice([None] * 8 + [0.5, 10])
        self.ending(one)
        return one

    def ending(self, one: dict[str, Any]) -> None:
        """Let a child close with its parent, and let some fail that are tried again."""
        one["close"] = self._ends.choice(["abandon", "cancel"])
        sure = self.calm and (one["cancel"] is not None or one["limit"] is not None)
        reads = bool(demanded(one["tree"]))
        if self._ends.random() < 0.3 and not sure and (not reads or all(map(brief, one["tree"][1]))):
            times = self._ends.randint(1, 2)
            wait = self._ends.choice([0, 0.01, 1, 5])
            one["retry"] = {"tries": times + self._ends.randint(0 if not self.calm else 1, 2), "wait": wait}
            nodes = one["tree"][1]
            last = 0 if reads else len(nodes) - (bool(nodes) and nodes[-1][0] == "again")
            nodes.insert(self._ends.randint(0, last), ["flop", times])
            if reads:  # time for what is sent to it
                nodes.insert(0, ["sleep", self._ends.choice([0, 0.3, 2.5])])

    def victim(self, depth: int, run_id: str | None) -> Node:
        """Return a tree that waits until it is cancelled, perhaps with others below it that fall with it."""
        before = [self.work()] if self.random.random() < 0.5 else []
        nodes = [self.safe(node) for node in before]
        if depth < MAX_DEPTH and self.left > 0 and self.random.random() < 0.5:
            kids = []
            for _ in range(self.random.randint(1, 2)):
                self.left -= 1
                key, below = self.key(Place(depth, run_id, None, False))
                kids.append(_kid(key, self.victim(depth + 1, below)))
            return ["main", [*nodes, ["fan", "children", None, kids]]]
        return ["main", [*nodes, ["expire", "never", LONG_S]]]

    # Wild.

    def wild_leaf(self, place: Place) -> Node:
        kind = self.pick(WILD_LEAVES)
        if kind == "rejoin" and place.depth >= MAX_DEPTH:
            kind = "bump"
        match kind:
            case "listen":
                return [kind, self.random.choice("ab"), self.random.choice([0, 0.5, 4, 30])]
            case "signal":
                return [kind, self.random.choice("ab")]
            case "refs":
                return [kind, self.random.choice(["gather", "all", "completed", "wait", "each"])]
            case "map":
                return [kind, self.random.randint(0, 4), self.random.choice(["all", "first", "counted", "paged"])]
            case "rejoin":
                self.left -= 1
                return [kind, self.random.choice("xy"), ["main", [self.work()]]]
            case "cond" | "start" | "named" | "child":
                return [kind, self.random.randint(0, 3)]
            case _:
                return [kind]

    def wild(self, place: Place, nesting: int) -> Node:
        kind = self.pick(WILD_COMPOUNDS)
        within = place.shaken(told=kind not in ("lock", "sem", "event", "baton"))
        some = [self.node(within, nesting + 1) for _ in range(self.random.randint(2, 3))]
        match kind:
            case "enough":
                return ["count", self.random.randrange(1, len(some)), some]
            case "wait":
                return [kind, self.random.choice(["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]), some]
            case "wait_for" | "timeout":
                return [kind, self.random.choice([0, 0.5, 2, 10]), some[0]]
            case "shield" | "later" | "lock":
                return [kind, some[0]]
            case "try":
                return [kind, some[0], self.leaf(within), self.wild_leaf(within), False]
            case "sem" | "baton":
                return [kind, self.random.randint(1, 2), some]
            case "event":
                return [kind, self.leaf(within), some]
            case _:
                return [kind, some]

    # Small things.

    def at_most_one_fails(self, nodes: list[Node]) -> list[Node]:
        allowed = self.random.choice([0, 1, 1]) if self.calm else len(nodes)
        made: list[Node] = []
        for node in nodes:
            fails = may_fail(node)
            made.append(["catch", node] if fails and allowed == 0 else node)
            allowed -= fails and allowed > 0
        return made

    def safe(self, node: Node) -> Node:
        """Return a node that lets the run go on."""
        return ["catch", node] if may_fail(node) else node

    def key(self, place: Place, *, named: bool = False) -> tuple[str | None, str | None]:
        """Return the id given to a child, if one is, and its run id, if that is known."""
        if not named and self.random.random() < 0.4:
            return None, None
        key = self.label("c")
        run_id = None if place.run_id is None else f"{place.run_id}/{key}"
        if run_id is not None:
            self.known.append(run_id)
        return key, run_id

    def label(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def pick(self, weights: dict[T, Any]) -> T:
        return self.random.choices(list(weights), list(weights.values()))[0]


class Place:
    """Where a node stands: in which run, what that may want, and whether its surroundings can be cancelled."""

    __slots__ = ("depth", "fifo", "run_id", "steady", "wanted")

    def __init__(
        self, depth: int, run_id: str | None, wanted: list[Signal] | None, fifo: bool, steady: bool = True
    ) -> None:
        self.depth = depth
        self.run_id = run_id
        self.wanted = wanted
        self.fifo = fifo
        self.steady = steady

    def shaken(self, *, told: bool = True) -> Place:
        """Return the place of something that may be cancelled, or without ``told`` run twice."""
        return Place(self.depth, self.run_id, self.wanted if told else None, self.fifo, steady=False)


def _kid(key: str | None, tree: Node) -> dict[str, Any]:
    return {"id": key, "tree": tree, "now": [], "then": [], "cancel": None, "limit": None}
