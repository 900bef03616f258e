from __future__ import annotations

from typing import Self

import pytest
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from lib.daemon.configuration import EXIT_CONFIGURATION, changed, load_settings, misspelt
from tests.daemon.conftest import Start

SECRET = "hunter2"


class Settings(BaseSettings):
    sample_port: int = Field(ge=1)
    sample_name: str = Field(default="x", min_length=1)
    sample_key: SecretStr = Field(default=SecretStr(""), max_length=3)
    sample_list: list[int] = Field(default_factory=list)
    sample_heartbeat_s: float = 100
    sample_visibility_s: float = 300

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.sample_heartbeat_s > self.sample_visibility_s / 2:
            raise ValueError("SAMPLE_HEARTBEAT_S must be\nless than half of SAMPLE_VISIBILITY_S")
        return self


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_PORT", "8080")


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """What a service says instead of starting."""
    with pytest.raises(SystemExit) as exit_:
        load_settings(Settings)
    assert exit_.value.code == EXIT_CONFIGURATION == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_LIST", "[1, 2]")
    settings = load_settings(Settings)
    assert (settings.sample_port, settings.sample_list) == (8080, [1, 2])


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SAMPLE_PORT")
    assert refusal(capsys) == "configuration: SAMPLE_PORT is not set"


def test_a_wrong_variable_is_named_with_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAMPLE_PORT", "0")
    assert refusal(capsys) == "configuration: SAMPLE_PORT: Input should be greater than or equal to 1"


def test_every_wrong_variable_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SAMPLE_PORT")
    monkeypatch.setenv("SAMPLE_NAME", "")
    assert refusal(capsys) == (
        "configuration: SAMPLE_PORT is not set; SAMPLE_NAME: String should have at least 1 character"
    )


def test_an_element_of_a_list_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAMPLE_LIST", '["x"]')
    assert refusal(capsys).startswith("configuration: SAMPLE_LIST: Input should be a valid integer")


def test_a_list_that_is_not_json_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SAMPLE_LIST", f"not json {SECRET}")
    line = refusal(capsys)
    assert line.startswith("configuration: SAMPLE_LIST: ")
    assert SECRET not in line


def test_settings_that_do_not_fit_together_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAMPLE_HEARTBEAT_S", "200")
    assert refusal(capsys) == "configuration: SAMPLE_HEARTBEAT_S must be less than half of SAMPLE_VISIBILITY_S"


def test_a_value_is_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SAMPLE_KEY", SECRET)
    monkeypatch.setenv("SAMPLE_PORT", SECRET)
    line = refusal(capsys)
    assert "SAMPLE_KEY" in line
    assert SECRET not in line


async def test_a_process_with_a_wrong_setting_ends_with_one_line_and_78(start: Start) -> None:
    process = await start("configured", environment={"SAMPLE_PORT": "many", "SAMPLE_KEY": SECRET})
    out, err = await process.communicate()
    assert process.returncode == 78
    assert out == b""
    assert err.decode().splitlines() == [
        "configuration: SAMPLE_PORT: Input should be a valid integer, unable to parse string as an integer"
    ]


async def test_a_process_with_its_settings_runs(start: Start) -> None:
    process = await start("configured", environment={"SAMPLE_PORT": "8080", "SAMPLE_KEY": SECRET})
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"8080\n", b"")


def test_a_variable_that_is_nearly_one_is_told_of() -> None:
    (sentence,) = misspelt(Settings, ["SAMPLE_PORTS", "SAMPLE_PORT", "PATH", "HOSTNAME", "AWS_REGION"])
    assert sentence == "SAMPLE_PORTS is no variable of this service and is ignored; is SAMPLE_PORT meant?"


def test_what_differs_from_the_defaults_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert changed(load_settings(Settings)) == ""
    monkeypatch.setenv("SAMPLE_NAME", "y")
    monkeypatch.setenv("SAMPLE_KEY", "abc")
    assert changed(load_settings(Settings)) == "SAMPLE_NAME=y SAMPLE_KEY=***"
