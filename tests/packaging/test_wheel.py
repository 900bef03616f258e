"""The wheel: all of our code with its data and its licence, nothing else, and commands that start."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("lib", "services"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", target, source], check=True, timeout=60)
    return zipfile.Path(next(target.glob("*.whl")))


def test_it_holds_all_of_our_code_and_its_samples(wheel: zipfile.Path) -> None:
    files = (name for name in wheel.root.namelist() if not name.endswith("/"))
    inside = {name for name in files if not name.partition("/")[0].endswith(".dist-info")}
    assert inside == set(sources())
    assert "services/devstack/samples/portrait.jpg" in inside


def test_it_is_made_for_any_machine(wheel: zipfile.Path) -> None:
    assert Path(str(wheel.root.filename)).name.endswith("-py3-none-any.whl")


def test_it_carries_its_licence(wheel: zipfile.Path) -> None:
    assert [name for name in wheel.root.namelist() if name.endswith(".dist-info/licenses/LICENSE")]


def test_its_commands_name_functions_that_exist(wheel: zipfile.Path) -> None:
    parser = configparser.ConfigParser()
    entry_points = next(name for name in wheel.root.namelist() if name.endswith("entry_points.txt"))
    parser.read_string(wheel.joinpath(entry_points).read_text())
    commands = dict(parser["console_scripts"])
    assert set(commands) == {"sqs-to-comfy-adapter", "gpu-orchestrator", "gpu-devstack", "gpu-doctor"}
    for target in commands.values():
        module, _, function = target.partition(":")
        code = f"import sys; sys.path.insert(0, {str(wheel.root.filename)!r}); from {module} import {function}"
        subprocess.run([sys.executable, "-c", code], check=True, cwd="/", timeout=60)


def sources() -> list[str]:
    return [
        str(file.relative_to(ROOT))
        for top in ("lib", "services")
        for file in (ROOT / top).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    ]
