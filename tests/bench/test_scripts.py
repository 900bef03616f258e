"""Each benchmark runs to its end and says what it found. What it found depends on the machine, so nobody asserts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_PROJECT = Path(__file__).parents[2]


@pytest.mark.timeout(300)  # many processes are started one after the other, and nobody says on how busy a machine
@pytest.mark.parametrize(
    ("script", "title"),
    [
        ("post", "POST, AWS latency"),
        ("get", "GET, AWS latency"),
        ("faults", "Faults and crowds"),
        ("overload", "Overload,"),
        ("worker", "Worker,"),
        ("growth", "Growth,"),
    ],
)
def test_script_prints_its_table_and_writes_its_numbers(script: str, title: str, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    ended = subprocess.run(
        [sys.executable, "-m", "bench", script, "--seconds", "1", "--rounds", "1", "--json", str(numbers)],
        cwd=_PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert title in ended.stdout
    assert ended.stderr == ""
    (report,) = json.loads(numbers.read_text())["reports"]
    assert report["title"].startswith(title)
    assert all(isinstance(finding["measured"], int | float) for finding in report["findings"])
