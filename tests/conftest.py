"""Options and checks that all tests share."""

import pytest

pytest.register_assert_rewrite("tests.core.harness")
pytest_plugins = ["tests.databases", "continuum.testing.pytest_plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-transcripts",
        action="store_true",
        help="write tests/transcripts/*.txt anew; commit a change only with the reason for it",
    )
