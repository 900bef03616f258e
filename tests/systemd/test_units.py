"""The unit files: valid without a word, locked down, and in step with the settings they serve."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lib.asyncaws.session import METERING
from services.adapter.settings import AdapterSettings
from services.orchestrator.connections import most_connections
from services.orchestrator.settings import OrchestratorSettings

UNITS = Path(__file__).parent.parent.parent / "systemd"
SERVICES = ("sqs-adapter.service", "orchestrator.service")
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def verifiable(tmp_path: Path) -> Path:
    """The units, their programs replaced by one that exists here."""
    for unit in UNITS.glob("*.*"):
        if unit.suffix in (".service", ".path"):
            text = re.sub(r"^ExecStart=/opt/\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
            (tmp_path / unit.name).write_text(text)
    (tmp_path / "comfyui-unified-api.service").write_text("[Service]\nExecStart=/bin/true\n")
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("unit", [*SERVICES, "comfyui-restart.path", "comfyui-restart.service"])
def test_unit_verifies_without_a_word(verifiable: Path, unit: str) -> None:
    """`verify` exits 0 even on unknown keys, so every line counts as a failure."""
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(verifiable / unit)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{verifiable}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES)
def test_exposure_is_below_two(verifiable: Path, unit: str) -> None:
    run = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", str(verifiable / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-400:]


def test_the_adapter_is_given_time_for_its_receive_its_drain_and_its_last_metrics() -> None:
    defaults = {name: field.default for name, field in AdapterSettings.model_fields.items()}
    needed_s = defaults["receive_wait_s"] + defaults["drain_s"] + METERING.total_s
    assert service_value("sqs-adapter.service", "TimeoutStopSec") > needed_s


def test_the_orchestrator_is_given_time_for_its_drain_and_its_last_metrics() -> None:
    needed_s = OrchestratorSettings.model_fields["drain_s"].default + METERING.total_s
    assert service_value("orchestrator.service", "TimeoutStopSec") > needed_s


def test_the_orchestrator_may_open_the_files_that_its_connections_need() -> None:
    wanted = OrchestratorSettings.model_fields["max_connections"].default
    descriptors = round(service_value("orchestrator.service", "LimitNOFILE"))
    assert most_connections(wanted, descriptors=descriptors) == wanted


@pytest.mark.parametrize("unit", SERVICES)
def test_a_wrong_configuration_is_not_restarted_and_anything_else_always_is(unit: str) -> None:
    sections = parse(unit)
    assert sections["Service"]["Restart"] == "always"
    assert sections["Service"]["RestartPreventExitStatus"] == "78"
    assert sections["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_adapter_wants_the_unified_api_but_does_not_require_it() -> None:
    unit = parse("sqs-adapter.service")["Unit"]
    assert "comfyui-unified-api.service" in unit["Wants"]
    assert "comfyui-unified-api.service" in unit["After"]
    assert "Requires" not in unit


def test_whoever_is_asked_for_a_restart_watches_the_file_that_is_touched() -> None:
    text = (UNITS / "sqs-adapter.service").read_text()
    touched = re.search(r"^Environment=UPSTREAM_RESTART_FILE=(.+)$", text, flags=re.MULTILINE)
    assert touched is not None
    assert parse("comfyui-restart.path")["Path"]["PathExists"] == touched.group(1)


@pytest.mark.parametrize(
    ("example", "settings"),
    [("sqs-adapter.environment.example", AdapterSettings), ("orchestrator.environment.example", OrchestratorSettings)],
)
def test_the_examples_name_real_settings(example: str, settings: type, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (UNITS / example).read_text().splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            assert name.lower() in settings.model_fields, name  # type: ignore[attr-defined]
            monkeypatch.setenv(name, value)
    settings()


def parse(unit: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / unit)
    return parser


def service_value(unit: str, name: str) -> float:
    return float(parse(unit)["Service"][name])
