"""What people see: plain lines elsewhere, one painted line on a terminal, a table in the end."""

import dataclasses
import io
from pathlib import Path

import pytest

from continuum.demo.drive import Figures
from continuum.demo.files import Tally
from continuum.demo.flows import Report
from continuum.demo.ledger import Ledger, written
from continuum.demo.show import Show, summary

FIGURES = Figures(
    run_id="audit-1",
    ledger=".continuum/demo/audit-1.ledger",
    report=Report(298, 0, {"distribution": 36, "library": 262}, Tally(16_049, 406_085_559, 14_927)),
    asked=1,
    kills=1,
    steps=663,
    again=19,
    cut=12,
    resumed=24,
    seconds=5.96,
    example="pydantic",
)


class Stream(io.TextIOWrapper):
    """A stream that may be a terminal, in some encoding."""

    def __init__(self, *, terminal: bool, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, newline="")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        self.flush()
        return self.bytes.getvalue().decode(self.encoding)


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    path = tmp_path / "ledger"
    path.touch()
    with written(path, "", 0) as noted:
        noted.how_many = 100
    return Ledger(path)


def check(ledger: Ledger, *packages: int) -> None:
    for package in packages:
        for part in (0, 1):
            with written(ledger.path, f"p{package}", part) as noted:
                noted.how_many = 1
    ledger.read_on()


def test_elsewhere_a_line_is_written_now_and_then(ledger: Ledger) -> None:
    stream = Stream(terminal=False)
    show = Show(stream)
    for package in range(100):
        check(ledger, package)
        show.progress(ledger)
    show.close()
    lines = stream.text().splitlines()
    assert lines[0] == " 10%  10 of 100 packages, 10 files"
    assert lines[-1] == "100%  100 of 100 packages, 100 files"
    assert len(lines) == 10
    assert "\x1b" not in stream.text()


def test_many_at_once_are_one_line(ledger: Ledger) -> None:
    stream = Stream(terminal=False)
    show = Show(stream)
    check(ledger, *range(55))
    show.progress(ledger)
    show.progress(ledger)
    assert stream.text() == " 55%  55 of 100 packages, 55 files\n"


def test_on_a_terminal_one_line_is_painted_over(ledger: Ledger) -> None:
    stream = Stream(terminal=True)
    show = Show(stream)
    check(ledger, *range(50))
    show.progress(ledger)
    assert stream.text() == f"\r{'█' * 12}{'░' * 12}  50%  50 of 100 packages, 50 files\x1b[K"
    show.say("killed")
    assert stream.text().endswith("\r\x1b[Kkilled\n")


def test_a_painted_line_fits_the_terminal(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Stream(terminal=True)
    check(ledger, *range(50))
    Show(stream).progress(ledger)
    assert len(stream.text().removeprefix("\r").removesuffix("\x1b[K")) == 29


def test_letters_that_the_encoding_lacks_are_not_used(ledger: Ledger) -> None:
    stream = Stream(terminal=True, encoding="ascii")
    check(ledger, *range(50))
    Show(stream).progress(ledger)
    assert "############............" in stream.text()


def test_a_dumb_terminal_is_none(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Stream(terminal=True)
    check(ledger, *range(50))
    Show(stream).progress(ledger)
    assert stream.text() == " 50%  50 of 100 packages, 50 files\n"


def test_nothing_is_shown_before_the_packages_are_known(tmp_path: Path) -> None:
    stream = Stream(terminal=True)
    Show(stream).progress(Ledger(tmp_path / "ledger"))
    assert stream.text() == ""


def test_the_table() -> None:
    assert list(summary(FIGURES)) == [
        "",
        "  children    298  (36 distributions, 262 of the standard library)",
        "  files       16,049  (14,927 compared with RECORD)",
        "  bytes       406,085,559",
        "  mismatches  0",
        "  kills       1",
        "  resumed     24  (runs that another worker replayed and went on with)",
        "  run twice   19  (of 663 activities; 12 were cut off, 7 had ended and were not recorded yet)",
        "  time        6.0 s",
        "  children/s  50",
    ]


def test_what_is_out_of_order_stands_below_the_table() -> None:
    total = Tally(
        9, 9, 3, unread=1, left_out=4, unlisted=2, mismatches=12, examples=[f"p: {n}" for n in range(10)]
    )
    lines = list(summary(dataclasses.replace(FIGURES, report=Report(2_000, 5, {"entry": 2_000}, total), kills=0)))
    below = lines[lines.index("", 1) + 1 :]
    assert below == [
        "12 files differ from what RECORD says:",
        *(f"  p: {n}" for n in range(10)),
        "  and 2 more",
        "1 files could not be read, or are larger than 1,024 MiB",
        "2 distributions have no RECORD, so their files are not known",
        "4 files are left out: of one package 20,000 are looked at",
        "5 packages are left out: 2,000 are looked at",
    ]
    assert "  kills       0  (of 1: it was done sooner)" in lines


def test_the_result_says_how_to_look_further() -> None:
    stream = Stream(terminal=False)
    Show(stream, ".venv/bin/continuum", " --home x").result(FIGURES)
    assert ".venv/bin/continuum runs tree audit-1 --home x\n" in stream.text()
    assert ".venv/bin/continuum runs history audit-1/pydantic --home x\n" in stream.text()
    assert "\x1b" not in stream.text()


def test_a_verdict_that_does_not_hold_is_told() -> None:
    stream = Stream(terminal=False)
    problems = [f"problem {n}" for n in range(12)]
    Show(stream).result(dataclasses.replace(FIGURES, problems=problems))
    assert "Ledger and journals do not agree:\n  problem 0\n" in stream.text()
    assert "  and 2 more\n" in stream.text()


def test_a_verdict_has_a_colour_unless_the_user_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = Stream(terminal=True)
    Show(coloured).result(FIGURES)
    assert "\x1b[32m" in coloured.text()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Stream(terminal=True)
    Show(plain).result(FIGURES)
    assert "\x1b[3" not in plain.text()
