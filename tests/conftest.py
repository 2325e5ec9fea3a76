"""Options and checks that all tests share."""

import gc

import pytest

pytest.register_assert_rewrite("tests.core.harness")
pytest_plugins = ["tests.databases", "continuum.testing.pytest_plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-transcripts",
        action="store_true",
        help="write tests/transcripts/*.txt anew; commit a change only with the reason for it",
    )


def pytest_collection_finish() -> None:
    """Let the garbage collector leave alone what was imported and collected: nothing of it ever goes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
