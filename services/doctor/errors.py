"""What ends the command before there is anything to report."""

from __future__ import annotations


class DeploymentError(Exception):
    """What is to be checked is not told, or told wrongly: somebody must change the configuration."""


class CannotLookError(Exception):
    """AWS, or Terraform, answers nothing that could be judged.

    Attributes:
        fix: what to do about it.
    """

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix
