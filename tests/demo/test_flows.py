"""The demo's workflows: called plainly as far as they can be, else driven through the core."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from continuum import Definitions
from continuum.demo import flows
from continuum.demo.files import Tally
from continuum.demo.flows import Audit, Check, check_package, take_stock
from continuum.demo.ledger import Ledger
from continuum.demo.packages import Package, Packages
from tests.core.harness import Run
from tests.demo.harness import fill, installed, ledger_in, reported, tallied


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return ledger_in(tmp_path / "home")


def test_the_module_holds_its_definitions() -> None:
    found = Definitions([flows])
    found.prepare()
    assert {name for name, _ in found.workflows} == {"audit", "take_stock", "check_package"}
    assert set(found.activities) == {"list_packages", "count_files", "check_files"}


def test_a_child_called_plainly_checks_its_package(tmp_path: Path, ledger: Path) -> None:
    package = installed(tmp_path, {"nice/a.py": b"a", "nice/b.py": b"b"})
    (tmp_path / "nice/b.py").write_bytes(b"c")
    tally = asyncio.run(check_package(Check(str(ledger), package)))
    assert (tally.files, tally.compared, tally.mismatches) == (3, 2, 1)


def test_stock_is_taken_by_a_plain_call(tmp_path: Path, ledger: Path) -> None:
    fill(tmp_path / "tree", {"a/x": b"", "b": b""})
    packages = asyncio.run(take_stock(Audit(str(ledger), str(tmp_path / "tree"))))
    assert [package.id for package in packages.found] == ["a", "b"]


def test_a_large_package_is_checked_in_parts(
    tmp_path: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "tree", {f"p/{number}": b"%d" % number for number in range(10)})
    check = Check(str(ledger), Package("p", "entry", "p", str(tmp_path / "tree")))
    whole = tallied(check)
    monkeypatch.setattr(flows, "FILES_PER_PART", 3)
    parts = tallied(check)
    assert (parts.files, parts.bytes) == (whole.files, whole.bytes) == (10, 10)
    read = Ledger(ledger)
    read.read_on()
    assert [execution.step.part for execution in read.executions.values()] == [0, 1, 0, 1, 2, 3, 4]


def test_the_report_is_the_same_twice(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", {f"{folder}/{n}": b"%d" % n for folder in "abc" for n in range(5)})
    first = reported(ledger_in(tmp_path / "one"), tree)
    fill(tree, {"a/__pycache__/x.pyc": b"compiled meanwhile", ".continuum/demo/audit-1.ledger": b"grown"})
    second = reported(ledger_in(tmp_path / "two"), tree)
    assert first == second
    assert (first.packages, first.total.files) == (3, 15)
    fill(tree, {"a/1": b"changed"})
    assert reported(ledger_in(tmp_path / "three"), tree) != first


def test_an_audit_starts_a_child_for_each_package_and_adds_up() -> None:
    packages = [Package(name, "library", f"{name}.py", "/lib") for name in ("ast", "json")]
    run = Run(flows.audit, Audit("/ledger"), id="audit-1")
    run.child_completed("take_stock-1", plain(flows.take_stock, Packages(packages)))
    assert [command.run_id for command in run.commands] == ["audit-1/ast", "audit-1/json"]  # type: ignore[union-attr]
    for name, number in (("json", 2), ("ast", 1)):
        tally = Tally(number, 10 * number, examples=[f"{name} is not right"], mismatches=1)
        run.child_completed(name, plain(flows.check_package, tally))
    report = flows.audit.result.decode(json.dumps(run.result).encode())
    assert (report.packages, report.kinds) == (2, {"library": 2})
    assert (report.total.files, report.total.bytes, report.total.mismatches) == (3, 30, 2)
    assert report.total.examples == ["ast is not right", "json is not right"]  # in the order of the packages
    run.check_every_turn()
    run.machine.discard()


def test_an_audit_of_nothing_is_empty() -> None:
    run = Run(flows.audit, Audit("/ledger"), id="audit-1")
    run.child_completed("take_stock-1", plain(flows.take_stock, Packages([])))
    assert run.result["packages"] == 0
    run.machine.discard()


def test_a_child_that_is_taken_over_asks_for_the_part_that_was_in_flight() -> None:
    run = Run(check_package, Check("/ledger", Package("p", "entry", "p", "/tree")), id="audit-1/p")
    run.completed("count_files-1", plain(flows.count_files, flows.Counted(2, Tally(), "x")))
    run.completed("check_files-1", plain(flows.check_files, flows.Checked(Tally(files=200), "y")))
    run.restart()
    run.completed("check_files-2", plain(flows.check_files, flows.Checked(Tally(files=7), "z")))
    assert run.result["files"] == 207
    run.check_every_turn()
    run.machine.discard()


def plain(definition: Any, value: Any) -> Any:
    """Return a result as the journal holds it."""
    return json.loads(definition.result.encode(value))
