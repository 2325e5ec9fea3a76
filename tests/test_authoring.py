"""What docs/authoring.md says its workflows do is what they do, driven through the core."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continuum import Failure
from continuum._core import commands as c
from tests.core import harness
from tests.core.harness import Run
from tests.test_docs import ROOT, run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(ROOT / "docs" / "authoring.md", Path(tmp_path_factory.mktemp("authoring")))


@pytest.fixture(autouse=True)
def machines_are_let_go() -> Iterator[None]:
    harness.RUNS.clear()
    yield
    for driven in harness.RUNS:
        if driven.replayable:
            driven.check_every_turn()
        driven.machine.discard()
    harness.RUNS.clear()


def kinds(driven: Run) -> list[str]:
    return [type(command).__name__ for command in driven.commands]


def test_values_name_the_field_that_is_refused(page: Any) -> None:
    assert Run(page.refuses_nan).result == "cents"


def test_activities_of_a_gather_run_together(page: Any) -> None:
    driven = Run(page.both, page.Order("o1", 4200))
    assert [command.key for command in driven.open] == ["charge-1", "capture-1"]
    driven.completed("capture-1", "b")
    driven.completed("charge-1", "a")
    assert driven.result == ["a", "b"]


def test_options_of_a_call_replace_those_of_the_definition(page: Any) -> None:
    options = Run(page.capture_flow, "p").command.options  # type: ignore[union-attr]
    assert (options.retry.max_attempts, options.start_to_close.total_seconds()) == (2, 30)


def test_a_ref_can_be_awaited_as_often_as_one_likes(page: Any) -> None:
    driven = Run(page.parent, page.Order("o1", 4200), id="p")
    assert driven.command.run_id == "p/audit_flow-1"  # type: ignore[union-attr]
    driven.child_completed("audit_flow-1", 0)
    assert driven.command.run_id == "p/order-o1"  # type: ignore[union-attr]
    driven.child_completed("order-o1", {"order_id": "o1", "payment": "x"})
    assert driven.result == {"order_id": "o1", "payment": "x"}


def test_an_outcome_is_told_instead_of_raised(page: Any) -> None:
    for tell, told in [
        (lambda driven: driven.child_completed("order", {"order_id": "o", "payment": "x"}), "x"),
        (lambda driven: driven.child_failed("order", Failure("CardDeclined", "no")), "CardDeclined: no"),
        (lambda driven: driven.child_cancelled("order", "parent_cancelled"), "parent_cancelled"),
    ]:
        driven = Run(page.careful_parent, page.Order("o1", 1))
        assert kinds(driven) == ["StartChild", "SendSignal"]
        tell(driven)
        assert driven.result == told


def test_many_children_are_one_turn_and_their_results_keep_the_order(page: Any) -> None:
    orders = [page.Order(f"o{n}", n) for n in range(3)]
    driven = Run(page.batch_flow, orders)
    assert kinds(driven) == ["StartChild"] * 3
    for n in (2, 0, 1):
        driven.child_completed(f"order-o{n}", {"order_id": f"o{n}", "payment": f"p{n}"})
    assert driven.result == ["p0", "p1", "p2"]
    driven = Run(page.first_two, orders)
    for n in (2, 0):
        driven.child_completed(f"order-o{n}", {"order_id": f"o{n}", "payment": f"p{n}"})
    assert driven.result == ["p2", "p0"]


def test_children_of_a_group_take_their_keys_where_they_are_called(page: Any) -> None:
    driven = Run(page.in_a_group, page.Order("o1", 1))
    assert [command.key for command in driven.commands] == ["order_flow-1", "audit_flow-1"]  # type: ignore[union-attr]
    driven.child_completed("order_flow-1", {"order_id": "o1", "payment": "p"})
    driven.child_completed("audit_flow-1", 3)
    assert driven.result == ["p", 3]


def test_a_map_pulls_items_when_there_is_room_and_keeps_their_order(page: Any) -> None:
    driven = Run(page.every_order)
    driven.completed("t1.open_orders-1", [{"id": f"o{n}", "cents": 1} for n in range(3)])
    assert [command.key for command in driven.commands] == ["order-o0", "order-o1"]  # type: ignore[union-attr]
    driven.child_completed("order-o1", {"order_id": "o1", "payment": "p1"})
    assert driven.command.key == "order-o2"  # type: ignore[union-attr]
    driven.child_completed("order-o2", {"order_id": "o2", "payment": "p2"})
    assert driven.command.key == "t1.open_orders-2"  # type: ignore[union-attr]
    driven.child_completed("order-o0", {"order_id": "o0", "payment": "p0"})
    driven.completed("t1.open_orders-2", [])
    assert driven.result == ["p0", "p1", "p2"]


def test_a_map_is_decided_by_the_first_that_complete_or_fails(page: Any) -> None:
    orders = [page.Order(f"o{n}", n) for n in range(3)]
    driven = Run(page.quorum, orders)
    for n in (3, 1):
        driven.child_completed(f"order_flow-{n}", {"order_id": "o", "payment": "p"})
    assert kinds(driven) == ["DecideMap", "CancelChild", "CompleteRun"]
    assert driven.result == ["run-1/order_flow-3", "run-1/order_flow-1"]
    driven = Run(page.quorum, orders)
    for n in (3, 1):
        driven.child_failed(f"order_flow-{n}", Failure("CardDeclined", "no"))
    assert driven.result == ["only 0 completed"]


def test_a_signal_or_its_timeout_decides(page: Any) -> None:
    driven = Run(page.approval_flow, page.Order("o1", 1))
    driven.fired()
    assert driven.result == "nobody answered"
    driven = Run(page.approval_flow, page.Order("o1", 1))
    driven.signal("approve", {"by": "ann", "granted": True})
    assert driven.result == "ann: True"
    driven = Run(page.approval_flow, page.Order("o1", 1))
    driven.signal("approve", {"by": "ann"})
    assert (driven.failure.type, "granted" in driven.failure.message) == ("DecodeError", True)


def test_a_condition_is_asked_whenever_code_has_run(page: Any) -> None:
    driven = Run(page.votes, 2)
    driven.signal("vote", "ann")
    driven.signal("vote", "bob")
    assert driven.result == ["ann", "bob", "2026-01-01"]


def test_chance_is_the_same_on_replay(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGION", "north")
    driven = Run(page.lottery, ["ann", "bob"])
    assert driven.result["region"] == "north"
    assert [entry.type for entry in driven.journal] == ["side_effect_recorded"]


def test_a_patch_is_applied_to_new_runs(page: Any) -> None:
    driven = Run(page.order_flow_with_audit, page.Order("o1", 1))
    driven.completed("charge-1", "p")
    assert kinds(driven) == ["ApplyPatch", "StartChild"]


def test_the_next_generation_awaits_a_carried_ref_and_reads_the_signals_left(page: Any) -> None:
    driven = Run(page.shop_flow, page.Shop())
    driven.signal("order", {"id": "o1", "cents": 5})
    second = driven.next_generation()
    assert kinds(second) == ["AwaitChild"]
    second.signal("order", {"id": "o2", "cents": 0})
    second.child_completed("order-o1", {"order_id": "o1", "payment": "p"})
    assert second.result == 1


def test_clean_up_awaits_and_the_run_is_cancelled(page: Any) -> None:
    driven = Run(page.cancellable, page.Order("o1", 1))
    driven.completed("charge-1", "p")
    driven.cancel("asked to")
    assert kinds(driven) == ["CancelActivity", "RunActivity"]
    driven.completed("refund-1")
    assert driven.closing == c.CancelRun("asked to")


def test_an_error_is_told_with_its_type_and_its_first_cause(page: Any) -> None:
    driven = Run(page.handles_failure, page.Order("o1", 1))
    driven.failed("charge-1", Failure("CardDeclined", "no", cause=Failure("Limit", "reached")))
    assert driven.result == "declined because of Limit: reached"
    driven = Run(page.handles_failure, page.Order("o1", 1))
    driven.failed("charge-1", ValueError("boom"))
    assert [failure.type for failure in driven.failure.chain()] == ["ActivityFailed", "ValueError"]


def test_ids_that_cannot_be_used_are_refused_at_the_call(page: Any) -> None:
    assert Run(page.tries_ids, page.Order("o1", 1)).result == ["DuplicateChildId", "InvalidId", "InvalidId"]


def test_a_log_line_is_written_once(page: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="continuum.workflow"):
        driven = Run(page.talks, page.Order("o1", 4200), id="talker")
        driven.completed("charge-1", "p")
        driven.replayable = False  # from its start it would run its first turn live, and log as a lost turn does
        driven.restart()
    lines = [record for record in caplog.records if record.name == "continuum.workflow"]
    assert [(line.getMessage(), line.run_id) for line in lines] == [("order o1 costs 4200", "talker")]  # type: ignore[attr-defined]
