"""A worker's settings: keyword, then environment, then default; what cannot be used is named."""

from datetime import timedelta

import pytest

from continuum import InvalidSetting
from continuum._engine.settings import WorkerSettings


def test_a_keyword_wins_over_the_environment_and_that_over_the_default() -> None:
    environ = {"CONTINUUM_LEASE": "4", "CONTINUUM_THREADS": "3", "CONTINUUM_POLL": " "}
    settings = WorkerSettings.resolve({"lease": 8}, environ)
    assert settings.lease == timedelta(seconds=8)
    assert settings.threads == 3
    assert settings.poll == timedelta(seconds=1)


def test_an_unknown_setting_names_the_nearest_one() -> None:
    with pytest.raises(TypeError, match="did you mean 'threads'"):
        WorkerSettings.resolve({"thread": 3}, {})


@pytest.mark.parametrize(
    ("name", "text"), [("LEASE", "ten"), ("CACHE", "1.5"), ("POLL", "nan"), ("DRAIN", "-1"), ("THREADS", "0")]
)
def test_a_variable_that_cannot_be_used_is_named(name: str, text: str) -> None:
    with pytest.raises(InvalidSetting, match=name.lower() if name in ("POLL", "DRAIN", "THREADS") else name):
        WorkerSettings.resolve({}, {f"CONTINUUM_{name}": text})


def test_a_lease_shorter_than_two_heartbeats_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="at least twice heartbeat"):
        WorkerSettings(lease=3, heartbeat=2)


def test_a_number_that_is_none_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidSetting, match="cache is a whole number"):
        WorkerSettings(cache="many")  # type: ignore[arg-type]


def test_a_variable_that_is_nearly_a_setting_is_told(caplog: pytest.LogCaptureFixture) -> None:
    WorkerSettings.resolve({}, {"CONTINUUM_LAESE": "5", "CONTINUUM_HOME": "x", "CONTINUUM_UNRELATED": "y"})
    assert [record.getMessage() for record in caplog.records] == [
        "CONTINUUM_LAESE is no setting; did you mean CONTINUUM_LEASE?"
    ]
