"""`--help` and `--version` of a service that is configured by its environment."""

from __future__ import annotations

import argparse
from importlib.metadata import version

from pydantic import SecretStr
from pydantic_settings import BaseSettings

DISTRIBUTION = "gpu-on-demand"


def read_command_line(program: str, description: str, kind: type[BaseSettings]) -> None:
    """Answer `--help` and `--version`, and refuse every other argument.

    Raises:
        SystemExit: 0 after an answer, 2 for an argument that there is not.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=_variables(kind),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{program} {version(DISTRIBUTION)}")
    parser.parse_args()


def _variables(kind: type[BaseSettings]) -> str:
    lines = ["Configured by environment variables:"]
    for name, field in kind.model_fields.items():
        shown = "" if isinstance(field.default, SecretStr) else str(field.default)
        lines.append(f"  {name.upper():<28} {'required' if field.is_required() else shown or 'none'}")
    return "\n".join(lines)
