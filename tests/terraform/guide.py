"""The way to deploy in `docs/deploying.md`, followed by a person who types what it says: the text is what is tested."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[2] / "docs/deploying.md"

_PART = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A prompt, and all lines that a backslash continues.
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)$", re.MULTILINE)

_LIMIT_S = 300

# What its sentences tell to run where something is to be paused, mended or taken off.
_ASIDE = re.compile(r"`(aws [^`]+)`")
_ASSIGNMENT = re.compile(r"^([A-Z]+)=")


def read_guide() -> dict[str, list[str]]:
    """The commands of each part of the guide, by the part's heading."""
    return {
        heading: [command for block in _BLOCK.findall(text) for command in _COMMAND.findall(block)]
        for heading, text in _PART.findall(GUIDE.read_text())
    }


def read_asides() -> list[str]:
    """AWS's commands in the sentences of the guide, each on one line and once."""
    return list(dict.fromkeys(" ".join(command.split()) for command in _ASIDE.findall(GUIDE.read_text())))


@dataclass(slots=True)
class Shell:
    """One session: what a command assigns to a variable, the next one finds there.

    Attributes:
        directory: where the commands are typed.
        environment: of the commands.
        typed: the commands so far.
    """

    directory: Path
    environment: Mapping[str, str]
    state: Path
    typed: list[str] = field(default_factory=list)

    def follow(self, commands: Iterable[str], **instead: str) -> None:
        """Type them all; `instead`: what only real AWS can give, by the variable to which a command assigns it."""
        for command in commands:
            self.type(command)
            for name in _ASSIGNMENT.findall(command):
                if name in instead:
                    self.assign(name, instead[name])

    def assign(self, name: str, value: str) -> None:
        """Another value for a variable."""
        with self.state.open("a") as state:
            state.write(f"{name}='{value}'\n")

    def value(self, name: str) -> str:
        """What a variable holds."""
        return self._run(f'printf %s "${name}"')

    def type(self, command: str, *, then: str = "") -> str:
        """Its standard output; whatever it asks is answered with yes. `then`: what is typed behind it.

        Raises:
            AssertionError: it fails.
        """
        self.typed.append(command)
        assigned = " ".join(_ASSIGNMENT.findall(command))
        keep = f'\ndeclare -p {assigned} >>"$STATE"' if assigned else ""
        return self._run(f"{command}{then}{keep}")

    def _run(self, script: str) -> str:
        self.state.touch()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f'source "$STATE"\n{script}'],
            cwd=self.directory,
            env={**self.environment, "STATE": str(self.state)},
            input="yes\n",
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"$ {script}\n{done.stdout}\n{done.stderr}"
        return done.stdout
