"""A plugin for pytest that says which package the tests import, and how each failure came about.

The rule: a bug counts as planted only if the tests see the copy it is planted in, and as caught only by a test:
what cannot be collected, or a fixture that breaks, says nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import continuum

NONSENSE = (ImportError, NameError, SyntaxError)  # a bug that was planted badly
COPY, REPORT = "CONTINUUM_MUTANT_COPY", "CONTINUUM_MUTANT_REPORT"


def pytest_configure() -> None:
    """Refuse to run unless the package is the one with the bug in it."""
    copy, found = Path(os.environ[COPY]), Path(continuum.__file__)
    if not found.is_relative_to(copy):
        raise pytest.UsageError(f"the tests would see {found}, not the package below {copy}")


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector,
    call: pytest.CallInfo[object],
    report: pytest.TestReport | pytest.CollectReport,
) -> None:
    """Write down a failure."""
    when = report.when if isinstance(report, pytest.TestReport) else "collect"
    error = call.excinfo
    assert error is not None
    in_a_fixture = when != "call" and not error.errisinstance((AssertionError, pytest.fail.Exception))
    is_verdict = not (when == "collect" or in_a_fixture or error.errisinstance(NONSENSE))
    line = {"test": node.name, "verdict": is_verdict, "error": error.exconly(tryshort=True)}
    with open(os.environ[REPORT], "a", encoding="utf-8") as report_file:
        report_file.write(json.dumps(line) + "\n")
