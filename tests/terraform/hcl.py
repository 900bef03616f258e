"""Reads what `terraform fmt` has laid out: enough of the language for a few questions, without a parser."""

from __future__ import annotations

import re
from collections.abc import Mapping


def block(sources: Mapping[str, str], head: str) -> str:
    """The body of the top-level block that begins with `head`, e.g. `variable "idle_s"`."""
    for text in sources.values():
        found = re.search(rf"^{re.escape(head)} {{\n(.*?)^}}", text, re.MULTILINE | re.DOTALL)
        if found:
            return found[1]
    raise LookupError(head)


def statements(sources: Mapping[str, str], document: str) -> list[str]:
    """The statements of a policy document."""
    body = block(sources, f'data "aws_iam_policy_document" "{document}"')
    return re.findall(r"^  statement {\n(.*?)^  }", body, re.MULTILINE | re.DOTALL)


def strings(statement: str, argument: str) -> list[str]:
    """The items of a list argument: strings without their quotes, references as they are."""
    found = re.search(rf"^ *{argument} *= \[(.*?)\]$", statement, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(argument)
    return [item.strip().strip('"') for item in found[1].split(",") if item.strip()]


def default(sources: Mapping[str, str], variable: str) -> str:
    """A variable's default."""
    found = re.search(r"^  default *= (.*)$", block(sources, f'variable "{variable}"'), re.MULTILINE)
    if found is None:
        raise LookupError(variable)
    return found[1].strip('"')


def local(sources: Mapping[str, str], name: str) -> str:
    """A one-line local value."""
    for text in sources.values():
        found = re.search(rf"^ +{name} += (.*?)(?: +#.*)?$", text, re.MULTILINE)
        if found:
            return found[1].strip('"')
    raise LookupError(name)


def keys(sources: Mapping[str, str], name: str) -> dict[str, str]:
    """A map of one level among the locals: its keys and the text of its values."""
    for text in sources.values():
        found = re.search(rf"^  {name} = {{\n(.*?)^  }}", text, re.MULTILINE | re.DOTALL)
        if found:
            return dict(re.findall(r"^    (\w+) *= (.*)$", found[1], re.MULTILINE))
    raise LookupError(name)
