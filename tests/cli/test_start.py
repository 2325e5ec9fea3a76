"""``continuum start``, ``signal`` and ``cancel``: what they write, print, and refuse."""

import io
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from continuum._core.failure import encode_failure
from continuum._journal.commit import Complete, Fail, Park, Passivate
from continuum.errors import Failure
from tests.cli.conftest import Run
from tests.cli.harness import FLOWS, Program, boom, ended, made, until
from tests.journal.harness import select

RUNS = "select run_id, workflow, input::text from continuum.runs"
WAITING = Passivate(None, "signal 'go'")


def test_start_prints_the_id_of_a_run_that_is_there(run: Run, here: str) -> None:
    made(here)
    assert run("start", "order_flow", "[1, 2]", "--id", "o1") == (0, "o1\n", "")
    assert select(here, RUNS) == [("o1", "order_flow", "[1,2]")]
    assert run("start", "order_flow", "[1,2]", "--id", "o1") == (0, "o1\n", ""), (
        "the same once more is the same run"
    )
    code, printed, _ = run("start", "order_flow")
    assert code == 0
    assert (printed.strip(), "order_flow", "null") in select(here, RUNS)
    assert json.loads(run("start", "order_flow", "--id", "o2", "--json")[1]) == {"id": "o2"}


@pytest.mark.parametrize(
    "arguments",
    [
        ['{"a": "é"}', "--id", "o1"],
        ["--id", "o1", '{"a": "é"}'],
        ["--id", "o1", "-"],
        ["-", "--id=o1"],
        ["--input", "input.json", "--id", "o1"],
        ["--input", "-", "--id", "o1"],
    ],
)
def test_an_input_comes_from_the_line_a_file_or_stdin(
    run: Run, here: str, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    made(here)
    text = '{"a": "é"}'
    (folder / "input.json").write_text(text, encoding="utf-8-sig")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert run("start", "order_flow", *arguments) == (0, "o1\n", "")
    assert select(here, "select input->>'a' from continuum.runs") == [("é",)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (['{"a": }'], "the input is no JSON: Expecting value: line 1 column 7, at '}'"),
        (['{"a": 1'], "the input is no JSON: Expecting ',' delimiter: line 1 column 8, at its end"),
        ([""], "the input is no JSON: Expecting value: line 1 column 1, at its end"),
        (["order-7"], "the input is no JSON: Expecting value: line 1 column 1, at 'order-7'"),
        (["[NaN]"], "NaN is no JSON"),
        (["[" * 100_000], "the input is nested too deep to read"),
        (["\udcff"], "the input is no UTF-8: byte 1 of it"),
        (['"\\ud800"'], "surrogate"),
        (["--input", "nowhere.json"], "No such file or directory: 'nowhere.json'"),
        (["--input", "bad.json"], "the input in bad.json is no JSON: "),
        (["1", "--input", "bad.json"], "the input is given twice"),
        (["1", "--id", "a/b"], "run id 'a/b' must not hold '/'"),
        (["1", "--id", ""], "a run id must not be empty"),
        (["1", "--id", " "], "a run id must not be blank"),
    ],
)
def test_an_input_or_id_that_cannot_be_used_is_one_line_and_writes_nothing(
    run: Run, here: str, folder: Path, arguments: list[str], says: str
) -> None:
    made(here)
    (folder / "bad.json").write_text('{\n  "a": 1,\n}')
    code, printed, error = run("start", "order_flow", *arguments)
    assert (code, printed) == (2, "")
    assert says in error
    assert error.startswith("continuum: ")
    assert error.count("\n") == 1
    assert select(here, RUNS) == []


def test_an_unknown_workflow_is_refused_with_the_nearest(run: Run, here: str) -> None:
    made(here)
    code, printed, error = run("start", "ordr_flow", "1")
    assert (code, printed) == (2, "")
    assert error == "continuum: no worker has announced a workflow 'ordr_flow'; did you mean 'order_flow'?\n"
    assert select(here, RUNS) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["start", "order_flow", "--wiat"], "unrecognized arguments: --wiat; did you mean --wait?"),
        (["start", "order_flow", "--wait", "{}"], "argument --wait: it is a number of seconds, not '{}'"),
        (
            ["cancel", "r", "--grace", "1e18"],
            "--grace: it is a number of seconds of at most a hundred years, not '1e18'",
        ),
        (["update", "r", "u", "--timeout", "inf"], "argument --timeout: it is a number of seconds, not 'inf'"),
        (["start", "order_flow", "1", "2"], "unrecognized arguments: 2"),
        (["start"], "required: WORKFLOW"),
        (["signal", "r"], "required: NAME"),
        (["strat"], "invalid choice: 'strat'"),
        (["worker", "x", "--supervisd=1"], "unrecognized arguments: --supervisd=1; see"),
    ],
)
def test_wrong_usage_is_exit_code_2(run: Run, arguments: list[str], says: str) -> None:
    code, printed, error = run(*arguments)
    assert (code, printed) == (2, "")
    assert says in error


