"""``continuum runs``: what it prints of runs, their journals and their trees."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from continuum._core.failure import encode_failure
from continuum._journal.commit import Complete, Continue, Fail, Park, Passivate
from continuum.errors import Failure
from tests.cli.conftest import Run
from tests.cli.harness import begun, boom, ended, made
from tests.journal.harness import child, claim, entry, turn, write

COMPLETE = Complete(b"2")


def lines(printed: str) -> list[Any]:
    return [json.loads(line) for line in printed.splitlines()]


def family(number: int, failed: int) -> Any:
    """A step: a parent with that many children, one of them failed, one with a child of its own."""

    async def step(journal: Any) -> None:
        parent = await begun(journal, "batch", "batch_flow")
        keys = [f"o-{n:02}" for n in range(number)]
        await write(
            journal, turn(parent, children=tuple(child("batch", key, workflow="order_flow") for key in keys))
        )
        runs = await claim(journal, ("order_flow", 1))
        below = child("batch/o-00", "deep", workflow="order_flow")
        await write(journal, turn(runs["batch/o-00"], children=(below,), status=Passivate(None, "child 'deep'")))
        done = [runs[f"batch/{key}"] for key in keys[1:]]
        for n, one in enumerate(done, 1):
            await write(journal, turn(one, status=Fail(boom()) if n == failed else COMPLETE))

    return step


def test_runs_are_listed_newest_first_with_what_is_to_be_said_of_them(run: Run, here: str) -> None:
    made(
        here,
        ended("first", COMPLETE),
        ended("second", Fail(boom())),
        ended("third", Passivate(None, "signal 'go'")),
    )
    code, printed, error = run("runs", "list")
    assert (code, error) == (0, "")
    head, *rows = printed.splitlines()
    assert head.split() == ["RUN", "WORKFLOW", "STATE", "CREATED", "TOOK"]
    assert [row.split()[:3] for row in rows] == [
        ["third", "order_flow", "suspended"],
        ["second", "order_flow", "failed"],
        ["first", "order_flow", "completed"],
    ]
    assert rows[0].endswith("waiting for signal 'go'")
    assert rows[1].endswith(r"ValueError: no such \x1b[31morder")
    assert rows[2].split()[3].endswith("Z")


def test_a_list_is_filtered_and_limited_and_says_so(run: Run, here: str) -> None:
    made(here, *(ended(f"r{n}", COMPLETE) for n in range(3)), ended("bad", Fail(boom())))
    assert [row["id"] for row in lines(run("runs", "list", "--state", "failed", "--json")[1])] == ["bad"]
    code, printed, _ = run("runs", "list", "--limit", "2")
    assert code == 0
    assert printed.splitlines()[-1] == "there are more: --all, or --limit above 2"
    assert len(lines(run("runs", "list", "--limit", "2", "--json")[1])) == 2
    assert "there are more" not in run("runs", "list", "--limit", "4")[1]
    assert [row["id"] for row in lines(run("runs", "list", "--all", "--json")[1])] == ["bad", "r2", "r1", "r0"]
    assert run("runs", "list", "--workflow", "batch_flow") == (0, "no runs\n", "")
    assert run("runs", "list", "--workflow", "batch_flow", "--json") == (0, "", "")


def test_all_goes_through_every_page(run: Run, here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum.cli.runs.PAGE", 2)
    made(here, *(ended(f"r{n}", COMPLETE) for n in range(4)))
    assert [row["id"] for row in lines(run("runs", "list", "--all", "--json")[1])] == ["r3", "r2", "r1", "r0"]
    assert [row["id"] for row in lines(run("runs", "list", "--limit", "3", "--json")[1])] == ["r3", "r2", "r1"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["list", "--workflow", "order_flwo"], 2, "a workflow 'order_flwo'; did you mean 'order_flow'?"),
        (["list", "--state", "fialed"], 2, "no run has the state 'fialed'; did you mean 'failed'?"),
        (["show", "order-8"], 1, "there is no run 'order-8'; did you mean 'order-7'?"),
        (["history", "order-8"], 1, "there is no run 'order-8'; did you mean 'order-7'?"),
        (["tree", "order-8"], 1, "there is no run 'order-8'; did you mean 'order-7'?"),
        (["show", "batch/o-9"], 1, "there is no run 'batch/o-9'; did you mean 'batch/o-09'?"),
        (["show", "bath/o-09"], 1, "there is no run 'bath'; did you mean 'batch'?"),
        (["show", "\x1b[0m"], 1, r"there is no run '\x1b[0m'"),
        (["show", ""], 2, "a run id must not be empty"),
    ],
)
def test_what_is_not_there_is_one_line_with_the_nearest(
    run: Run, here: str, arguments: list[str], code: int, says: str
) -> None:
    made(here, ended("order-7", COMPLETE), family(10, 0))
    assert run("runs", *arguments)[:2] == (code, "")
    error = run("runs", *arguments)[2]
    assert says in error
    assert error.startswith("continuum: ")
    assert error.count("\n") == 1


def test_an_unreachable_database_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:secret@127.0.0.1:1/nowhere"
    for command in (
        ["runs", "list"],
        ["runs", "show", "x"],
        ["start", "x"],
        ["signal", "x", "y"],
        ["cancel", "x"],
    ):
        code, printed, error = run(*command, "--url", url)
        assert (code, printed, error.count("\n")) == (1, "", 1)
        assert "cannot reach Postgres at postgresql://me:***@127.0.0.1:1/nowhere" in error


def test_looking_creates_neither_a_schema_nor_an_embedded_server(
    run: Run, empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, error = run("runs", "list", "--url", empty_database)
    assert code == 1
    assert "run `continuum db migrate`" in error
    monkeypatch.chdir(tmp_path)
    code, _, error = run("runs", "list")
    assert code == 1
    assert f"there is no embedded Postgres in {tmp_path / '.continuum'}" in error
    assert list(tmp_path.iterdir()) == []
    assert run("runs", "list", "--url", empty_database, "--home", "x")[0] == 2


def test_show_tells_why_a_run_failed_with_the_chain_of_causes(run: Run, here: str) -> None:
    made(here, ended("bad", Fail(boom())))
    code, printed, _ = run("runs", "show", "bad")
    assert code == 0
    rows = printed.splitlines()
    told = dict(row.split(":", 1) for row in rows[: rows.index("error:")])
    assert told["workflow"].strip() == "order_flow version 1"
    assert told["state"].strip() == "failed"
    assert told["input"].strip() == "1"
    below = rows[rows.index("error:") + 1 :]
    assert below[:3] == [
        r"  ValueError: no such \x1b[31morder",
        "  caused by KeyError: 'o1'",
        r"traceback of ValueError: no such \x1b[31morder",
    ]
    assert "harness.py" in below[3]
    assert "traceback of KeyError: 'o1'" in below
    shown = json.loads(run("runs", "show", "bad", "--json")[1])
    assert shown["error"]["cause"]["type"] == "KeyError"
    assert shown["created_at"].endswith("Z")


def test_show_tells_the_members_of_a_group_and_what_a_parked_run_waits_for(run: Run, here: str) -> None:
    group = Failure(
        "ExceptionGroup", "two\nlines", parts=(Failure("OSError", "first"), Failure("KeyError", "second"))
    )
    made(here, ended("parked", Park(encode_failure(group))))
    printed = run("runs", "show", "parked")[1]
    assert "waiting for: somebody to resume it" in printed
    told = printed.splitlines()
    assert told[told.index("error:") + 1 :] == [
        "  ExceptionGroup: two",
        "    lines",
        "    member of the group:",
        "      OSError: first",
        "    member of the group:",
        "      KeyError: second",
    ]


def test_a_long_value_is_cut_for_people_and_whole_as_json(run: Run, here: str) -> None:
    made(here, ended("long", Complete(json.dumps("x" * 10_000).encode())))
    printed = run("runs", "show", "long")[1]
    assert "… (8,002 more characters)" in printed
    assert json.loads(run("runs", "show", "long", "--json")[1])["result"] == "x" * 10_000


def test_a_history_is_a_line_an_entry(run: Run, here: str) -> None:
    odd = entry("b", b'{"name":"b","input":"\\u001b[2J\xe2\x80\xae","result":1}')

    async def steps(journal: Any) -> None:
        one = await begun(journal, "r", "order_flow")
        await write(journal, turn(one, entries=(entry("a"), odd)))
        await begun(journal, "fresh", "order_flow")

    made(here, steps)
    code, printed, _ = run("runs", "history", "r")
    assert code == 0
    head, *rows = printed.splitlines()
    assert head.split() == ["GEN", "SEQ", "AT", "TYPE", "KEY", "PAYLOAD"]
    assert rows[0].split(maxsplit=5) == [
        *("1", "1", "2023-11-14T22:13:20.000Z", "activity_completed", "a"),
        '{"name": "a", "input": null, "result": 1}',
    ]
    assert r'"input": "\u001b[2J\u202e"' in rows[1]
    events = lines(run("runs", "history", "r", "--json")[1])
    assert [(event["seq"], event["key"]) for event in events] == [(1, "a"), (2, "b")]
    assert events[1]["payload"]["input"] == "\x1b[2J\u202e"
    assert run("runs", "history", "r", "--generation", "2") == (
        *(0, "no entries: the run has come to generation 1\n", ""),
    )
    assert run("runs", "history", "fresh") == (0, "no entries\n", "")
    assert run("runs", "history", "r", "--generation", "0")[0] == 2


def test_a_history_without_entries_says_which_generation_a_run_is_in(run: Run, here: str) -> None:
    async def later(journal: Any) -> None:
        began = entry("", b'{"input":2,"carried":0,"child_deadlines":{}}', "run_started")
        await write(journal, turn(await begun(journal, "r", "order_flow"), status=Continue(1, (began,))))

    made(here, later)
    assert run("runs", "history", "r", "--generation", "1") == (
        *(0, "no entries: those of generation 1 were deleted, or there were none\n", ""),
    )


def test_a_run_in_memory_tells_what_it_waited_for_last(run: Run, here: str) -> None:
    async def taken_up(journal: Any) -> None:
        one = await begun(journal, "r", "order_flow")
        await write(journal, turn(one, status=Passivate(0, "signal 'go'")))
        await claim(journal, ("order_flow", 1))

    made(here, taken_up)
    assert "  running  " in run("runs", "list")[1]
    assert run("runs", "list")[1].rstrip().endswith("last waited for signal 'go'")
    assert "\nlast waited for: signal 'go'\n" in run("runs", "show", "r")[1]


def test_a_tree_shows_each_run_below_its_parent(run: Run, here: str) -> None:
    made(here, family(3, 2))
    code, printed, error = run("runs", "tree", "batch")
    assert (code, error) == (0, "")
    shown = printed.splitlines()
    assert shown[0].startswith("batch  batch_flow  running")
    assert [line[: line.index("order_flow")].rstrip() for line in shown[1:]] == [
        "├─ o-00",
        "│  └─ deep",
        "├─ o-01",
        "└─ o-02",
    ]
    assert "suspended" in shown[1]
    assert shown[1].endswith("waiting for child 'deep'")
    assert shown[4].endswith(r"ValueError: no such \x1b[31morder")
    assert run("runs", "tree", "batch", "--depth", "1")[1].count("\n") == 4
    assert run("runs", "tree", "batch/o-00")[1].splitlines()[0].startswith("batch/o-00")


def test_a_wide_level_is_folded_and_what_failed_comes_first(run: Run, here: str) -> None:
    made(here, family(40, 37))
    shown = run("runs", "tree", "batch")[1].splitlines()
    assert shown[1].startswith("├─ o-37  order_flow  failed")
    assert shown[2].startswith("├─ o-00  order_flow  suspended")
    assert shown[3].startswith("│  └─ deep")
    assert shown[-1] == "└─ and 20 more: 20 completed"
    assert len(shown) == 1 + 20 + 1 + 1
    cut = run("runs", "tree", "batch", "--limit", "5")[1].splitlines()
    assert cut[-1] == "only the first 5 runs in the order of ids were read: --limit reads more"
    whole = json.loads(run("runs", "tree", "batch", "--json")[1])
    assert len(whole["children"]) == 40
    assert whole["children"][0]["children"][0]["id"] == "batch/o-00/deep"


def test_lines_are_as_wide_as_the_terminal_and_no_wider(
    run: Run, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = Fail(encode_failure(Failure("Wide", "名" * 100)))
    made(here, ended("wide", wide), family(2, 1))
    monkeypatch.setenv("COLUMNS", "80")
    for command in (["list"], ["tree", "batch"], ["history", "batch"]):
        printed = run("runs", *command)[1]
        assert max(map(len, printed.splitlines())) <= 80
    row = next(line for line in run("runs", "list")[1].splitlines() if line.startswith("wide"))
    assert row.endswith("名…")
    assert len(row) + row.count("名") in (79, 80)
    assert "CREATED" not in run("runs", "list")[1]
    monkeypatch.setenv("COLUMNS", "120")
    assert "CREATED" in run("runs", "list")[1]
    monkeypatch.delenv("COLUMNS")
    assert "名" * 100 in run("runs", "list")[1], "what is no terminal gets the whole line"


def test_a_remark_that_finds_no_room_has_a_line_of_its_own(
    run: Run, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    uuid = "01a203df-7227-759d-847b-7c5799436e24"
    made(here, ended(uuid, Fail(boom())), ended("01a203df-7227-759d-847b-7c5799436e25", COMPLETE))
    _, done, failed, why = run("runs", "list")[1].splitlines()
    assert done.split()[2] == "completed"
    assert failed.split()[:3] == [uuid, "order_flow", "failed"]
    assert why == r"  ValueError: no such \x1b[31morder"


def test_a_remark_begins_with_what_went_wrong_first(run: Run, here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declined = Failure("ValueError", "declined")
    charged = Failure("ActivityFailed", "activity 'charge' failed: ValueError: declined", cause=declined)
    group = Failure("ExceptionGroup", "unhandled errors (2 sub-exceptions)", parts=(charged, declined))
    one = Failure("ChildFailed", "child 'a/b' (c) failed: ExceptionGroup: unhandled errors", cause=group)
    made(here, ended("a", Fail(encode_failure(charged))), ended("g", Fail(encode_failure(one))))
    monkeypatch.setenv("COLUMNS", "200")
    assert (
        run("runs", "tree", "a")[1]
        .rstrip()
        .endswith("  ValueError: declined (ActivityFailed: activity 'charge' failed)")
    )
    assert (
        run("runs", "tree", "g")[1]
        .rstrip()
        .endswith("  ValueError: declined (ChildFailed: child 'a/b' (c) failed: ExceptionGroup: unhandled errors)")
    )


def test_a_run_that_was_asked_to_stop_says_so_everywhere_until_it_has_ended(run: Run, here: str) -> None:
    async def asked(journal: Any) -> None:
        found = await begun(journal, "slow", "order_flow")
        await journal.request_cancel("slow", "too dear", 3600)
        done = await begun(journal, "done", "order_flow")
        await journal.request_cancel("done", "too dear", 3600)
        await write(journal, turn(done, status=COMPLETE))
        await write(journal, turn(found, children=(child("slow", "kid", workflow="order_flow"),)))
        await journal.request_cancel("slow/kid", "and you", 3600)

    made(here, asked)
    remark = r"asked to stop, (1 h 0 min|59 min \d+ s) left: "
    for command in (["list"], ["tree", "slow"]):
        assert re.search(remark + "too dear", run("runs", *command)[1])
    assert re.search(remark + "and you", run("runs", "tree", "slow")[1]), "also without values"
    assert re.search(r"^to stop by: +\S+Z \(.* left\): too dear$", run("runs", "show", "slow")[1], re.MULTILINE)
    assert "stop" not in run("runs", "show", "done")[1]
    shown = json.loads(run("runs", "show", "slow", "--json")[1])
    assert (shown["stop_reason"], shown["stop_by"][-1]) == ("too dear", "Z")


def test_show_leaves_out_frames_that_are_not_the_authors_and_says_whose_they_are(run: Run, here: str) -> None:
    own = '  File "/srv/shop/flows.py", line 7, in {}\n    await it\n'
    ours = '  File "/srv/lib/site-packages/continuum/_core/machine.py", line 1, in turn\n    run()\n'
    parts = tuple(Failure("OSError", name, ours + own.format(name)) for name in ("first", "second"))
    group = Failure("ExceptionGroup", "two of them", ours, parts=parts)
    failed = Failure("ChildFailed", "child 'a/b' (c)\nfailed", ours + own.format("top"), cause=group)
    made(here, ended("a", Fail(encode_failure(failed))))
    printed = run("runs", "show", "a")[1]
    assert printed[printed.index("traceback") :] == (
        f"traceback of ChildFailed: child 'a/b' (c) failed\n{own.format('top')}"
        f"traceback of OSError: first\n{own.format('first')}"
        f"traceback of OSError: second\n{own.format('second')}"
    )
    assert "machine.py" in json.loads(run("runs", "show", "a", "--json")[1])["error"]["traceback"]


def test_a_terminal_without_unicode_gets_none_and_a_reader_that_leaves_is_no_error(here: str) -> None:
    made(here, family(30, 1))
    command = [sys.executable, "-m", "continuum", "runs", "tree", "batch"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "50"}
    done = subprocess.run(command, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"|- o-01  order_flow  failed" in done.stdout
    assert b"..." in done.stdout
    assert b"\\u" not in done.stdout
    quoted = " ".join(command)
    gone = subprocess.run(["sh", "-c", f"{quoted} | true"], capture_output=True)
    assert gone.stderr == b""
