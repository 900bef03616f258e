"""The permissions that an operator is told to grant are exactly those of the calls that are made."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from services.doctor.reader import ACTIONS

ROOT = Path(__file__).resolve().parents[2]
ACTION = re.compile(r"\b(?:sts|dynamodb|sqs|cloudwatch|lambda|events|ec2|iam|logs|sns|ssm):[A-Z]\w+")


def calls() -> set[str]:
    """The first argument of each `read`."""
    return {
        str(node.args[0].value)
        for path in (ROOT / "services" / "doctor").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "read"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }


def test_what_may_be_called_is_called() -> None:
    assert calls() == set(ACTIONS)


def test_the_help_names_them() -> None:
    command = [sys.executable, "-m", "services.doctor", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ACTION.findall(done.stdout) == list(ACTIONS)


def test_the_docs_name_them() -> None:
    operations = (ROOT / "docs/operations.md").read_text()
    (paragraph,) = re.findall(r"^Permissions of the doctor: (.*?)\n\n", operations, re.MULTILINE | re.DOTALL)
    assert set(ACTION.findall(paragraph)) == set(ACTIONS)