def test_an_id_that_is_taken_by_another_input_or_workflow_is_refused(run: Run, here: str) -> None:
    made(here, ended("o1", WAITING))
    code, printed, error = run("start", "order_flow", "2", "--id", "o1")
    assert (code, printed) == (1, "")
    assert "run 'o1' exists already" in error
    assert run("start", "batch_flow", "1", "--id", "o1")[0] == 1


def test_wait_prints_the_result_or_ends_with_1(run: Run, here: str) -> None:
    made(
        here,
        ended("good", Complete('{"name":"é\\u009b"}'.encode())),
        ended("bad", Fail(boom())),
        ended("gone", WAITING),
        ended("late", WAITING),
    )
    run("cancel", "gone", "--reason", "not wanted")
    start = ("start", "order_flow", "1", "--wait=0.05", "--id")
    assert run(*start, "good") == (0, '{"name": "é\\u009b"}\n', "")
    assert run(*start, "bad") == (1, "", "continuum: run 'bad' failed: ValueError: no such \\x1b[31morder\n")
    assert run(*start, "gone") == (1, "", "continuum: run 'gone' was cancelled: not wanted\n")
    code, printed, error = run(*start, "late")
    assert (code, printed) == (1, "")
    assert error.startswith("continuum: run 'late' has not ended within 0.05 s")
    assert "run 'late' has not ended within 0.05 s: it is suspended, waiting for signal 'go'" in error
    assert run("start", "order_flow", "1", "--id", "good", "--wait")[0] == 0


def test_who_stops_waiting_leaves_the_run_alone(here: str, program: Callable[..., Program]) -> None:
    made(here)
    one = program("start", "order_flow", "--id", "o1", "--wait")
    until(lambda: select(here, RUNS))
    one.signal(signal.SIGINT)
    assert one.ends() == 130
    assert one.said.startswith("continuum: interrupted")
    assert select(here, "select state from continuum.overview") == [("pending",)]


def test_wait_as_json_has_the_outcome(run: Run, here: str) -> None:
    made(here, ended("good", Complete(b"[1]")), ended("bad", Fail(boom())), ended("gone", WAITING))
    run("cancel", "gone")
    start = ("start", "order_flow", "1", "--wait", "--json", "--id")
    assert json.loads(run(*start, "good")[1]) == {"id": "good", "state": "completed", "result": [1]}
    code, printed, _ = run(*start, "bad")
    assert code == 1
    told = json.loads(printed)
    assert (told["state"], told["error"]["type"], told["error"]["cause"]["type"]) == (
        "failed",
        "ValueError",
        "KeyError",
    )
    assert json.loads(run(*start, "gone")[1])["error"]["message"] == "cancelled by request"


def test_a_signal_is_in_the_inbox_with_its_payload(run: Run, here: str) -> None:
    made(here, ended("order-1", WAITING), ended("done", Complete(b"1")))
    assert run("signal", "order-1", "approve", '{"by": "me"}') == (0, "sent approve to order-1\n", "")
    assert run("signal", "order-1", "go")[0] == 0
    assert select(here, "select type, key, payload->'payload' from continuum.inbox order by id") == [
        ("signal_received", "approve", {"by": "me"}),
        ("signal_received", "go", None),
    ]
    assert run("signal", "order-1", "go", "nope")[0] == 2
    assert run("signal", "order-1", "")[0] == 2
    assert run("signal", "done", "go") == (1, "", "continuum: run 'done' is completed; nothing was changed\n")
    assert run("signal", "order-2", "go") == (
        1,
        "",
        "continuum: there is no run 'order-2'; did you mean 'order-1'?\n",
    )


def test_a_signal_under_a_delivery_id_is_sent_once(run: Run, here: str) -> None:
    made(here, ended("order-1", WAITING))
    for payload in ("1", "2"):
        assert run("signal", "order-1", "go", payload, "--delivery-id", "d-1")[0] == 0
    assert select(here, "select payload from continuum.inbox") == [({"delivery_id": "d-1", "payload": 1},)]


def test_a_signal_is_checked_against_the_module_that_is_named(run: Run, here: str, folder: Path) -> None:
    (folder / "shop.py").write_text(FLOWS)
    made(here, ended("a-1", WAITING, workflow="approved"), ended("other", WAITING, workflow="elsewhere"))
    checked = ("--module", "shop.py")
    code, _, error = run("signal", "a-1", "approve", '"yes please"', *checked)
    assert (code, "signal 'approve' of workflow 'approved'" in error) == (2, True)
    code, _, error = run("signal", "a-1", "aprove", "true", *checked)
    assert (code, "did you mean 'approve'" in error) == (2, True)
    code, _, error = run("signal", "other", "go", *checked)
    assert (code, "run 'other' cannot be checked: no workflow 'elsewhere'" in error) == (2, True)
    assert select(here, "select 1 from continuum.inbox") == []
    assert run("signal", "a-1", "approve", "true", *checked) == (0, "sent approve to a-1\n", "")
    assert select(here, "select payload->'payload' from continuum.inbox") == [(True,)]


