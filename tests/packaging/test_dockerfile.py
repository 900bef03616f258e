"""The image's recipe. No Docker is needed: it is read, and its installation is carried out in a folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.registry import fetch_wheels

ROOT = Path(__file__).parent.parent.parent
HADOLINT = Path(sys.executable).with_name("hadolint")


def instructions() -> list[tuple[str, str]]:
    """Each instruction's word and its arguments, in order."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def arguments(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def test_hadolint_has_nothing_to_say() -> None:
    run = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


def test_the_base_is_pinned_and_slim_and_the_same_in_all_stages() -> None:
    assert {stage.partition(" ")[0] for stage in arguments("FROM")} == {"${PYTHON_IMAGE}"}
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+", arguments("ARG")[0])


def test_the_last_stage_has_no_root_and_installs_nothing() -> None:
    words = [word for word, _ in instructions()]
    last = instructions()[len(words) - 1 - words[::-1].index("FROM") :]
    assert [rest for word, rest in last if word == "USER"] == ["10001:10001"]
    assert not [rest for word, rest in last if word == "RUN"]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert "PYTHONUNBUFFERED=1" in arguments("ENV")[0]


def test_every_command_is_in_exec_form() -> None:
    """A shell in between would keep SIGTERM to itself."""
    healthcheck = arguments("HEALTHCHECK")[0].partition("CMD ")[2]
    for command in [*arguments("RUN"), *arguments("ENTRYPOINT"), healthcheck]:
        assert all(isinstance(word, str) for word in json.loads(command))


def test_whatever_is_copied_exists_and_is_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for rest in arguments("COPY") if not rest.startswith("--from") for name in rest.split()[:-1]}
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_the_healthcheck_tells_a_server_from_none() -> None:
    command = json.loads(arguments("HEALTHCHECK")[0].partition("CMD ")[2])
    nobody_listens = {**os.environ, "PORT": "1"}
    assert subprocess.run(
        [sys.executable, *command[1:]], env=nobody_listens, capture_output=True, check=False
    ).returncode
    assert "/health" in command[-1]


@pytest.mark.timeout(300)
def test_its_installation_works_and_gives_a_command_that_wants_its_settings(tmp_path: Path) -> None:
    home, build = tmp_path / "home", tmp_path / "build"
    build.mkdir()
    for rest in arguments("COPY"):
        if not rest.startswith("--from"):
            for name in rest.split()[:-1]:
                copy(ROOT / name, build / name)
    fetch_wheels("requirements-orchestrator.lock", tmp_path / "wheels")
    wheels = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_NO_COMPILE": "1"}
    for run in arguments("RUN"):
        command = [word.replace("/opt/orchestrator", str(home)) for word in json.loads(run)]
        command[0] = sys.executable if command[0] == "python" else command[0]
        subprocess.run(command, cwd=build, env=wheels, check=True, capture_output=True, timeout=100)
    entry = json.loads(arguments("ENTRYPOINT")[0])[0].replace("/opt/orchestrator", str(home))
    started = subprocess.run([entry], env={"HOST": "0.0.0.0"}, capture_output=True, text=True, check=False)
    assert started.returncode == 78
    assert "SQS_QUEUE_URL is not set" in started.stderr


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
