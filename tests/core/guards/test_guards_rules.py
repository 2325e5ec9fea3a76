"""The table of what is forbidden: every name in it means something, and nothing is imported to find out."""

from __future__ import annotations

import ast
import importlib
import inspect
import random
import sys

import pytest

from continuum._core import guards
from continuum._core.guards import Watch, rules
from continuum._core.guards.rules import ABSENT, RULES, UNSEEN, Index, lookup

# Names that some Python version or some system does not have.
NOT_EVERYWHERE = {
    "asyncio.open_unix_connection asyncio.start_unix_server concurrent.futures.InterpreterPoolExecutor",
    "os.environb os.getenvb os.getlogin os.getuid os.geteuid os.getgid os.getloadavg os.getrandom os.uname",
    "os.fork os.forkpty os.killpg os.wait os.chown os.posix_spawn os.process_cpu_count os.spawnvp os.spawnl",
    "pathlib.Path.walk random.binomialvariate select.epoll select.kqueue select.poll signal.alarm",
    "signal.pause signal.setitimer signal.sigwait socket.socketpair time.clock_gettime time.clock_gettime_ns",
    "uuid.uuid6 uuid.uuid7 uuid.uuid8",
}
OPTIONAL = {name for line in NOT_EVERYWHERE for name in line.split()}


def owner_of(name: str) -> object:
    """Import the longest module prefix of a name and walk on to the owner of its last part."""
    path = name.split(".")[:-1]
    module = None
    for end in range(len(path), 0, -1):
        try:
            module = importlib.import_module(".".join(path[:end]))
        except ModuleNotFoundError:
            continue
        value: object = module
        for part in path[end:]:
            value = lookup(value, part)
        return value
    return None


STANDARD = [name for name in RULES if name.split(".")[0] in sys.stdlib_module_names]


@pytest.mark.parametrize("name", STANDARD)
def test_every_name_of_the_standard_library_exists(name: str) -> None:
    member = name.rpartition(".")[2]
    owner = owner_of(name)
    found = lookup(owner, member) is not ABSENT or hasattr(owner, member)  # concurrent.futures is lazy
    assert found or name in OPTIONAL


def test_every_rule_says_what_to_use_instead() -> None:
    assert [rule.name for rule in RULES.values() if not rule.instead] == []


def test_guards_import_nothing_that_is_guarded() -> None:
    guarded = {name.partition(".")[0] for name in RULES} - {"asyncio", "builtins", "sys"}
    imported: set[str] = set()
    for module in (guards, rules, sys.modules[guards.scan.__module__], sys.modules[Watch.__module__]):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
    assert {name.partition(".")[0] for name in imported} & guarded == set()


def test_method_of_the_hidden_generator_is_named_as_the_author_wrote_it() -> None:
    rule = Index().of_call(random.Random.choice, random._inst)
    assert rule is not None
    assert rule.name == "random.choice"


def test_generator_of_ones_own_is_allowed() -> None:
    index = Index()
    own = random.Random(3)
    assert index.of_call(own.choice, UNSEEN) is None
    assert index.of_call(own.random, ABSENT) is None
    assert index.of_call(random.Random.choice, own) is None


def test_seed_decides_about_a_new_generator() -> None:
    index = Index()
    assert index.of_call(random.Random, 3) is None
    assert index.of_call(random.Random, UNSEEN) is None
    assert index.of_call(random.Random, ABSENT) is not None
    assert index.of_call(random.Random, None) is not None


def test_lookup_runs_no_property_and_no_lazy_module_attribute() -> None:
    class Trap(type):
        @property
        def secret(cls) -> int:
            raise AssertionError("a property ran")

    class Trapped(metaclass=Trap):
        @property
        def other(self) -> int:
            raise AssertionError("a property ran")

    assert lookup(Trapped, "secret") is ABSENT
    assert isinstance(lookup(Trapped, "other"), property)
    assert lookup(Trapped(), "other") is ABSENT
    assert lookup(importlib, "no_such_name") is ABSENT