def test_an_update_prints_its_answer(run: Run, here: str, folder: Path, program: Callable[..., Program]) -> None:
    (folder / "shop.py").write_text(FLOWS)
    worker = program("worker", "shop.py", "--no-migrate")
    worker.says("is ready")
    assert run("start", "approved", "1", "--id", "a-1")[0] == 0
    assert run("update", "a-1", "set_price", "21", "--timeout", "20", "--id", "u") == (0, "42\n", "")
    assert run("update", "a-1", "set_price", "33", "--timeout", "20", "--id", "u") == (0, "42\n", "")
    code, printed, error = run("update", "a-1", "set_price", "-1", "--timeout", "20")
    assert (code, printed) == (1, "")
    assert "refused update 'set_price': ValueError: a price is 0 or more" in error
    assert "published:   21" in run("runs", "show", "a-1")[1]
    assert run("update", "a-1", "set_price", "nope")[0] == 2
    checked = ("--module", "shop.py", "--timeout", "20")
    for name, given, problem in (
        ("set_prise", "1", "did you mean 'set_price'"),
        ("set_price", '"x"', "set_price"),
    ):
        code, _, error = run("update", "a-1", name, given, *checked)
        assert (code, problem in error) == (2, True)
    code, printed, error = run("update", "a-1", "set_price", "4", *checked)
    assert (code, printed) == (0, "8\n")
    update_id = error.removeprefix("continuum: update --id ").strip()
    assert run("update", "a-1", "set_price", "5", "--id", update_id, "--timeout", "20") == (0, "8\n", "")


def test_an_update_that_is_not_answered_in_time_says_how_to_go_on(run: Run, here: str) -> None:
    made(here, ended("a-1", WAITING))
    code, _, error = run("update", "a-1", "set_price", "1", "--id", "u", "--timeout", "0.01")
    assert (code, "ask again under id='u'" in error) == (1, True)


def test_cancel_ends_a_run_once_and_says_what_it_cannot(run: Run, here: str) -> None:
    made(here, ended("o1", WAITING), ended("done", Complete(b"1")))
    for _ in range(2):
        assert run("cancel", "o1", "--reason", "late") == (0, "cancelled o1, and every run below it\n", "")
    assert "late" in run("runs", "show", "o1")[1]
    assert run("cancel", "done") == (1, "", "continuum: run 'done' is completed; nothing was changed\n")
    assert run("cancel", "nope")[0] == 1


def test_cancel_with_a_grace_asks(run: Run, here: str) -> None:
    made(here, ended("o1", WAITING), ended("done", Complete(b"1")))
    assert run("cancel", "o1", "--grace", "90", "--reason", "late") == (0, "asked o1 to stop within 90 s\n", "")
    assert run("runs", "show", "o1")[1].count("suspended") == 1
    assert run("cancel", "o1", "--grace", "0") == (0, "cancelled o1, and every run below it\n", "")
    assert run("cancel", "done", "--grace", "1") == (
        1,
        "",
        "continuum: run 'done' is completed; nothing was changed\n",
    )
    assert run("cancel", "nope", "--grace", "1")[0] == 1
    assert run("cancel", "o1", "--grace", "soon")[0] == 2


def test_resume_makes_a_parked_run_due_and_refuses_one_that_has_ended(run: Run, here: str) -> None:
    parked = Park(encode_failure(Failure("NonDeterminismError", "recorded: a; decided: b")))
    made(here, ended("o1", parked), ended("done", Complete(b"1")))
    assert run("resume", "o1") == (0, "o1 goes on as soon as a worker takes it up\n", "")
    assert select(here, "select state, next_wakeup_at <= now() from continuum.runs where run_id = 'o1'") == [
        ("suspended", True)
    ]
    assert run("resume", "done") == (1, "", "continuum: run 'done' is completed; nothing was changed\n")
    assert run("resume", "nope")[0] == 1


def test_an_error_that_would_break_a_terminal_is_escaped(run: Run, here: str) -> None:
    odd = Failure("Odd", "\x1b]0;title\x07\nsecond \x9b31m")
    made(here, ended("odd", Fail(encode_failure(odd))))
    error = run("start", "order_flow", "1", "--id", "odd", "--wait")[2]
    assert error == "continuum: run 'odd' failed: Odd: \\x1b]0;title\\x07 second \\x9b31m\n"
