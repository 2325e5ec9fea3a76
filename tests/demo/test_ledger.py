"""The ledger: written by activities, read while it grows, held against the journals."""

import os
from pathlib import Path

import pytest

from continuum.demo.ledger import Execution, Ledger, Step, compare, written

A0, A1, B0 = Step("a", 0), Step("a", 1), Step("b", 0)


def begun(id: str, pid: int, step: Step, number: int, ended: int | None = None) -> Execution:
    return Execution(id, pid, step, number, ended)


def write(path: Path, package: str, part: int, how_many: int) -> str:
    with written(path, package, part) as noted:
        noted.how_many = how_many
    return noted.id


def test_an_execution_is_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.touch()
    id = write(path, "a", 1, 7)
    assert path.read_text() == f"begin\t{id}\t{os.getpid()}\ta\t1\nend\t{id}\t{os.getpid()}\ta\t1\t7\n"


def test_an_execution_that_fails_has_no_end(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.touch()
    with pytest.raises(ZeroDivisionError), written(path, "a", 1):
        raise ZeroDivisionError
    ledger = Ledger(path)
    ledger.read_on()
    assert [execution.ended for execution in ledger.executions.values()] == [None]


def test_a_ledger_that_is_gone_is_an_error_and_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), written(tmp_path / "gone", "a", 1):
        pass


def test_progress_counts_packages_of_which_every_part_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.touch()
    ledger = Ledger(path)
    ledger.read_on()
    assert (ledger.packages, ledger.done, ledger.share) == (None, 0, 0.0)
    write(path, "", 0, 2)
    write(path, "a", 0, 2)
    write(path, "a", 1, 200)
    ledger.read_on()
    assert (ledger.packages, ledger.done, ledger.files, ledger.share) == (2, 0, 200, 0.25)
    write(path, "a", 1, 200)  # run twice: counted once
    write(path, "a", 2, 50)
    write(path, "b", 0, 0)  # a package without files is done when they are counted
    ledger.read_on()
    assert (ledger.packages, ledger.done, ledger.files, ledger.share) == (2, 2, 250, 1.0)


def test_half_a_line_is_read_when_the_rest_is_there(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_text("begin\tx\t1\ta\t0\nend\tx\t1")
    ledger = Ledger(path)
    ledger.read_on()
    assert ledger.executions["x"].ended is None
    with path.open("a") as stream:
        stream.write("\ta\t0\t3\n")
    ledger.read_on()
    assert ledger.executions["x"].ended == 2


def test_each_step_once_is_as_it_should_be() -> None:
    verdict = compare([begun("x", 1, A0, 1, 2), begun("y", 1, A1, 3, 4)], {A0: ["x"], A1: ["y"]}, [])
    assert (verdict.again, verdict.resumed, verdict.problems) == (0, [], [])


def test_what_was_in_flight_at_a_kill_may_run_twice() -> None:
    executions = [
        begun("w", 1, A0, 1, 2),
        begun("x", 1, A1, 3),
        begun("y", 2, A1, 4, 5),
        begun("z", 1, B0, 6, 7),  # it had ended, and its outcome was not committed
        begun("v", 2, B0, 8, 9),
    ]
    verdict = compare(executions, {A0: ["w"], A1: ["y"], B0: ["v"]}, {1})
    assert (verdict.again, verdict.cut, verdict.resumed, verdict.problems) == (2, 1, ["a", "b"], [])


def test_what_runs_twice_without_a_kill_is_a_problem() -> None:
    verdict = compare([begun("x", 1, A0, 1, 2), begun("y", 2, A0, 3, 4)], {A0: ["y"]}, [])
    assert verdict.problems == ["part 0 of 'a' ran twice, and process 1 was not killed"]


def test_what_runs_again_though_it_was_recorded_is_a_problem() -> None:
    executions = [begun("x", 1, A0, 1, 2), begun("y", 2, A0, 3, 4)]
    verdict = compare(executions, {A0: ["x"]}, {1, 2})
    assert verdict.problems == ["part 0 of 'a' ran again though its outcome was there"]


def test_what_ran_and_is_not_recorded_is_a_problem() -> None:
    verdict = compare([begun("x", 1, A0, 1, 2)], {}, {1})
    assert verdict.problems == ["the ledger has part 0 of 'a', the journal does not"]


@pytest.mark.parametrize("executions", [[], [begun("x", 1, A0, 1)], [begun("x", 1, A1, 1, 2)]])
def test_what_is_recorded_and_has_not_run_to_its_end_is_a_problem(executions: list[Execution]) -> None:
    verdict = compare(executions, {A0: ["x"]}, [])
    assert "the journal has part 0 of 'a', the ledger has no end of it" in verdict.problems


def test_what_is_recorded_twice_is_a_problem() -> None:
    executions = [begun("x", 1, A0, 1, 2), begun("y", 2, A0, 3, 4)]
    assert "part 0 of 'a' is recorded 2 times" in compare(executions, {A0: ["x", "y"]}, {1}).problems
