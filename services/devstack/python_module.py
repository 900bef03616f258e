"""Commands that run a module with this interpreter."""

import sys


def module_command(module: str, *arguments: str) -> tuple[str, ...]:
    """`python -m MODULE ARGUMENTS...`"""
    return (sys.executable, "-m", module, *arguments)
